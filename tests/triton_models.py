"""Small models in Triton's repository form, for tests that serve them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

FLOAT = TensorProto.FLOAT
Port = tuple[str, int, list[int | str]]


def onnx_bytes(nodes: list[Any], inputs: list[Port], outputs: list[Port]) -> onnx.ModelProto:
    """An ONNX model that every release loads; ports are (name, ONNX type, shape)."""
    sides = [[helper.make_tensor_value_info(*port) for port in side] for side in (inputs, outputs)]
    graph = helper.make_graph(nodes, "graph", *sides)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def write_onnx(repository: Path, name: str, model: onnx.ModelProto, config: str, file: str = "model.onnx") -> Path:
    """Put the model and its configuration into the repository; an empty text writes no configuration."""
    path = repository / name / "1" / file
    path.parent.mkdir(parents=True)
    onnx.save(model, path)
    return write_config(repository, name, config)


def write_openvino(repository: Path, name: str, model: onnx.ModelProto, config: str) -> Path:
    """The same as an OpenVINO IR, with its ports named."""
    import openvino

    folder = repository / name / "1"
    folder.mkdir(parents=True)
    source = folder / "source.onnx"
    onnx.save(model, source)
    openvino.save_model(openvino.convert_model(source), folder / "model.xml", compress_to_fp16=False)
    source.unlink()
    return write_config(repository, name, config)


def write_config(repository: Path, name: str, config: str) -> Path:
    """Write `config.pbtxt` unless the text is empty."""
    if config:
        (repository / name / "config.pbtxt").write_text(config, encoding="utf-8")
    return repository / name


def port(name: str, kind: str, dims: list[int], more: str = "") -> str:
    """One input or output of a configuration."""
    return f'{{ name: "{name}" data_type: TYPE_{kind} dims: {dims} {more} }}'


def config(backend: str, inputs: list[str], outputs: list[str], *, batch: int = 0, more: str = "") -> str:
    """The text of a full configuration."""
    return (
        f'backend: "{backend}"\nmax_batch_size: {batch}\n'
        f"input [ {', '.join(inputs)} ]\noutput [ {', '.join(outputs)} ]\n"
        f"instance_group [ {{ count: 1 kind: KIND_CPU }} ]\n{more}\n"
    )


def doubling(batch: int | str = "batch") -> onnx.ModelProto:
    """y = x + x over `[batch, 4]`."""
    node = helper.make_node("Add", ["x", "x"], ["y"])
    return onnx_bytes([node], [("x", FLOAT, [batch, 4])], [("y", FLOAT, [batch, 4])])


def doubling_config(backend: str, *, batch: int = 8, more: str = "") -> str:
    """The configuration of `doubling`: batched, or with full dims where `batch` is 0."""
    dims = [4] if batch else [-1, 4]
    return config(backend, [port("x", "FP32", dims)], [port("y", "FP32", dims)], batch=batch, more=more)


def ask(
    address: str, model: str, inputs: dict[str, np.ndarray], outputs: list[str] | None = None, protocol: str = "grpc"
) -> dict[str, np.ndarray]:
    """One request; the outputs by name."""
    with client(address, protocol) as (module, connection):
        tensors = [_tensor(module, name, np.asarray(array)) for name, array in inputs.items()]
        wanted = [module.InferRequestedOutput(name) for name in outputs] if outputs else None
        result = connection.infer(model, tensors, outputs=wanted)
        response = result.get_response()
        named = response["outputs"] if isinstance(response, dict) else response.outputs
        names = [one["name"] if isinstance(one, dict) else one.name for one in named]
        return {name: result.as_numpy(name) for name in names}


@contextmanager
def client(address: str, protocol: str = "grpc") -> Iterator[tuple[Any, Any]]:
    """tritonclient's module and an open connection."""
    import tritonclient.grpc
    import tritonclient.http

    module: Any = tritonclient.grpc if protocol == "grpc" else tritonclient.http
    connection = module.InferenceServerClient(address)
    try:
        yield module, connection
    finally:
        connection.close()


def _tensor(module: Any, name: str, array: np.ndarray) -> Any:
    from tritonclient.utils import np_to_triton_dtype

    tensor = module.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    tensor.set_data_from_numpy(array)
    return tensor


def wait_until(true: Callable[[], bool], limit_s: float) -> bool:
    """Look again and again; False where the time ran out."""
    import time

    deadline = time.monotonic() + limit_s
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
