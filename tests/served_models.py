"""Small ONNX models in a Triton repository, for tests that need a real server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from builder.samples import Request
from builder.tensors import BY_NUMPY, Signature, Tensor

ROW = 16
CLASSES = 10
WEIGHTS = np.random.default_rng(7).standard_normal((ROW, CLASSES)).astype(np.float32)
LINEAR = Signature((Tensor("x", "float32", ("batch", ROW)),), (Tensor("y", "float32", ("batch", CLASSES)),))


def write_model(
    repository: Path,
    name: str,
    signature: Signature,
    nodes: Sequence[Any],
    *,
    max_batch_size: int = 0,
    config: str = "",
) -> None:
    """`nodes` are ONNX nodes; the initializer `w` is always there."""
    import onnx
    from onnx import helper, numpy_helper

    graph = helper.make_graph(
        list(nodes),
        name,
        [_value_info(tensor) for tensor in signature.inputs],
        [_value_info(tensor) for tensor in signature.outputs],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    folder = repository / name / "1"
    folder.mkdir(parents=True)
    onnx.save(model, folder / "model.onnx")
    text = f'name: "{name}"\nbackend: "onnxruntime"\nmax_batch_size: {max_batch_size}\n'
    text += "".join(_port("input", tensor, max_batch_size) for tensor in signature.inputs)
    text += "".join(_port("output", tensor, max_batch_size) for tensor in signature.outputs)
    text += "instance_group [{ count: 1 kind: KIND_CPU }]\n"
    (repository / name / "config.pbtxt").write_text(text + config, encoding="utf-8")


def write_linear(repository: Path, name: str = "linear", *, config: str = "dynamic_batching {}\n") -> None:
    """y = x @ w, batched up to 8."""
    from onnx import helper

    write_model(
        repository, name, LINEAR, [helper.make_node("MatMul", ["x", "w"], ["y"])], max_batch_size=8, config=config
    )


def linear_requests(rows: Sequence[int] = (1, 2, 3, 8, 1, 1), seed: int = 0) -> tuple[Request, ...]:
    """Samples of the linear model with the right answers."""
    return row_requests(lambda x: x @ WEIGHTS, rows, seed)


def row_requests(answer: Callable[[Any], Any], rows: Sequence[int], seed: int = 0) -> tuple[Request, ...]:
    """Requests of `x` with `y = answer(x)`."""
    generator = np.random.default_rng(seed)
    inputs = [generator.standard_normal((count, ROW)).astype(np.float32) for count in rows]
    return tuple(Request({"x": x}, {"y": np.asarray(answer(x))}, rows=x.shape[0]) for x in inputs)


def _value_info(tensor: Tensor) -> Any:
    from onnx import helper

    return helper.make_tensor_value_info(tensor.name, BY_NUMPY[tensor.dtype].onnx, list(tensor.shape))


def _port(side: str, tensor: Tensor, max_batch_size: int) -> str:
    dims = tensor.wire_shape[1:] if max_batch_size else tensor.wire_shape or (1,)
    sizes = ", ".join(str(size) for size in dims)
    return f'{side} [{{ name: "{tensor.name}" data_type: {BY_NUMPY[tensor.dtype].triton} dims: [{sizes}] }}]\n'
