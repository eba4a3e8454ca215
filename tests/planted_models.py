"""Graphs of about 60 nodes in which exactly three cannot be computed in fp16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper
from small_graphs import signature, write_graph

WIDTH = 16
PORTS = signature([f"x:float32:batch,{WIDTH}"], [f"y:float32:batch,{WIDTH}"])


def _layers(names: str, count: int, weights: dict[str, np.ndarray], seed: int, start: str) -> tuple[list[Any], str]:
    """`count` times MatMul, Add, Tanh."""
    generator = np.random.default_rng(seed)
    nodes = []
    flow = start
    for layer in range(count):
        word = f"{names}{layer}"
        weights[f"{word}_w"] = (generator.standard_normal((WIDTH, WIDTH)) / np.sqrt(WIDTH)).astype(np.float32)
        weights[f"{word}_b"] = (0.1 * generator.standard_normal(WIDTH)).astype(np.float32)
        nodes += [
            helper.make_node("MatMul", [flow, f"{word}_w"], [f"{word}_m"], name=f"{word}_matmul"),
            helper.make_node("Add", [f"{word}_m", f"{word}_b"], [f"{word}_a"], name=f"{word}_add"),
            helper.make_node("Tanh", [f"{word}_a"], [f"{word}_t"], name=f"{word}_tanh"),
        ]
        flow = f"{word}_t"
    return nodes, flow


def chain(path: Path) -> frozenset[str]:
    """Ten layers, a norm whose squares and their sum are beyond 65504, ten layers; returns the norm's three nodes."""
    weights: dict[str, np.ndarray] = {}
    head, flow = _layers("head", 9, weights, 0, "x")
    weights |= {"scale": np.float32(2000), "two": np.float32(2), "axis": np.asarray([1], np.int64)}
    norm = [
        helper.make_node("Mul", [flow, "scale"], ["large"], name="scale"),
        helper.make_node("Pow", ["large", "two"], ["squares"], name="square"),
        helper.make_node("ReduceSum", ["squares", "axis"], ["sum"], name="sum", keepdims=1),
        helper.make_node("Sqrt", ["sum"], ["length"], name="root"),
        helper.make_node("Div", ["large", "length"], ["unit"], name="unit"),
    ]
    tail, flow = _layers("tail", 9, weights, 1, "unit")
    nodes = [*head, *norm, *tail, helper.make_node("Identity", [flow], ["y"], name="end")]
    write_graph(path, PORTS, nodes, weights)
    return frozenset({"square", "sum", "root"})


def apart(path: Path) -> frozenset[str]:
    """Three products, far from each other, whose weights are beyond 65504; returns their names."""
    weights: dict[str, np.ndarray] = {"tiny": np.float32(6.2e-5)}
    nodes: list[Any] = []
    flow = "x"
    for part in range(3):
        layers, flow = _layers(f"part{part}_", 6, weights, part, flow)
        weights[f"huge{part}"] = np.diag(np.full(WIDTH, 1e5, np.float32))
        nodes += [
            *layers,
            helper.make_node("Mul", [flow, "tiny"], [f"small{part}"], name=f"shrink{part}"),
            helper.make_node("MatMul", [f"small{part}", f"huge{part}"], [f"grown{part}"], name=f"grow{part}"),
        ]
        flow = f"grown{part}"
    write_graph(path, PORTS, [*nodes, helper.make_node("Identity", [flow], ["y"], name="end")], weights)
    return frozenset({"grow0", "grow1", "grow2"})
