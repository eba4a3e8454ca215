"""Models with states from the command line: built, checked live, checked again and load-tested."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stateful_models as models
import yaml
from command_line import assert_refused, assert_sound, build, run

from builder.runtime import Runtime
from builder.triton_config import parse_config

SUMMING = {"states": [{"input": "s", "output": "t", "initial": "first.npy"}]}


def write_spec(folder: Path, *listed: dict[str, Any]) -> None:
    (folder / "models.yaml").write_text(yaml.safe_dump({"models": listed}), encoding="utf-8")


def model(name: str, path: str, **words: Any) -> dict[str, Any]:
    return {"name": name, "source": {"path": path}, "targets": ["onnxruntime:fp32"], **words}


def silero() -> Path | None:
    """The package's model for voice activity, with a state whose batch axis is the second."""
    spec = find_spec("silero_vad")
    return spec and Path(str(spec.origin)).parent / "data" / "silero_vad.onnx"


@pytest.mark.live
def test_built_checked_and_load_tested(runtime: Runtime, tmp_path: Path) -> None:
    models.gru(tmp_path / "gru.onnx")
    models.summing(tmp_path / "sum.onnx")
    np.save(tmp_path / "first.npy", np.asarray([1, 2, 3], np.float32))
    listed = [
        model("gru", "gru.onnx", sequence={"states": [{"input": "h", "output": "k"}]}, instances={"count": 2}),
        model("sum", "sum.onnx", sequence=SUMMING, batching={"max_batch_size": 0}),
        model("direct", "sum.onnx", sequence={**SUMMING, "strategy": "direct"}),
    ]
    path = silero()
    if path is not None:
        sound = np.random.default_rng(0).standard_normal((12, 1, 576)).astype(np.float32) / 9
        np.savez(tmp_path / "sound.npz", input=sound, sr=np.full(12, 16000), call=np.repeat([4, 2, 9], 4))
        samples = {"path": "sound.npz", "sequence_id": "call"}
        voice = {"states": [{"input": "state", "output": "stateN"}]}
        listed.append(model("voice", str(path), sequence=voice, samples=samples))
    write_spec(tmp_path, *listed)
    ran = build("models.yaml", "-o", "repository", "--json", cwd=tmp_path, check="live")
    assert ran.code == 0, ran.err
    repository = tmp_path / "repository"
    assert_sound(repository)
    manifest = json.loads((repository / "build-repo.json").read_text(encoding="utf-8"))
    for name in (item["name"] for item in listed):
        assert manifest["models"][name]["live"][name]["protocols"] == ["http", "grpc"]
    config = parse_config((repository / "gru" / "config.pbtxt").read_text(encoding="utf-8"))
    assert [item["name"] for item in (*config["input"], *config["output"])] == ["x", "y"]
    assert config["max_batch_size"] == 8
    assert (repository / "sum" / "initial_state" / "state_0").read_bytes() == np.asarray([1, 2, 3], "<f4").tobytes()
    if path is not None:
        config = parse_config((repository / "voice" / "config.pbtxt").read_text(encoding="utf-8"))
        assert config["sequence_batching"]["state"][0]["dims"] == ["2", "1", "128"]
        assert config["input"][0]["dims"] == ["1", "-1"]
        assert (repository / "voice" / "1" / "model.onnx").read_bytes() == path.read_bytes()

    assert run("check", "repository", cwd=tmp_path).code == 0
    loaded = run("loadtest", "repository", "--duration", "2s", "--users", "3", "--json", cwd=tmp_path)
    assert loaded.code == 0, loaded.err
    assert loaded.document["requests"] > 10
    assert loaded.document["failures"] == 0

    (repository / "sum" / "initial_state" / "state_0").write_bytes(np.asarray([9, 9, 9], "<f4").tobytes())
    assert_refused(run("check", "repository", "--model", "sum", cwd=tmp_path), 3, "output 'y': largest error")


def test_openvino_is_left_out_with_the_true_reason(tmp_path: Path) -> None:
    models.gru(tmp_path / "gru.onnx")
    words = {"sequence": {"states": [{"input": "h", "output": "k"}]}, "targets": ["onnxruntime", "openvino"]}
    write_spec(tmp_path, {**model("gru", "gru.onnx"), **words})
    ran = build("models.yaml", "-o", "repository", "--json", cwd=tmp_path)
    assert ran.code == 0, ran.err
    targets = {target["backend"]: target for target in ran.document["models"][0]["targets"]}
    assert targets["onnxruntime"]["status"] in ("built", "cached")
    assert "keeps no implicit state" in targets["openvino"]["findings"][0]["message"]


def test_pytorch_keeps_states_of_numbered_names_only(runtime: Runtime, tmp_path: Path) -> None:
    from script_models import torch

    class Named(torch.nn.Module):  # type: ignore[misc]
        def forward(self, x: torch.Tensor, s: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"y__0": x - s, "t__1": x + s}

    class Plain(torch.nn.Module):  # type: ignore[misc]
        def forward(self, x: torch.Tensor, s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x - s, x + s

    for network in (Named(), Plain()):
        torch.jit.script(network.eval()).save(str(tmp_path / f"{type(network).__name__}.pt"))
    shape = {"dtype": "float32", "shape": ["batch", 3]}
    pytorch = {"targets": ["pytorch:fp32"]}
    named = {
        **model("named", "Named.pt", inputs=[{"name": "x__0", **shape}, {"name": "s__1", **shape}], **pytorch),
        "sequence": {"states": [{"input": "s__1", "output": "t__1"}]},
    }
    write_spec(tmp_path, named)
    ran = build("models.yaml", "-o", "repository", "--json", cwd=tmp_path, check="live")
    assert ran.code == 0, ran.err
    assert ran.document["models"][0]["served"]["backend"] == "pytorch"
    plain = {
        **model("plain", "Plain.pt", inputs=[{"name": "x", **shape}, {"name": "s", **shape}], **pytorch),
        "sequence": {"states": [{"input": "s", "output": "output_1"}]},
    }
    write_spec(tmp_path, plain)
    ran = build("models.yaml", "-o", "repository", "--json", cwd=tmp_path)
    assert "only inputs and outputs named <name>__<index>, not x, s, output_0, output_1" in ran.out


def test_declaring_a_state_changes_what_clients_see(tmp_path: Path) -> None:
    models.summing(tmp_path / "sum.onnx")
    write_spec(tmp_path, model("sum", "sum.onnx"))
    assert build("models.yaml", "-o", "repository", cwd=tmp_path).code == 0
    write_spec(tmp_path, model("sum", "sum.onnx", sequence={"states": [{"input": "s", "output": "t"}]}))
    assert_refused(build("models.yaml", "-o", "repository", cwd=tmp_path), 3, "- input s float32[n,3]")
    write_spec(tmp_path, model("sum", "sum.onnx", sequence={"states": [{"input": "s", "output": "q"}]}))
    refused = build("models.yaml", "-o", "other", cwd=tmp_path)
    assert refused.code == 2
    assert "the model has no output 'q'" in refused.err
