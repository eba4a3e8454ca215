"""What flows through a graph: the type of every tensor, and its values on a request, as onnxruntime sees them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from builder.errors import BuildError
from builder.onnx_tools.reading import ModelProto, read_onnx, short

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]

CHUNK: Final = 256
"""Tensors held at a time."""


def open_exposed(model: ModelProto, folder: Path) -> Any:  # noqa: ANN401 - onnxruntime.InferenceSession
    """A session without graph optimisation in which every node's output can be asked for; `model` stays as it is.

    Raises:
        BuildError: onnxruntime refuses the model; its own words.
    """
    import onnx
    import onnxruntime

    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    ports = {port.name for port in model.graph.output}
    names = [name for node in model.graph.node for name in node.output if name and name not in ports]
    exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    try:
        return onnxruntime.InferenceSession(exposed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise BuildError(f"onnxruntime cannot load the model: {short(error)}") from error


def value_types(model: ModelProto, folder: Path) -> dict[str, str]:
    """Every tensor of the main graph → its type in onnxruntime's words: `tensor(float)`.

    Of sparse initialisers and of values of other kinds (sequences, optionals) nothing is said.
    """
    import onnx

    words = {
        onnx.TensorProto.FLOAT: "tensor(float)",
        onnx.TensorProto.FLOAT16: "tensor(float16)",
        onnx.TensorProto.BFLOAT16: "tensor(bfloat16)",
        onnx.TensorProto.DOUBLE: "tensor(double)",
        onnx.TensorProto.INT8: "tensor(int8)",
        onnx.TensorProto.UINT8: "tensor(uint8)",
    }
    types = {tensor.name: words.get(tensor.data_type, "other") for tensor in model.graph.initializer}
    session = open_exposed(model, folder)
    for port in (*session.get_inputs(), *session.get_outputs()):
        types.setdefault(port.name, port.type if port.type.startswith("tensor(") else "other")
    return types


def run_exposed(path: Path, request: Arrays, names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """(tensor, its value) in the order of `names`; a chunk of them is held at a time.

    Raises:
        BuildError: onnxruntime cannot load or run the model.
    """
    session = open_exposed(read_onnx(path), path.parent)
    for start in range(0, len(names), CHUNK):
        chunk = list(names[start : start + CHUNK])
        try:
            values = session.run(chunk, dict(request))
        except Exception as error:
            raise BuildError(f"{path.name} does not run node by node: {short(error)}") from error
        yield from zip(chunk, values, strict=True)
