"""Models that take the values of several requests one after the other, for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT32, INT64 = TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64


def _save(path: Path, nodes: list[onnx.NodeProto], inputs: object, outputs: object, **constants: object) -> None:
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    sides = [[helper.make_tensor_value_info(*port) for port in side] for side in (inputs, outputs)]  # type: ignore[attr-defined]
    graph = helper.make_graph(nodes, "graph", *sides, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def sums(path: Path, kind: int = INT32) -> None:
    """y = the sum of each request's values times 1, 2, 3, by where each ends; z = 2 x."""
    nodes = [
        helper.make_node("CumSum", ["x", "axis"], ["running"]),
        helper.make_node("Cast", ["ends"], ["places"], to=INT64),
        helper.make_node("Sub", ["places", "one"], ["last"]),
        helper.make_node("Gather", ["running", "last"], ["up_to"]),
        helper.make_node("Slice", ["up_to", "from", "to"], ["but_last"]),
        helper.make_node("Concat", ["first", "but_last"], ["before"], axis=0),
        helper.make_node("Sub", ["up_to", "before"], ["sums"]),
        helper.make_node("Unsqueeze", ["sums", "second"], ["column"]),
        helper.make_node("MatMul", ["column", "weights"], ["y"]),
        helper.make_node("Add", ["x", "x"], ["z"]),
    ]
    inputs = [("x", FLOAT, ["values"]), ("ends", kind, ["requests"])]
    outputs = [("y", FLOAT, ["requests", 3]), ("z", FLOAT, ["values"])]
    weights = np.asarray([[1, 2, 3]], np.float32)
    constants = {"from": [0], "to": [-1], "first": np.zeros(1, np.float32), "second": [1], "weights": weights}
    _save(path, nodes, inputs, outputs, axis=np.int64(0), one=np.int64(1), **constants)


def areas(path: Path) -> None:
    """area = height · width · scale of each picture; brighter = picture + 1, whose outer axis holds all pixels."""
    nodes = [
        helper.make_node("ReduceProd", ["sizes", "second"], ["counts"], keepdims=1),
        helper.make_node("Mul", ["counts", "scale"], ["area"]),
        helper.make_node("Add", ["picture", "one"], ["brighter"]),
    ]
    inputs = [("picture", FLOAT, ["pixels"]), ("sizes", FLOAT, ["requests", 2]), ("scale", FLOAT, ["requests", 1])]
    outputs = [("area", FLOAT, ["requests", 1]), ("brighter", FLOAT, ["pixels"])]
    _save(path, nodes, inputs, outputs, second=[1], one=np.float32(1))
