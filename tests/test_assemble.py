from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_models
from command_line import build

from builder.assemble import make_manifest, possible_folders
from builder.cache import Cache
from builder.errors import SpecError
from builder.manifest import RunRecord, read_manifest
from builder.measurement import REFERENCE_FILE, BatchProof, ExportReport
from builder.samples import Request, load_requests, save_requests
from builder.samples.stored import MAX_BYTES, MAX_REQUESTS, store_samples
from builder.spec import RepoSpec
from builder.spec_file import spec_from_models


def spec(folder: Path, *names: str, serve: str = "best") -> RepoSpec:
    path = tiny_models.linear(folder / "m.onnx")
    return spec_from_models([{"name": name, "source": {"path": str(path)}} for name in names], {"serve": serve})


def test_every_folder_is_known_before_any_work(tmp_path: Path) -> None:
    assert possible_folders(spec(tmp_path, "a", "b")) == {"a": "a", "b": "b"}
    assert possible_folders(spec(tmp_path, "a", serve="all")) == {
        "a": "a",
        "a_onnxruntime_fp32": "a",
        "a_openvino_fp32": "a",
    }
    with pytest.raises(SpecError, match="'a' and 'a_openvino_fp32' would both be served as 'a_openvino_fp32'"):
        possible_folders(spec(tmp_path, "a", "a_openvino_fp32", serve="all"))


def test_the_digest_of_a_spec_does_not_know_its_folder(tmp_path: Path) -> None:
    digests = set()
    for folder in ("one", "two"):
        digests.add(make_manifest(spec(tmp_path / folder, "a"), {}, {}, RunRecord("", {})).spec_digest)
    assert len(digests) == 1
    assert make_manifest(spec(tmp_path / "one", "b"), {}, {}, RunRecord("", {})).spec_digest not in digests


def write(cache: Cache, requests: list[Request]) -> ExportReport:
    folder = cache.folder("export", "k")
    folder.mkdir(parents=True)
    save_requests(folder / REFERENCE_FILE, tiny_models.LINEAR, requests)
    return ExportReport(tiny_models.LINEAR, "copy", 18, 9, BatchProof(proven=True), "random")


def request(rows: int) -> Request:
    return Request({"x": np.ones((rows, 4), np.float32)}, {"y": np.ones((rows, 3), np.float32)}, rows)


def test_few_samples_travel_as_they_are(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    report = write(cache, [request(1), request(2)])
    assert store_samples(cache, "export", "k", report.signature) == cache.folder("export", "k") / REFERENCE_FILE


def test_of_many_samples_a_selection_of_every_size_travels(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    rows = MAX_BYTES // 28 // 20
    report = write(cache, [request(rows)] * 25 + [request(3), *[request(1)] * 40])
    path = store_samples(cache, "export", "k", report.signature)
    assert path.stat().st_size <= MAX_BYTES + 50_000
    kept = load_requests(path, tiny_models.LINEAR)
    assert {item.rows for item in kept} == {rows, 3, 1}
    assert len(kept) <= MAX_REQUESTS
    assert [item.name for item in path.parent.iterdir()] == ["k.npz"]
    assert store_samples(cache, "export", "k", report.signature) == path


def test_the_manifest_holds_no_place_log_or_time(tmp_path: Path) -> None:
    tiny_models.doubles(tmp_path / "d.onnx")
    np.savez(tmp_path / "s.npz", x=np.random.default_rng(0).standard_normal((9, 4)))
    ran = build("d.onnx", "-o", "repo", "--samples", "s.npz", cwd=tmp_path)
    assert ran.code == 0, ran.err
    manifest = json.loads((tmp_path / "repo" / "build-repo.json").read_text(encoding="utf-8"))
    run = manifest.pop("run")
    text = json.dumps(manifest)
    assert str(tmp_path) not in text
    assert "replay" not in text
    assert "failures" not in text
    assert set(run["timings"]["d"]) == {"onnxruntime:fp32"}
    read = read_manifest(tmp_path / "repo")
    assert read is not None
    assert [(target.status, target.size_bytes is None) for target in read.models["d"].targets] == [
        ("built", False),
        ("failed", True),
    ]
    assert set(read.models["d"].targets[0].works) == {"export", "prepare", "convert", "measure"}
