from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_models
from command_line import assert_refused, build, run
from onnx import helper
from small_graphs import signature, write_graph

ORT = ("--targets", "onnxruntime:fp32")
FLAT = signature(["x:float32:batch,3"], ["y:float32:batch,3"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("a.onnx", "b.onnx", "--name", "x"), "--name goes with one model, got 2"),
        (("models.yaml", "a.onnx"), "give one spec file, or model files, not both"),
        (("models.yaml", "--name", "x"), "--name, --input and --samples go with a model file"),
        (("a.onnx", "--input", "x:float32"), "is not NAME:DTYPE:D1,D2"),
        (("a.onnx", "--input", "x:flaot32:3"), "'flaot32' is no dtype"),
        (("a.onnx", "--input", "x:float32:0"), "0 is no size"),
        (("a.onnx", "--targets", "onnxrutime"), "did you mean 'onnxruntime'?"),
        (("a.onnx", "--targets", ","), "the list is empty"),
        (("a.onnx", "--serve", "fastest"), "none of best, all, BACKEND:PRECISION"),
        (("a.onnx", "--triton", "26.7"), "is no Triton release"),
        (("a.onnx", "--triton", "19.01"), "19.01"),
        (("a.onnx", "--samples", "gone.npz"), "gone.npz: no such file"),
        (("a.onnx", "a.onnx"), "is also the name of models[0]"),
    ],
    ids=lambda item: " ".join(item) if isinstance(item, tuple) else "",
)
def test_arguments_that_do_not_go_together(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        tiny_models.linear(tmp_path / f"{name}.onnx")
    (tmp_path / "models.yaml").write_text("models: [{name: a, source: {path: a.onnx}}]", encoding="utf-8")
    assert_refused(run("build", *arguments, "-o", "repo", cwd=tmp_path), 2, words)
    assert not (tmp_path / "repo").exists()


def test_several_models_go_into_one_repository(tmp_path: Path) -> None:
    tiny_models.linear(tmp_path / "first one.onnx")
    tiny_models.wide(tmp_path / "second.onnx")
    ran = build("first one.onnx", "second.onnx", "-o", "repo", *ORT, "--json", cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert [model["name"] for model in ran.document["models"]] == ["first_one", "second"]


def test_an_input_may_fix_an_axis(tmp_path: Path) -> None:
    tiny_models.linear(tmp_path / "m.onnx")
    ran = build("m.onnx", "-o", "repo", *ORT, "--input", "x:float32:2,4", cwd=tmp_path)
    assert ran.code == 0, ran.err
    config = " ".join((tmp_path / "repo" / "m" / "config.pbtxt").read_text(encoding="utf-8").split())
    assert "max_batch_size: 0" in config
    assert "2, 4" in config


def test_progress_goes_to_stderr_and_the_table_to_stdout(tmp_path: Path) -> None:
    tiny_models.linear(tmp_path / "m.onnx")
    ran = build("m.onnx", "-o", "repo", *ORT, cwd=tmp_path)
    assert ran.code == 0
    assert "verdict" in ran.out
    assert "next: build-repo serve" in ran.out
    assert "m export: " in ran.err
    assert "m export: " not in ran.out


def test_the_table_shows_the_metric_where_samples_have_labels(tmp_path: Path) -> None:
    """Scores are a row of the identity: class 0, 1, 2; one of the four labels is another one."""
    write_graph(tmp_path / "m.onnx", FLAT, [helper.make_node("Identity", ["x"], ["y"])], {})
    np.savez(tmp_path / "s.npz", x=np.eye(3, dtype=np.float32)[[0, 1, 2, 0]], kind=np.array([0, 1, 2, 2]))
    spec = "models: [{name: m, source: {path: m.onnx}, samples: {path: s.npz, labels: kind}}]"
    (tmp_path / "models.yaml").write_text(spec)
    ran = build("models.yaml", "-o", "repo", *ORT, "--check", "none", cwd=tmp_path, COLUMNS="200")
    assert ran.code == 0, ran.err
    heading, row = (line.split() for line in ran.out.splitlines()[:2])
    assert heading[-2:] == ["top1", "verdict"]
    assert " ".join(row).endswith("75.00 % (+0.00) built ← served")
    without = build("m.onnx", "-o", "repo", *ORT, "--check", "none", cwd=tmp_path)
    assert "top1" not in without.out


def test_the_default_output_is_in_the_working_folder(tmp_path: Path) -> None:
    tiny_models.linear(tmp_path / "m.onnx")
    assert build("m.onnx", *ORT, cwd=tmp_path).code == 0
    assert (tmp_path / "model_repository" / "m" / "config.pbtxt").is_file()


def test_a_failed_export_is_one_finding_of_the_model(tmp_path: Path) -> None:
    tiny_models.linear(tmp_path / "m.onnx")
    command = ("m.onnx", "-o", "repo", "--input", "x:float64:batch,4")
    ran = build(*command, "--json", cwd=tmp_path)
    assert ran.code == 2, ran.err
    (finding,) = ran.document["findings"]
    assert (finding["check"], finding["model"], finding["target"]) == ("target.failed", "m", None)
    assert "the model expects float32" in finding["message"]
    (model,) = ran.document["models"]
    assert [item["message"] for t in model["targets"] for item in t["findings"]] == [finding["message"]] * 2
    shown = build(*command, cwd=tmp_path).err
    assert shown.count("error m onnxruntime:fp32, openvino:fp32: ") == 1
    assert shown.count("✗ error") == 1


def test_what_became_of_each_transform_is_printed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = {name: np.abs(rng.standard_normal(3)).astype(np.float32) for name in ("g", "b", "m", "v")}
    weights["k"] = rng.standard_normal((3, 2, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], name="conv"),
        helper.make_node("BatchNormalization", ["c", "g", "b", "m", "v"], ["y"], name="norm"),
    ]
    ports = signature(["x:float32:batch,2,6,6"], ["y:float32:batch,3,4,4"])
    write_graph(tmp_path / "m.onnx", ports, nodes, weights)
    ran = build("m.onnx", "-o", "repo", "--targets", "onnxruntime:fp32", cwd=tmp_path)
    assert ran.code == 0, ran.err
    (line,) = [line for line in ran.out.splitlines() if line.startswith("m graph for onnxruntime:fp32: ")]
    assert "fuse_batch_norm kept (2 → 1 nodes" in line
