"""Small models that take their state as an input and give the next one as an output."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper
from small_graphs import signature, write_graph

from builder.samples import Request
from builder.tensors import Signature

SUM = signature(["x:float32:n,3", "s:float32:n,3"], ["y:float32:n,3", "t:float32:n,3"])
ROW_SUM = signature(["x:float32:3", "s:float32:3"], ["y:float32:3", "t:float32:3"])
GRU = signature(["x:float32:n,3", "h:float32:n,4"], ["y:float32:n,2", "k:float32:n,4"])
CONTROLLED = signature(
    ["x:float32:n,3", "s:float32:n,3", "START:int32:n,1", "CORRID:int64:n,1"], ["y:float32:n,3", "t:float32:n,3"]
)


def node(operator: str, inputs: str, output: str, **attributes: Any) -> Any:
    return helper.make_node(operator, inputs.split(), [output], **attributes)


def summing(path: Path, ports: Signature = SUM) -> Path:
    """t = x + s, y = t + s: exact in float32 for small numbers."""
    return write_graph(path, ports, [node("Add", "x s", "t"), node("Add", "t s", "y")])


def gru(path: Path) -> Path:
    """k = tanh(x W + h U), y = k V: rows stay apart, and every step depends on all before."""
    generator = np.random.default_rng(3)
    weights = {
        name: generator.standard_normal(shape).astype(np.float32)
        for name, shape in (("W", (3, 4)), ("U", (4, 4)), ("V", (4, 2)))
    }
    nodes = [node("MatMul", "x W", "a"), node("MatMul", "h U", "b"), node("Add", "a b", "c")]
    return write_graph(path, GRU, [*nodes, node("Tanh", "c", "k"), node("MatMul", "k V", "y")], weights)


def controlled(path: Path) -> Path:
    """The state begins anew where START says so, and every answer holds the sequence's id."""
    zero = {"zero": np.zeros((1,), np.int32)}
    nodes = [
        node("Equal", "START zero", "goes_on"),
        node("Cast", "goes_on", "factor", to=1),
        node("Mul", "s factor", "kept"),
        node("Add", "x kept", "t"),
        node("Cast", "CORRID", "id", to=1),
        node("Add", "t id", "y"),
    ]
    return write_graph(path, CONTROLLED, nodes, zero)


def mixing(path: Path) -> Path:
    """As `summing`, but y holds a sum over the batch: alone each sequence is right."""
    axis = {"axis": np.asarray([0], np.int64)}
    nodes = [node("Add", "x s", "t"), node("ReduceSum", "t axis", "all", keepdims=1), node("Add", "all s", "y")]
    return write_graph(path, SUM, nodes, axis)


def growing(path: Path) -> Path:
    """The state has one row more after each step."""
    ports = signature(["x:float32:1,3", "s:float32:rows,3"], ["y:float32:1,3", "t:float32:more,3"])
    return write_graph(path, ports, [node("Concat", "s x", "t", axis=0), node("Add", "x x", "y")])


def crossed(path: Path) -> Path:
    """Two states whose outputs sort the other way round than their inputs."""
    ports = signature(
        ["x:float32:n,3", "a:float32:n,3", "b:float32:n,3"], ["y:float32:n,3", "v:float32:n,3", "u:float32:n,3"]
    )
    nodes = [node("Add", "x a", "v"), node("Sub", "b x", "u"), node("Add", "u v", "y")]
    return write_graph(path, ports, nodes)


def sum_steps(lengths: tuple[int, ...] = (4, 2, 6, 1), first: float = 0.0, rows: bool = True) -> tuple[Request, ...]:
    """Sequences of `summing` with the right answers."""
    return tuple(step for number, length in enumerate(lengths) for step in _steps(number, length, first, rows))


def _steps(number: int, length: int, first: float, rows: bool) -> Iterator[Request]:
    generator = np.random.default_rng(number)
    shape = (1, 3) if rows else (3,)
    state = np.full(shape, first, np.float32)
    for _ in range(length):
        x = generator.integers(-9, 10, shape).astype(np.float32)
        after = x + state
        yield Request({"x": x, "s": state}, {"y": after + state, "t": after}, rows=int(rows), sequence=number)
        state = after
