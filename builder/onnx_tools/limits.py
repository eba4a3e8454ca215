"""Keep a model within the opset and IR version that the target release loads."""

from __future__ import annotations

from typing import Final

from builder.errors import SpecError
from builder.onnx_tools.reading import ModelProto, graphs, opset_of, tensors

FIRST_IR_OF_TYPE = (
    (range(17, 21), 9, "float8"),
    (range(21, 23), 10, "int4"),
    (range(23, 24), 11, "float4"),
    (range(24, 25), 12, "float8e8m0"),
    (range(25, 27), 13, "int2"),
)
"""Element types of `TensorProto` and the IR version that brought them (the version history in onnx.proto)."""


RUNTIME_DOMAINS: Final = ("com.microsoft",)
"""Operators that onnxruntime has beside those of ONNX."""


def foreign_operators(model: ModelProto) -> list[str]:
    """Operators with their domains that are neither ONNX's, nor onnxruntime's, nor functions of the file."""
    import onnx

    local = {(function.domain, function.name) for function in model.functions}
    bodies = (*graphs(model), *model.functions)
    nodes = {(node.domain, node.op_type) for body in bodies for node in body.node} - local
    return sorted(
        f"{domain}:{word}" if domain else word
        for domain, word in nodes
        if domain not in RUNTIME_DOMAINS and not onnx.defs.has(word, "" if domain == "ai.onnx" else domain)
    )


def check_loadable(model: ModelProto, name: str) -> None:
    """Why onnxruntime refused a model, where it is beyond every release; its own words are of its source code then.

    Raises:
        SpecError: an opset that no release loads, or operators that onnxruntime does not have.
    """
    from builder.releases import known_releases

    newest = max(release.max_opset for release in known_releases())
    found = opset_of(model)
    if found > newest:
        raise SpecError(
            f"{name} uses ONNX opset {found}, and no known Triton release loads more than {newest}",
            remedy=_first_release(opset=found, ir_version=0),
        )
    foreign = foreign_operators(model)
    if foreign:
        raise SpecError(
            f"{name} has operators that neither ONNX nor onnxruntime knows: {', '.join(foreign)}",
            remedy="export the model without custom operators; their libraries cannot be loaded here",
        )


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
