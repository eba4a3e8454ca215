"""ONNX models of a few nodes, each with one property that a build must notice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from small_graphs import signature, write_graph

LINEAR = signature(["x:float32:batch,4"], ["y:float32:batch,3"])


def weights(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((4, 3)).astype(np.float32)


def linear(path: Path, seed: int = 0, weight: np.ndarray | None = None) -> Path:
    """y = x @ w."""
    from onnx import helper

    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="times")]
    return write_graph(path, LINEAR, nodes, {"w": weights(seed) if weight is None else weight})


def twice(path: Path) -> Path:
    """y = x @ 2w."""
    return linear(path, weight=2 * weights())


def wide(path: Path) -> Path:
    """As `linear`, with another signature."""
    from onnx import helper

    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    ports = signature(["x:float32:batch,4"], ["y:float32:batch,5"])
    return write_graph(path, ports, nodes, {"w": np.ones((4, 5), np.float32)})


def drifting(path: Path) -> Path:
    """The answer is a small difference of large weights: stored in half precision it is far off."""
    from onnx import helper

    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["large"]),
        helper.make_node("MatMul", ["x", "v"], ["nearly"]),
        helper.make_node("Sub", ["large", "nearly"], ["y"]),
    ]
    even = np.full((4, 3), 1000, np.float32)
    return write_graph(path, LINEAR, nodes, {"w": even + np.float32(0.2) * weights(), "v": even})


def overflowing(path: Path) -> Path:
    """One divisor is zero in float16, and what OpenVINO multiplies by in its place is beyond it."""
    from onnx import helper

    ports = signature(["x:float32:batch,4"], ["y:float32:batch,4"])
    divisor = np.asarray([1, 1e-9, 2, 3], np.float32)
    return write_graph(path, ports, [helper.make_node("Div", ["x", "d"], ["y"])], {"d": divisor})


def mixing(path: Path) -> Path:
    """The rows of a batch depend on each other."""
    from onnx import helper

    nodes = [
        helper.make_node("ReduceMean", ["x", "axis"], ["mean"], name="over_rows", keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["y"]),
    ]
    ports = signature(["x:float32:batch,4"], ["y:float32:batch,4"])
    return write_graph(path, ports, nodes, {"axis": np.asarray([0], np.int64)})


def determinant(path: Path) -> Path:
    """An operator that OpenVINO does not have."""
    from onnx import helper

    ports = signature(["x:float32:batch,3,3"], ["y:float32:batch"])
    return write_graph(path, ports, [helper.make_node("Det", ["x"], ["y"])])


def doubles(path: Path) -> Path:
    """float64, which Triton's openvino backend does not have."""
    from onnx import helper

    ports = signature(["x:float64:batch,4"], ["y:float64:batch,4"])
    return write_graph(path, ports, [helper.make_node("Add", ["x", "x"], ["y"])])
