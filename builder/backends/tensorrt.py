"""Triton's tensorrt backend: a plan built with TensorRT on the machine's GPU."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NoReturn

from builder.backends import Conversion, Settings
from builder.errors import BuildError, MachineError
from builder.machine import has_nvidia_gpu
from builder.tensors import BY_NUMPY, Signature, Tensor

GRAPHS = {"fp32": "fp32"}
DIALECT = "onnx"
LIBRARIES = ("tensorrt",)
EXTRA = ""
FILENAME = "model.plan"
CAN_BATCH = True
DEFERS = True

MAX_BATCH_SIZE: Final = 8
MAX_OTHER_SIZE: Final = 512
"""Largest size of a dynamic axis that is not the batch axis, in the engine's optimisation profile."""
CHOICES: Final = "remove the tensorrt target, add --defer to build it later, or build on a machine with an NVIDIA GPU"


def missing() -> tuple[str, str] | None:
    """A GPU first: without one the package would not help. An engine that nothing has measured is never served."""
    if not has_nvidia_gpu():
        return "a tensorrt target needs an NVIDIA GPU, and this machine shows none", CHOICES
    if find_spec("tensorrt") is None:
        return "the Python package tensorrt is not installed", f"pip install tensorrt; or {CHOICES}"
    return "TensorRT engines cannot be measured by this version of build-repo", CHOICES


def config_fields(settings: Settings) -> dict[str, Any]:  # noqa: ARG001 - the Protocol
    """Nothing: the engine holds it all."""
    return {}


def refuses(signature: Signature, release: str) -> str | None:  # noqa: ARG001 - the same in every release
    """The types that TensorRT has."""
    for side, tensors in (("input", signature.inputs), ("output", signature.outputs)):
        for tensor in tensors:
            row = BY_NUMPY[tensor.dtype]
            if row.tensorrt is None:
                return f"unsupported datatype {row.triton} for {side} '{tensor.name}'"
    return None


def convert(job: Conversion, out: Path) -> Signature:
    """Parse, build and write the plan.

    Raises:
        MachineError: there is no GPU or no TensorRT.
        BuildError: TensorRT's parser or builder refuses the model.
    """
    if find_spec("tensorrt") is None:
        raise MachineError("the Python package tensorrt is not installed", remedy=f"pip install tensorrt; or {CHOICES}")
    import tensorrt

    (out / FILENAME).write_bytes(build_plan(tensorrt, job.model, job.signature))
    return job.signature


def build_plan(library: Any, onnx_path: Path, signature: Signature) -> bytes:  # noqa: ANN401
    """The serialised engine; `library` is `tensorrt`, or `tensorrt_rtx` which has the same interface.

    Raises:
        BuildError: the parser (every error with its node) or the builder refuses the model.
    """
    builder = library.Builder(library.Logger(library.Logger.ERROR))
    # TensorRT 11 is always strongly typed and may drop the flag.
    strong = getattr(library.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if strong is None else 1 << int(strong))
    parser = library.OnnxParser(network, builder.logger)
    if not parser.parse_from_file(str(onnx_path)):
        _refuse_parse(parser)
    config = builder.create_builder_config()
    _add_profile(builder, config, signature)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildError(
            f"TensorRT {library.__version__} parsed the model and could not build an engine for it",
            remedy="see TensorRT's own lines in the log; or remove the tensorrt target",
        )
    return bytes(plan)


def _refuse_parse(parser: Any) -> NoReturn:  # noqa: ANN401
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    said = "; ".join(f"node '{error.node_name()}' ({error.node_operator()}): {error.desc()}" for error in errors)
    raise BuildError(
        f"TensorRT's ONNX parser refuses the model: {said or 'no reason given'}",
        remedy="change the operators it names, or remove the tensorrt target",
    )


def _add_profile(builder: Any, config: Any, signature: Signature) -> None:  # noqa: ANN401
    """One profile over every dynamic axis of every input: smallest 1, best and largest the maximum."""
    dynamic = [tensor for tensor in signature.inputs if tensor.dynamic_axes]
    if not dynamic:
        return
    profile = builder.create_optimization_profile()
    for tensor in dynamic:
        largest = _sized(tensor, signature, smallest=False)
        profile.set_shape(tensor.name, _sized(tensor, signature, smallest=True), largest, largest)
    config.add_optimization_profile(profile)


def _sized(tensor: Tensor, signature: Signature, *, smallest: bool) -> tuple[int, ...]:
    def size(axis: int, dim: int | str) -> int:
        if isinstance(dim, int):
            return dim
        if smallest:
            return 1
        return MAX_BATCH_SIZE if axis == 0 and signature.has_batch_axis else MAX_OTHER_SIZE

    return tuple(size(axis, dim) for axis, dim in enumerate(tensor.shape))


def open_session(folder: Path, signature: Signature, settings: Settings) -> NoReturn:  # noqa: ARG001 - the Protocol
    """Engines are not run in process yet: that needs a GPU to be proven on.

    Raises:
        MachineError: always.
    """
    raise MachineError(
        f"{folder.name}/{FILENAME}: TensorRT engines cannot be run in process yet, so none is measured",
        remedy=CHOICES,
    )
