"""One repository that was really built, with everything a report has to show; and a copy that was tuned."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import tiny_models
from command_line import build
from digits import write_digits
from tuned import with_tuning

SPEC = """
models:
  - name: classifier
    source: {path: digits.onnx}
    samples: {path: digits.npz, labels: label}
    targets: [onnxruntime:fp32, onnxruntime:int8, openvino:fp16, openvino:int8]
    accuracy: {metric: top1, max_drop: 0.02}
    serve: onnxruntime:fp32
  - name: lossy
    source: {path: drifting.onnx}
    targets: [onnxruntime:fp32, openvino:fp16, tensorrt:fp32]
    accuracy: {search_budget_s: 0}
  - name: doubles
    source: {path: doubles.onnx}
    targets: [onnxruntime:fp32, openvino:fp32]
  - name: linear
    sources: {1: {path: linear.onnx}, 2: {path: twice.onnx}}
    targets: [onnxruntime:fp32]
  - name: best
    source: {step: top_k, args: {k: 2}}
    inputs:
      - {name: logits, dtype: float32, shape: [batch, 3]}
ensembles:
  - name: pipeline
    steps: [linear, {best: [y -> logits]}]
"""


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds `repo`: built, rejected, failed and deferred targets, versions, a step, an ensemble."""
    folder = tmp_path_factory.mktemp("report")
    write_digits(folder)
    for name in ("drifting", "doubles", "linear", "twice"):
        getattr(tiny_models, name)(folder / f"{name}.onnx")
    (folder / "models.yaml").write_text(SPEC, encoding="utf-8")
    ran = build("models.yaml", "-o", "repo", "--defer", cwd=folder, check="offline")
    assert ran.code == 0, ran.err
    return folder


@pytest.fixture(scope="session")
def tuned_repository(built: Path) -> Path:
    """`classifier` was tuned, and its best setting is served."""
    repository = built / "tuned"
    shutil.copytree(built / "repo", repository)
    with_tuning(repository, "classifier", served="openvino:int8")
    return repository


@pytest.fixture
def repository(built: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(built / "repo", tmp_path / "repo"))
