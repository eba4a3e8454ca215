"""Small ONNX graphs and finished export folders, for tests of backends and measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from builder.backends import Conversion
from builder.measurement import EXPORT_FILE, ONNX_FILE, REFERENCE_FILE, BatchProof, ExportReport
from builder.records import write_record
from builder.samples import Request, save_requests
from builder.tensors import BY_NUMPY, Signature, Tensor

SIZES = (1, 2, 3, 8)


def tensor(text: str) -> Tensor:
    """`x:float32:batch,3`."""
    name, dtype, dims = text.rsplit(":", 2)
    return Tensor(name, dtype, tuple(int(d) if d.isdigit() else d for d in dims.split(",") if d))


def signature(inputs: Sequence[str], outputs: Sequence[str]) -> Signature:
    return Signature(tuple(map(tensor, inputs)), tuple(map(tensor, outputs)))


def write_graph(
    path: Path, ports: Signature, nodes: Sequence[Any], weights: Mapping[str, np.ndarray] | None = None
) -> Path:
    """A checked model of opset 18 and IR 9."""
    sides = [
        [helper.make_tensor_value_info(t.name, BY_NUMPY[t.dtype].onnx, list(t.shape)) for t in side]
        for side in (ports.inputs, ports.outputs)
    ]
    stored = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(list(nodes), "graph", *sides, stored)
    domains = {"": 18} | {node.domain: 1 for node in nodes if node.domain}
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid(name, version) for name, version in domains.items()], ir_version=9
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def random_inputs(ports: Signature, rows: int, seed: int = 0, other: int = 5) -> dict[str, np.ndarray]:
    """`rows` on the first axis where it is dynamic, `other` on every other dynamic axis."""
    generator = np.random.default_rng(seed)
    made = {}
    for item in ports.inputs:
        shape = [d if isinstance(d, int) else (rows if axis == 0 else other) for axis, d in enumerate(item.shape)]
        if item.dtype.startswith(("float", "bfloat")):
            made[item.name] = generator.standard_normal(shape).astype(BY_NUMPY[item.dtype].numpy)
        else:
            made[item.name] = generator.integers(0, 100, shape).astype(item.dtype)
    return made


def write_export(
    folder: Path, ports: Signature, requests: Sequence[Request], *, proven: bool = True, sizes: tuple[int, ...] = SIZES
) -> Path:
    """`export.json` and `reference.npz` beside the `model.onnx` that is already there."""
    save_requests(folder / REFERENCE_FILE, ports, requests)
    proof = BatchProof(proven, sizes) if proven else BatchProof(proven=False, reason="not tried")
    write_record(folder / EXPORT_FILE, ExportReport(ports, "copy", 18, 9, proof, "random, seed 0"))
    return folder


def conversion(export: Path, ports: Signature, precision: str = "fp32", **options: Any) -> Conversion:
    """What a backend is given to convert `export/model.onnx`, with the spec's words for it."""
    return Conversion(export / ONNX_FILE, export, ports, precision, "26.07", options, export.parent / "shared")


def plain_answers(folder: Path, inputs: Mapping[str, np.ndarray], ports: Signature) -> dict[str, np.ndarray]:
    """The model's own answers, without optimisation: the source's, for tests."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(folder / ONNX_FILE), options, providers=["CPUExecutionProvider"])
    names = [item.name for item in ports.outputs]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def requests_for(folder: Path, ports: Signature, sizes: Sequence[int] = SIZES) -> list[Request]:
    """Requests of these sizes, answered by the model itself."""
    requests = []
    for seed, rows in enumerate(sizes):
        inputs = random_inputs(ports, rows, seed)
        requests.append(Request(inputs, plain_answers(folder, inputs, ports), rows))
    return requests
