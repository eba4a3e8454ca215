"""Members of ensembles: ONNX models of a node or two whose tensors fit together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import helper
from small_graphs import signature, write_graph


def linear(path: Path, taken: str, given: str, seed: int = 0, *, rows: str = "batch") -> Path:
    """`given = taken @ w`, both like `x:4`."""
    (source, height), (target, columns) = (text.split(":") for text in (taken, given))
    weights = np.random.default_rng(seed).standard_normal((int(height), int(columns))).astype(np.float32)
    ports = signature([f"{source}:float32:{rows},{height}"], [f"{target}:float32:{rows},{columns}"])
    nodes = [helper.make_node("MatMul", [source, "weights"], [target])]
    return write_graph(path, ports, nodes, {"weights": weights})


def added(path: Path) -> Path:
    """`total = left + right`, 3 columns."""
    ports = signature(["left:float32:n,3", "right:float32:n,3"], ["total:float32:n,3"])
    return write_graph(path, ports, [helper.make_node("Add", ["left", "right"], ["total"])])


def named(path: Path) -> Path:
    """The largest of 3 columns by its name and place: strings [n,1] and int64 [n]."""
    ports = signature(["scores:float32:n,3"], ["label:string:n,1", "place:int64:n"])
    nodes = [
        helper.make_node("ArgMax", ["scores"], ["best"], axis=1, keepdims=1),
        helper.make_node(
            "LabelEncoder",
            ["best"],
            ["label"],
            domain="ai.onnx.ml",
            classes_strings=["cat", "dog", "émeu"],
        ),
        helper.make_node("ArgMax", ["scores"], ["place"], axis=1, keepdims=0),
    ]
    return write_graph(path, ports, nodes)
