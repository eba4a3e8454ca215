"""A large ONNX model with external data, written layer by layer: `python -m benchmarks.wide_layers FILE BYTES`."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

WIDTH = 4096
OUTPUTS = 16
SCALE = 0.5
"""So small that what the layers add stays near what they get."""
PARTS = 4
"""A layer is written in so many parts: never more than a quarter of one is held."""


def save_wide_layers(path: Path, size_bytes: int) -> None:
    """`x` (batch, 4096) → `y` (batch, 16) through as many layers as fill `size_bytes`; the same bytes every time."""
    layers = max(1, round(size_bytes / (4 * WIDTH * WIDTH)))
    data = path.with_name(f"{path.name}.data")
    generator = np.random.default_rng(0)
    weights: list[TensorProto] = []
    with data.open("wb") as stream:
        for place in range(layers + 1):
            columns = WIDTH if place < layers else OUTPUTS
            weights.append(_external(f"weight_{place}", (WIDTH, columns), data.name, stream.tell()))
            for _ in range(PARTS):
                part = generator.standard_normal((WIDTH // PARTS, columns), np.float32)
                stream.write((part * np.float32(SCALE / math.sqrt(WIDTH))).data)
    graph = helper.make_graph(
        list(_nodes(layers)),
        "wide_layers",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", OUTPUTS])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def _nodes(layers: int) -> list[onnx.NodeProto]:
    nodes = []
    value = "x"
    for place in range(layers):
        nodes.append(helper.make_node("MatMul", [value, f"weight_{place}"], [f"product_{place}"], f"matmul_{place}"))
        nodes.append(helper.make_node("Relu", [f"product_{place}"], [f"change_{place}"], f"relu_{place}"))
        nodes.append(helper.make_node("Add", [value, f"change_{place}"], [f"layer_{place}"], f"add_{place}"))
        value = f"layer_{place}"
    return [*nodes, helper.make_node("MatMul", [value, f"weight_{layers}"], ["y"], "last")]


def _external(name: str, shape: tuple[int, ...], location: str, offset: int) -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", offset), ("length", 4 * math.prod(shape))):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


if __name__ == "__main__":
    save_wide_layers(Path(sys.argv[1]), int(sys.argv[2]))
