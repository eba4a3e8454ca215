"""The target `pytorch:fp32` end to end: a network that ONNX cannot express, and one beside its other targets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
from command_line import assert_refused, assert_sound, build, contents, run
from script_models import save_script, torch

from builder import runtime as runtimes
from builder.records import write_record
from builder.runtime import RECORD_FILE, Runtime
from builder.servers.embedded import lacking

NETS = """
import torch

class Cnn(torch.nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Dropout(0.5),
            torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, classes))
    def forward(self, image, scale):
        logits = self.body(image) * scale
        return {"logits": logits, "probabilities": logits.softmax(-1)}
"""
SPEC = """
defaults: {targets: [onnxruntime:fp32, openvino:fp32, pytorch:fp32]}
models:
  - name: spectrum
    source: {path: spectrum.pt}
    inputs: [{name: signal, dtype: float32, shape: [batch, 16]}]
    outputs: [eigenvalues, power]
  - name: cnn
    source: {path: cnn.pth, model: "small_nets:Cnn", args: {classes: 5}}
    inputs:
      - {name: image, dtype: float32, shape: [batch, 3, 16, 16]}
      - {name: scale, dtype: float32, shape: [batch, 1]}
    serve: all
"""


class Spectrum(torch.nn.Module):
    """Eigenvalues of an autocorrelation by a complex transform: no ONNX exporter has them."""

    def forward(self, signal: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        power = torch.fft.fft(signal).abs()
        rows = power[:, :4]
        return torch.linalg.eigvalsh(rows.unsqueeze(-1) * rows.unsqueeze(-2)), power


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pytorch")
    save_script(Spectrum(), folder / "spectrum.pt")
    (folder / "small_nets.py").write_text(NETS, encoding="utf-8")
    names: dict[str, Any] = {}
    exec(NETS, names)
    torch.manual_seed(0)
    torch.save(names["Cnn"](5).state_dict(), folder / "cnn.pth")
    (folder / "models.yaml").write_text(SPEC, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def built(here: Path, runtime_with_torch: Runtime) -> tuple[Path, Any]:
    ran = run("build", "models.yaml", "-o", "repo", "--json", cwd=here)
    assert ran.code == 0, ran.err
    return here / "repo", {model["name"]: model for model in ran.document["models"]}


def targets(model: Any) -> dict[str, Any]:
    return {target["backend"]: target for target in model["targets"]}


@pytest.mark.live
def test_what_onnx_cannot_express_is_served_by_pytorch(built: tuple[Path, Any]) -> None:
    repository, models = built
    found = targets(models["spectrum"])
    assert models["spectrum"]["served"] == {"backend": "pytorch", "precision": "fp32"}
    for backend in ("onnxruntime", "openvino"):
        assert found[backend]["status"] == "failed"
        assert "PyTorch could not export the model to ONNX" in found[backend]["findings"][0]["message"]
        assert "'aten::fft_fft' to ONNX opset version 18 is not supported" in found[backend]["findings"][0]["message"]
        assert found[backend]["findings"][0]["severity"] == "warning"
    assert found["pytorch"]["status"] == "built"
    assert found["pytorch"]["measurement"]["batch"]["proven"]
    assert not found["pytorch"]["findings"]
    assert_sound(repository)
    assert (repository / "spectrum" / "1" / "model.pt").read_bytes() == (repository.parent / "spectrum.pt").read_bytes()


@pytest.mark.live
def test_three_backends_serve_one_network_alike(built: tuple[Path, Any], here: Path) -> None:
    repository, models = built
    assert {word: target["status"] for word, target in targets(models["cnn"]).items()} == {
        "onnxruntime": "built",
        "openvino": "built",
        "pytorch": "built",
    }
    text = (repository / "cnn_pytorch_fp32" / "config.pbtxt").read_text(encoding="utf-8")
    assert 'platform: "pytorch_libtorch"' in text
    assert "max_batch_size: 8" in text
    ran = run("validate", "repo", "--format", "json", cwd=here)
    assert (ran.code, [item for item in ran.document["findings"] if item["severity"] != "info"]) == (0, [])
    ran = run("check", "repo", "--json", cwd=here)
    assert ran.code == 0, ran.err


@pytest.mark.live
def test_the_same_spec_gives_the_same_artefact(built: tuple[Path, Any], here: Path, tmp_path: Path) -> None:
    arguments = ("models.yaml", "--targets", "pytorch", "-o", tmp_path / "again")
    ran = build(*arguments, cwd=here, cache=tmp_path / "cache")
    assert ran.code == 0, ran.err
    again, repository = contents(tmp_path / "again"), contents(built[0])
    assert again["cnn/1/model.pt"] == repository["cnn_pytorch_fp32/1/model.pt"]
    assert again["spectrum/config.pbtxt"] == repository["spectrum/config.pbtxt"]


def without_torch(runtime: Runtime, home: Path) -> None:
    """The installed runtime in another home, as if torch had not been added."""
    folder = home / "runtimes" / runtime.release
    folder.mkdir(parents=True)
    for entry in runtime.folder.iterdir():
        if entry.name != RECORD_FILE:
            (folder / entry.name).symlink_to(entry)
    packages = {name: version for name, version in runtime.record.packages.items() if name != "torch"}
    write_record(folder / RECORD_FILE, replace(runtime.record, packages=packages))


@pytest.mark.live
def test_a_runtime_without_torch_checks_nothing_and_says_how_to_mend_it(
    built: tuple[Path, Any], here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime_with_torch: Runtime
) -> None:
    assert lacking(runtime_with_torch.release) == {}
    without_torch(runtime_with_torch, tmp_path)
    ran = run("check", "repo", "--model", "spectrum", cwd=here, BUILD_REPO_HOME=str(tmp_path))
    assert ran.code == 3
    assert "build-repo runtime install --triton 26.07 --with pytorch" in ran.out + ran.err
    (here / "one.yaml").write_text(SPEC.partition("  - name: cnn")[0], encoding="utf-8")
    ran = run("build", "one.yaml", "-o", tmp_path / "one", "--json", cwd=here, BUILD_REPO_HOME=str(tmp_path))
    assert ran.code == 0, ran.err
    (finding,) = (item for item in ran.document["findings"] if item["check"] == "live.unchecked")
    assert (finding["severity"], finding["target"]) == ("info", "pytorch:fp32")
    assert "--with pytorch" in finding["message"]
    monkeypatch.setenv("BUILD_REPO_HOME", str(tmp_path))
    assert list(lacking(runtime_with_torch.release)) == ["pytorch"]
    assert runtimes.find(runtime_with_torch.release) is not None


def test_a_source_that_is_no_network_of_pytorch_is_refused_before_any_work(tmp_path: Path) -> None:
    tiny_models.linear(tmp_path / "m.onnx")
    reason = "Triton's pytorch backend loads TorchScript, and a source of the format onnx can only be written as ONNX"
    alone = build("m.onnx", "-o", "repo", "--targets", "pytorch", cwd=tmp_path)
    assert_refused(alone, 2, reason)
    asked = build("m.onnx", "-o", "repo", "--targets", "onnxruntime,pytorch", "--serve", "pytorch", cwd=tmp_path)
    assert_refused(asked, 2, reason)
    beside = build("m.onnx", "-o", "repo", "--targets", "onnxruntime,pytorch", "--json", cwd=tmp_path)
    assert beside.code == 0, beside.err
    found = targets(beside.document["models"][0])
    assert found["onnxruntime"]["status"] in ("built", "cached")
    assert found["pytorch"]["status"] == "failed"
    assert found["pytorch"]["findings"][0]["message"] == reason


def test_answers_of_the_spectrum_are_what_it_says(here: Path) -> None:
    """The test's own network, so that a wrong one would not be served unnoticed."""
    signal = np.random.default_rng(0).standard_normal((2, 16)).astype(np.float32)
    values, power = torch.jit.load(str(here / "spectrum.pt"))(torch.from_numpy(signal))
    np.testing.assert_allclose(power.numpy(), np.abs(np.fft.fft(signal)), rtol=1e-4)
    np.testing.assert_allclose(values[:, -1].numpy(), (np.abs(np.fft.fft(signal))[:, :4] ** 2).sum(1), rtol=1e-4)
