"""`io: fp16`: ports in half precision, whatever the source and the target."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from command_line import run
from export_models import F32, I64, linear, model_of, plain_run, save, value, work_of
from onnx import helper

from builder.errors import SpecError
from builder.export import run_export
from builder.measurement import EXPORT_FILE, ONNX_FILE, REFERENCE_FILE, ExportReport
from builder.records import read_record
from builder.samples import Request, load_requests
from builder.tensors import Tensor


def export(path: Path, out: Path, **options: Any) -> tuple[ExportReport, tuple[Request, ...], Path]:
    out.mkdir()
    run_export(replace(work_of(path, **options), io="fp16"), out)
    report = read_record(ExportReport, out / EXPORT_FILE)
    return report, load_requests(out / REFERENCE_FILE, report.signature), out / ONNX_FILE


def check(requests: tuple[Request, ...], exported: Path) -> None:
    for request in requests:
        for expected, answer in zip(request.outputs.values(), plain_run(exported, dict(request.inputs)), strict=True):
            assert answer.dtype == expected.dtype
            np.testing.assert_allclose(answer, expected, rtol=2e-3, atol=1e-3)


def test_the_graph_stays_between_casts(tmp_path: Path) -> None:
    report, requests, exported = export(save(linear(), tmp_path / "m.onnx"), tmp_path / "out")
    assert report.signature.describe() == "x float16[batch,4] → y float16[batch,3]"
    assert report.batch.proven
    model = onnx.load(str(exported))
    assert [node.op_type for node in model.graph.node] == ["Cast", "MatMul", "Cast"]
    (weight,) = model.graph.initializer
    assert weight.data_type == F32
    assert all(request.outputs["y"].dtype == np.float16 for request in requests)
    check(requests, exported)
    assert any("travel as float16" in note for note in report.notes)


def test_only_float32_ports_change_also_where_graphs_inside_of_nodes_read_them(tmp_path: Path) -> None:
    """x is read inside of both branches of an If, and the integers stay."""
    branches = {
        f"{word}_branch": helper.make_graph([helper.make_node(operator, ["x", "x"], [word])], word, [], [value(word)])
        for word, operator in (("then", "Add"), ("else", "Mul"))
    }
    nodes = [
        helper.make_node("ReduceSum", ["ids"], ["total"], keepdims=0),
        helper.make_node("Greater", ["total", "limit"], ["large"]),
        helper.make_node("If", ["large"], ["y"], **branches),
        helper.make_node("Identity", ["ids"], ["same"]),
    ]
    ports = [value("x"), value("ids", I64, ("batch",))], [value("y"), value("same", I64, ("batch",))]
    path = save(model_of(nodes, *ports, {"limit": np.asarray(10**6)}), tmp_path / "m.onnx")
    report, requests, exported = export(path, tmp_path / "out")
    assert [tensor.dtype for tensor in report.signature.tensors] == ["float16", "int64", "float16", "int64"]
    check(requests, exported)


def test_what_a_half_cannot_carry_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Mul", ["x", "large"], ["y"])]
    model = model_of(nodes, [value("x")], [value("y")], {"large": np.asarray([1e6], np.float32)})
    with pytest.raises(SpecError, match=r"output 'y' reaches .* and io: fp16 carries 65504 at most") as caught:
        export(save(model, tmp_path / "m.onnx"), tmp_path / "out")
    assert "leave io out" in caught.value.remedy
    sample = np.ones((9, 4), np.float32)
    sample[3, 1] = 1e6
    np.savez(tmp_path / "s.npz", x=sample)
    plain = save(linear(), tmp_path / "l.onnx")
    with pytest.raises(SpecError, match=r"samples s\.npz: 'x' reaches 1e\+06, which float16 does not hold"):
        export(plain, tmp_path / "third", samples=tmp_path / "s.npz")
    integers = model_of([helper.make_node("Neg", ["x"], ["y"])], [value("x", I64)], [value("y", I64)])
    with pytest.raises(SpecError, match="the model has none: x int64"):
        export(save(integers, tmp_path / "i.onnx"), tmp_path / "other")


def test_an_exporter_is_still_compared_in_float32(tmp_path: Path) -> None:
    import torch

    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(4, 64), torch.nn.Tanh(), torch.nn.Linear(64, 3)).eval()
    path = tmp_path / "m.pt"
    torch.jit.save(torch.jit.trace(network, torch.zeros(2, 4)), str(path))
    report, requests, exported = export(path, tmp_path / "out", inputs=(Tensor("x", "float32", ("batch", 4)),))
    assert [tensor.dtype for tensor in report.signature.tensors] == ["float16", "float16"]
    check(requests, exported)


def test_every_target_serves_halves(tmp_path: Path, runtime: object) -> None:
    """Built, and checked on the live server: the same samples, halves on the wire."""
    save(linear(), tmp_path / "m.onnx")
    np.savez(tmp_path / "samples.npz", x=np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32))
    model = {"name": "m", "source": {"path": "m.onnx"}, "io": "fp16", "samples": {"path": "samples.npz"}}
    model |= {"targets": ["onnxruntime:fp32", "onnxruntime:fp16", "openvino:fp32"], "serve": "all"}
    (tmp_path / "models.yaml").write_text(yaml.safe_dump({"models": [model]}), encoding="utf-8")
    ran = run("build", "models.yaml", "-o", "repository", "--json", cwd=tmp_path, cache=tmp_path / "cache")
    assert ran.code == 0, ran.err
    configs = sorted((tmp_path / "repository").glob("*/config.pbtxt"))
    assert len(configs) >= 3
    for config in configs:
        assert config.read_text(encoding="utf-8").count("data_type: TYPE_FP16") == 2
