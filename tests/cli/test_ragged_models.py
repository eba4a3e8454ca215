"""Models that take requests of unequal sizes in one batch: built, checked live, checked again and load-tested."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ragged_models as models
import yaml
from command_line import assert_refused, assert_sound, build, run
from triton_models import ask

from builder.runtime import Runtime
from builder.servers import ServeOptions
from builder.servers.embedded import serve
from builder.triton_config import parse_config

SUMS: dict[str, Any] = {
    "inputs": {"x": ["length"]},
    "filled": {"ends": {"kind": "ends", "of": "x"}},
    "outputs": {"z": "x"},
}
AREAS: dict[str, Any] = {
    "inputs": {"picture": ["height", "width"]},
    "filled": {"sizes": {"kind": "shapes", "of": "picture"}},
    "outputs": {"brighter": "picture"},
}


def write_spec(folder: Path, *listed: dict[str, Any]) -> None:
    (folder / "models.yaml").write_text(yaml.safe_dump({"models": listed}), encoding="utf-8")


def model(name: str, **words: Any) -> dict[str, Any]:
    return {"name": name, "source": {"path": f"{name}.onnx"}, "targets": ["onnxruntime:fp32"], **words}


@pytest.mark.live
def test_built_checked_and_load_tested(runtime: Runtime, tmp_path: Path) -> None:
    models.sums(tmp_path / "sums.onnx")
    models.areas(tmp_path / "areas.onnx")
    generator = np.random.default_rng(0)
    pictures = generator.standard_normal((6, 4, 5)).astype(np.float32)
    np.savez(tmp_path / "pictures.npz", picture=pictures, scale=np.arange(1, 7, dtype=np.float32).reshape(6, 1))
    targets = ["onnxruntime:fp32", "openvino:fp32", "onnxruntime:fp16"]
    write_spec(
        tmp_path,
        model("sums", ragged=SUMS, warmup={"samples": 2}, targets=targets, batching={"max_queue_delay_us": 20000}),
        model("areas", ragged=AREAS, samples={"path": "pictures.npz"}),
    )
    ran = build("models.yaml", "-o", "repository", "--json", cwd=tmp_path, check="live")
    assert ran.code == 0, ran.err
    repository = tmp_path / "repository"
    assert_sound(repository)
    status = {(m["name"], t["backend"], t["precision"]): t for m in ran.document["models"] for t in m["targets"]}
    refused = status["sums", "openvino", "fp32"]
    assert refused["status"] == "failed"
    assert "ragged" in refused["findings"][0]["message"]
    live = json.loads((repository / "build-repo.json").read_text(encoding="utf-8"))["models"]["sums"]["live"]["sums"]
    assert live["protocols"] == ["http", "grpc"]

    config = parse_config((repository / "sums" / "config.pbtxt").read_text(encoding="utf-8"))
    assert config["max_batch_size"] == 8
    assert [(io["name"], io["dims"], io["allow_ragged_batch"]) for io in config["input"]] == [("x", ["-1"], True)]
    assert [(io["name"], io["dims"]) for io in config["output"]] == [("y", ["3"]), ("z", ["-1"])]
    assert config["batch_input"] == [
        {
            "kind": "BATCH_ACCUMULATED_ELEMENT_COUNT",
            "target_name": ["ends"],
            "data_type": "TYPE_INT32",
            "source_input": ["x"],
        }
    ]
    assert config["batch_output"][0]["source_input"] == ["x"]
    config = parse_config((repository / "areas" / "config.pbtxt").read_text(encoding="utf-8"))
    assert [(io["name"], io["dims"]) for io in config["input"]] == [("picture", ["-1", "-1"]), ("scale", ["1"])]
    assert config["output"][1]["dims"] == ["-1", "-1"]

    assert run("check", "repository", cwd=tmp_path).code == 0
    loaded = run("loadtest", "repository", "--duration", "2s", "--users", "6", "--json", cwd=tmp_path)
    assert loaded.code == 0, loaded.err
    assert loaded.document["failures"] == 0
    again = build("models.yaml", "-o", "repository", "--json", cwd=tmp_path, check="live")
    assert {t["status"] for m in again.document["models"] for t in m["targets"]} <= {"cached", "failed"}
    with serve(repository, ServeOptions(release="26.07")) as endpoint:
        assert endpoint.grpc is not None
        for rows, columns in ((2, 3), (1, 7)):
            picture = np.zeros((1, rows, columns), np.float32)
            got = ask(endpoint.grpc, "areas", {"picture": picture, "scale": np.full((1, 1), 2, np.float32)})
            assert got["area"].tolist() == [[rows * columns * 2]]
            assert got["brighter"].shape == (1, rows, columns)


def test_wrong_words(tmp_path: Path) -> None:
    """What the spec alone tells is refused before any work; what only the model tells, by the export."""
    models.sums(tmp_path / "sums.onnx")
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"ragged": {**SUMS, "filled": {"ends": {"kind": "ends", "of": "q"}}}}, "'ends' refers to 'q'"),
        (
            {"ragged": SUMS, "targets": ["openvino:fp32"]},
            "take requests of unequal sizes, and the targets are openvino",
        ),
        ({"ragged": SUMS, "batching": {"max_batch_size": 0}}, "this says that none do"),
        ({"ragged": SUMS, "config": {"batch_input": []}}, "decided by ragged"),
        ({"config": {"batch_input": [{"source_input": ["x"]}]}}, "say it as ragged"),
        ({"config": {"input": [{"name": "x", "allow_ragged_batch": True}]}}, "say it as ragged"),
    ]
    for words, said in wrong:
        write_spec(tmp_path, model("sums", **words))
        assert_refused(build("models.yaml", "-o", "repository", cwd=tmp_path), 2, said)
    kind = {"filled": {"ends": {"kind": "counts", "of": "x"}}}
    write_spec(tmp_path, model("sums", ragged={**SUMS, **kind}))
    assert_refused(build("models.yaml", "-o", "repository", cwd=tmp_path), 2, "when 2 requests share a run")
    models.sums(tmp_path / "sums.onnx", models.INT64)
    write_spec(tmp_path, model("sums", ragged=SUMS))
    assert_refused(build("models.yaml", "-o", "repository", cwd=tmp_path), 2, "is filled by Triton, which makes int32")


NETWORK = """
import torch

class Sums(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weights = torch.nn.Parameter(torch.tensor([[1.0, 2.0]]))

    def forward(self, x, ends):
        running = torch.cumsum(x, 0)
        up_to = running[ends.long() - 1]
        before = torch.cat([torch.zeros(1), up_to[:-1]])
        return (up_to - before)[:, None] * self.weights

def build():
    return Sums()
"""


def test_a_network_of_torch(tmp_path: Path) -> None:
    import torch

    (tmp_path / "nets.py").write_text(NETWORK, encoding="utf-8")
    torch.save({"weights": torch.tensor([[1.0, 2.0]])}, tmp_path / "sums.pth")
    inputs = [
        {"name": "x", "dtype": "float32", "shape": ["values"]},
        {"name": "ends", "dtype": "int32", "shape": ["requests"]},
    ]
    words = {"ragged": {**SUMS, "outputs": {}}, "inputs": inputs, "outputs": ["y"]}
    write_spec(tmp_path, model("sums", **words) | {"source": {"path": "sums.pth", "model": "nets:build"}})
    ran = build("models.yaml", "-o", "repository", "--json", cwd=tmp_path)
    assert ran.code == 0, ran.err
    config = parse_config((tmp_path / "repository" / "sums" / "config.pbtxt").read_text(encoding="utf-8"))
    assert config["input"][0]["allow_ragged_batch"]
    assert config["output"][0]["dims"] == ["2"]
