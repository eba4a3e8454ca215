"""Keep a model within the opset and IR version that the target release loads."""

from __future__ import annotations

from builder.errors import SpecError
from builder.onnx_tools.reading import ModelProto, opset_of, tensors

FIRST_IR_OF_TYPE = (
    (range(17, 21), 9, "float8"),
    (range(21, 23), 10, "int4"),
    (range(23, 24), 11, "float4"),
    (range(24, 25), 12, "float8e8m0"),
    (range(25, 27), 13, "int2"),
)
"""Element types of `TensorProto` and the IR version that brought them (the version history in onnx.proto)."""


def fit_limits(model: ModelProto, *, opset: int, ir_version: int) -> tuple[str, ...]:
    """Lower the IR version of `model` in place where it is too new; returns what was changed.

    Raises:
        SpecError: the opset, or a feature that needs the newer IR, is beyond what the release loads.
    """
    found = opset_of(model)
    if found > opset:
        raise SpecError(
            f"the model uses ONNX opset {found}; the target release loads opset {opset} at most",
            remedy=_first_release(opset=found, ir_version=0),
        )
    if model.ir_version <= ir_version:
        return ()
    needed, feature = _needed_ir(model)
    if needed > ir_version:
        raise SpecError(
            f"the model needs ONNX IR {needed} ({feature}); the target release loads IR {ir_version} at most",
            remedy=_first_release(opset=found, ir_version=needed),
        )
    note = f"ONNX IR version lowered from {model.ir_version} to {ir_version}, the newest the release loads"
    model.ir_version = ir_version
    return (note,)


def _needed_ir(model: ModelProto) -> tuple[int, str]:
    needed, feature = 3, "no feature"
    if model.functions:
        needed, feature = 8, "model-local functions"
    if any(function.overload for function in model.functions):
        needed, feature = 10, "overloaded functions"
    for tensor in tensors(model):
        for types, version, name in FIRST_IR_OF_TYPE:
            if tensor.data_type in types and version > needed:
                needed, feature = version, f"{name} tensor {tensor.name!r}"
    return needed, feature


def _first_release(*, opset: int, ir_version: int) -> str:
    from builder.releases import known_releases

    for release in known_releases():
        if release.max_opset >= opset and release.max_ir >= ir_version:
            return f"release {release.release} is the first that loads it (--triton {release.release}), or export lower"
    return f"no known release loads it: export the model again with opset {known_releases()[-1].max_opset} or lower"
