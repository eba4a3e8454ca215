"""Triton's openvino backend: OpenVINO's IR, `model.xml` and `model.bin`, on the CPU plugin."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from builder.backends import Conversion, Settings
from builder.errors import BuildError
from builder.frameworks.openvino.execution import precision_proof, runs_in
from builder.measurement import PrecisionProof
from builder.tensors import BY_NUMPY, BY_OPENVINO, Dim, Signature, Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]

GRAPHS = {"fp32": "fp32", "fp16": "fp32", "bf16": "fp32", "int8": "int8"}
"""OpenVINO itself stores the weights in halves for fp16, and computes in bfloat16 when told to."""
FORMAT = "onnx"
DIALECT = "onnx"
LIBRARIES = ("openvino",)
EXTRA = "openvino"
FILENAME = "model.xml"
CAN_BATCH = False
OPTIONS_DECIDE = False
DEFERS = False
"""With max_batch_size N the native backend compiles for exactly N rows and fails every other request."""

MIN_FP16_SHARE: Final = 0.5
"""Below this share of the float weights' elements in fp16, the artefact is not what its precision says."""
RUN_WORDS: Final = {"threads": "INFERENCE_NUM_THREADS", "streams": "NUM_STREAMS", "hint": "PERFORMANCE_HINT"}
LARGEST_FP16: Final = 65504.0
PRECISE: Final = "precise_0"
"""OpenVINO's mark of what is not compressed."""
REMOVE: Final = "remove the openvino targets of this model"
COMPUTE: Final = {"f32": "fp32", "f16": "fp16", "bf16": "bf16"}


def missing() -> tuple[str, str] | None:
    """The package is all it needs."""
    if find_spec("openvino") is None:
        return "the Python package openvino is not installed", "pip install 'build-repo[openvino]'"
    return None


def config_fields(settings: Settings) -> dict[str, Any]:
    """Threads, streams and hint of the spec, and the only word that Triton's backend has for a precision.

    Without that word the CPU's own default is taken.
    """
    said = _run_words(settings)
    if settings.precision == "bf16":
        said["HINT_BF16"] = "YES"
    return {"parameters": {key: {"string_value": str(value)} for key, value in said.items()}} if said else {}


def _run_words(settings: Settings) -> dict[str, Any]:
    """The spec's words, in those that OpenVINO and Triton's backend share."""
    found = {word: settings.options.get(key) for key, word in RUN_WORDS.items()}
    return {word: value.upper() if isinstance(value, str) else value for word, value in found.items() if value}


def refuses(signature: Signature, release: str) -> str | None:  # noqa: ARG001 - the same in every release
    """Types the native backend lacks, scalars, and an output that is an input under the same name."""
    inputs = {tensor.name for tensor in signature.inputs}
    for side, tensors in (("input", signature.inputs), ("output", signature.outputs)):
        for tensor in tensors:
            row = BY_NUMPY[tensor.dtype]
            if row.openvino is None:
                return f"unsupported datatype {row.triton} for {side} '{tensor.name}'"
            if not tensor.shape:
                return f"{side} '{tensor.name}' is a scalar (rank 0), which Triton's openvino backend does not support"
            if side == "output" and tensor.name in inputs:
                return f"output '{tensor.name}' is the input of that name: OpenVINO cannot tell the two apart"
    return None


def convert(job: Conversion, out: Path) -> Signature:
    """Write the IR with the source's names, order and types; the ports are read back from the file.

    Raises:
        BuildError: OpenVINO cannot take the model over, or what it wrote is not what was asked for.
    """
    # OpenVINO's converter reports every call to its makers, without asking; without this module it has a stub for it.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    try:
        # Unshared: a weight that is transposed would lie in memory twice, as the mapped file's and as the new one.
        model = _named(openvino.convert_model(os.fspath(job.model), share_weights=False), job.signature)
        # The file's own place would make equal artefacts differ.
        model.set_rt_info("model.onnx", ["conversion_parameters", "input_model"])
        large = _spare_large(model) if job.precision == "fp16" else 0
        openvino.save_model(model, os.fspath(out / FILENAME), compress_to_fp16=job.precision == "fp16")
        del model
        _number_layers(out / FILENAME)
        written = openvino.Core().read_model(os.fspath(out / FILENAME))
    except BuildError:
        raise
    except Exception as error:
        raise BuildError(f"OpenVINO {_version()} does not take the model: {_short(error)}", remedy=REMOVE) from error
    if job.precision == "fp16":
        _require_fp16(written, large)
    return _ports(written, job.signature)


def _number_layers(path: Path) -> None:
    """Number names such as `Constant_16376` by the layer's place: that number counts all that the process ever made."""

    def numbered(match: re.Match[str]) -> str:
        name = re.sub(r"_\d+", f"_{match['id']}", match["name"])
        return f'<layer id="{match["id"]}" name="{name}" type="{match["type"]}"'

    layer = re.compile(r'<layer id="(?P<id>\d+)" name="(?P<name>[^"]*)" type="(?P<type>(?!Parameter|Result)[^"]*)"')
    path.write_text(layer.sub(numbered, path.read_text(encoding="utf-8")), encoding="utf-8")


def _version() -> str:
    from importlib.metadata import version

    return version("openvino")


def _named(model: Any, signature: Signature) -> Any:  # noqa: ANN401
    """The model with inputs and outputs in the source's order, each known by exactly its source's name."""
    import openvino

    parameters = _ordered(model.inputs, signature.inputs, "inputs")
    results = _ordered(model.outputs, signature.outputs, "outputs")
    _replace_identities(model)
    taken: set[Any] = set()
    for result, tensor in zip(results, signature.outputs, strict=True):
        _own_source(result, tensor, taken)
    if parameters != model.get_parameters() or results != model.get_results():
        model = openvino.Model(results, model.get_sinks(), parameters, "model")
    model.set_friendly_name("model")
    model.validate_nodes_and_infer_types()
    for result, tensor in zip(model.get_results(), signature.outputs, strict=True):
        result.input_value(0).get_tensor().set_names({tensor.name})
        result.output(0).get_tensor().set_names({tensor.name})
    for parameter, tensor in zip(model.get_parameters(), signature.inputs, strict=True):
        parameter.output(0).get_tensor().set_names({tensor.name})
    return model


def _ordered(ports: Any, tensors: tuple[Tensor, ...], side: str) -> list[Any]:  # noqa: ANN401
    nodes = {name: port.get_node() for port in ports for name in port.get_names()}
    absent = [tensor.name for tensor in tensors if tensor.name not in nodes]
    if absent or len(ports) != len(tensors):
        got = ", ".join(sorted(nodes))
        expected = ", ".join(tensor.name for tensor in tensors)
        msg = f"OpenVINO {_version()} changes the model's {side}: got {got}; expected {expected}"
        raise BuildError(msg, remedy=REMOVE)
    return [nodes[tensor.name] for tensor in tensors]


def _replace_identities(model: Any) -> None:  # noqa: ANN401
    """OpenVINO's own Identity is newer than most releases' OpenVINO; a conversion to the same type does the same."""
    from openvino import opset1

    for node in model.get_ordered_ops():
        if node.get_type_name() == "Identity":
            source = node.input_value(0)
            same = opset1.convert(source, source.get_element_type().to_string())
            same.set_friendly_name(node.get_friendly_name())
            node.output(0).replace(same.output(0))


def _own_source(result: Any, tensor: Tensor, taken: set[Any]) -> None:  # noqa: ANN401
    """Give an output a tensor of its own, of known rank and without upper bounds.

    The native backend takes a -1 of the configuration only where the model's dimension has no upper bound, and older
    OpenVINO keeps names on the tensor that feeds an output, so two outputs must not share one.
    """
    from openvino import opset1

    source = result.input_value(0)
    place = (source.get_node().get_friendly_name(), source.get_index())
    shape = source.get_partial_shape()
    if shape.rank.is_dynamic or any(dim.is_dynamic and _bounded(dim) for dim in shape):
        result.input(0).replace_source_output(_unbounded(source, len(tensor.shape)).output(0))
    elif _passed_through(source):
        result.input(0).replace_source_output(_copy(source).output(0))
    elif place in taken:
        same = opset1.convert(source, source.get_element_type().to_string())
        result.input(0).replace_source_output(same.output(0))
    taken.add(place)


def _passed_through(source: Any) -> bool:  # noqa: ANN401
    """True for an input that is also an output, be it through conversions."""
    node = source.get_node()
    while node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "Parameter")


def _copy(source: Any) -> Any:  # noqa: ANN401
    """The tensor in memory of its own.

    Where an input reaches an output through conversions only, the CPU plugin gives the second request of another shape
    the memory of the first one's input.
    """
    import numpy as np
    from openvino import opset1, opset3

    zero = opset1.constant(np.int64(0))
    smallest = opset1.reduce_min(opset3.shape_of(source, "i64"), opset1.constant(np.array([0], np.int64)), False)
    return opset1.select(opset1.greater_equal(smallest, zero), source, source)


def _bounded(dim: Any) -> bool:  # noqa: ANN401
    return bool(dim.get_max_length() != -1)


def _unbounded(source: Any, rank: int) -> Any:  # noqa: ANN401
    """A reshape to the tensor's own shape, led through an operator that OpenVINO does not follow bounds through."""
    import numpy as np
    from openvino import opset1, opset3

    zero = opset1.constant(np.int64(0))
    shape = opset3.shape_of(source, "i64")
    opaque = opset1.select(opset1.greater_equal(shape, zero), shape, zero)
    known_rank = opset1.reshape(opaque, opset1.constant(np.array([rank], np.int64)), special_zero=False)
    return opset1.reshape(source, known_rank, special_zero=False)


def _ports(model: Any, signature: Signature) -> Signature:  # noqa: ANN401
    return Signature(
        _read_ports(model.inputs, signature.inputs, "inputs"), _read_ports(model.outputs, signature.outputs, "outputs")
    )


def _read_ports(ports: Any, wanted: tuple[Tensor, ...], side: str) -> tuple[Tensor, ...]:  # noqa: ANN401
    found = [(sorted(port.get_names()), BY_OPENVINO.get(port.get_element_type().to_string())) for port in ports]
    if [(names, row and row.numpy) for names, row in found] != [([tensor.name], tensor.dtype) for tensor in wanted]:
        got = ", ".join(f"{'/'.join(names)} {row.numpy if row else 'unknown type'}" for names, row in found)
        raise BuildError(
            f"OpenVINO {_version()} wrote the {side} {got}; expected "
            + ", ".join(f"{tensor.name} {tensor.dtype}" for tensor in wanted),
            remedy=REMOVE,
        )
    return tuple(
        Tensor(tensor.name, tensor.dtype, _shape(port.get_partial_shape(), tensor))
        for port, tensor in zip(ports, wanted, strict=True)
    )


def _shape(shape: Any, tensor: Tensor) -> tuple[Dim, ...]:  # noqa: ANN401
    """The file's dimensions; where it allows any size the source's word stands, which the native backend takes too."""
    if shape.rank.is_dynamic or len(shape) != len(tensor.shape):
        msg = f"OpenVINO {_version()} gives '{tensor.name}' the shape {shape}; expected {tensor.describe()}"
        raise BuildError(msg, remedy=REMOVE)
    return tuple(dim.get_length() if dim.is_static else word for dim, word in zip(shape, tensor.shape, strict=True))


def _spare_large(model: Any) -> int:  # noqa: ANN401
    """Weights beyond fp16's range stay in fp32: OpenVINO would store the largest fp16 for them, and say nothing.

    How many elements those tensors have.
    """
    spared = 0
    for node in model.get_ops():
        if node.get_type_name() == "Constant" and node.get_element_type().to_string() in ("f32", "f64"):
            values = node.get_data()
            if values.size and _beyond(float(values.min()), float(values.max())):
                node.get_rt_info()[PRECISE] = ""
                spared += values.size
    return spared


def _beyond(low: float, high: float) -> bool:
    """Infinities are infinite in fp16 too."""
    return any(LARGEST_FP16 < abs(edge) < math.inf for edge in (low, high))


def _require_fp16(model: Any, large: int) -> None:  # noqa: ANN401
    """OpenVINO leaves weights in fp32 where fp16 would change them too much, and says nothing.

    `large`: elements of tensors that were to stay so, since they hold values that fp16 does not.

    Raises:
        BuildError: so few of the weights are fp16 that the target's name would be untrue.
    """
    sizes = {"f16": 0, "f32": 0, "f64": 0}
    for node in model.get_ops():
        kind = node.get_element_type().to_string() if node.get_type_name() == "Constant" else ""
        if kind in sizes and math.prod(node.get_output_shape(0)) > 1:
            sizes[kind] += math.prod(node.get_output_shape(0))
    total = sum(sizes.values())
    if total and sizes["f16"] < MIN_FP16_SHARE * total:
        why = "by its own rule rounding would change the others too much"
        if 2 * large >= total - sizes["f16"]:
            why = f"the others are in tensors with values beyond {LARGEST_FP16:.0f}, the largest number of fp16"
        raise BuildError(
            f"OpenVINO stores only {sizes['f16']} of {total} weights in fp16: {why}",
            remedy="use openvino:fp32 for this model",
        )


def _short(error: Exception) -> str:
    """OpenVINO's own reason, without the trace of C++ checks and source lines around it."""
    text = str(error)
    unknown = re.search(r"No conversion rule found for operations: ([^\n]+)", text)
    if unknown:
        return f"it has no such operator: {unknown.group(1).strip()}"
    lines = [line.strip(" -|\t") for line in text.splitlines()]
    noise = re.compile(r"^(Check .* failed at|Exception from|While validating node|FrontEnd API failed|Summary:|\[|$)")
    telling = [line for line in lines if line and not noise.match(line)]
    return " ".join((telling or lines or [type(error).__name__])[:3])[:400]


class OpenVinoSession:
    """A compiled `model.xml` with one request."""

    def __init__(self, compiled: Any, path: Path, signature: Signature) -> None:  # noqa: ANN401
        # By place: where OpenVINO drops an operator that changes nothing, a port also gets that operator's name.
        self._inputs = {tensor.name: index for index, tensor in enumerate(signature.inputs)}
        self._outputs = [tensor.name for tensor in signature.outputs]
        allowed = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        precision = allowed if allowed != "f32" and runs_in(compiled, allowed) else "f32"
        devices = "+".join(compiled.get_property("EXECUTION_DEVICES"))
        self._compute = f"{COMPUTE.get(precision, precision)}, {devices}"
        self._request = compiled.create_infer_request()
        self._compiled = compiled
        self._path = path

    @property
    def compute(self) -> str:
        return self._compute

    def run(self, inputs: Arrays) -> Arrays:
        results = self._request.infer({self._inputs[name]: array for name, array in inputs.items()}, share_inputs=True)
        return {name: results[index] for index, name in enumerate(self._outputs)}

    def precision_proof(self) -> PrecisionProof:
        import openvino

        return precision_proof(self._compiled, openvino.Core().read_model(os.fspath(self._path)))

    def close(self) -> None:
        self._request = self._compiled = None


def open_session(folder: Path, signature: Signature, settings: Settings) -> OpenVinoSession:
    """Compile `folder/model.xml` for the CPU as the native backend does: no automatic batching, bfloat16 if asked.

    With several streams a request has one of them, as one instance has in the server.

    Raises:
        BuildError: OpenVINO refuses it.
    """
    import openvino

    try:
        core = openvino.Core()
        model = core.read_model(os.fspath(folder / FILENAME))
        hints = {"INFERENCE_PRECISION_HINT": "bf16"} if settings.precision == "bf16" else {}
        compiled = core.compile_model(model, "CPU", {"ALLOW_AUTO_BATCHING": False, **hints, **_run_words(settings)})
        return OpenVinoSession(compiled, folder / FILENAME, signature)
    except Exception as error:
        raise BuildError(f"OpenVINO {_version()} does not compile the model: {_short(error)}", remedy=REMOVE) from error
