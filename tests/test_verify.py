"""The verdict of the live check: what is asked again and what is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
from command_line import build

from builder.cache import Cache, open_cache
from builder.compare import Gates
from builder.digests import file_digest
from builder.manifest import SAMPLES_FILE, read_manifest
from builder.progress import Event
from builder.samples import load_requests, save_requests
from builder.verify import LiveItem, light_copy, verify


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verify")
    tiny_models.linear(folder / "m.onnx")
    ran = build("m.onnx", "-o", "repo", "--targets", "onnxruntime:fp32", cwd=folder)
    assert ran.code == 0, ran.err
    return folder / "repo"


def item(repository: Path) -> LiveItem:
    manifest = read_manifest(repository)
    assert manifest is not None
    record, served = manifest.served_folders()["m"]
    files = {name: file_digest(repository / "m" / name) for name in served.files}
    return LiveItem(replace(served, files=files), "m", record.signature, Gates())


def ask(repository: Path, wanted: LiveItem, cache: Path) -> tuple[Any, list[str]]:
    open_cache(Cache(cache))
    events: list[Event] = []
    found = verify(repository, [wanted], release="26.07", cache=Cache(cache), progress=events.append)
    return found["m"], [event.kind for event in events]


@pytest.mark.live
def test_a_good_verdict_is_kept_and_a_bad_one_asked_again(repository: Path, runtime: Any, tmp_path: Path) -> None:
    wanted = item(repository)
    verdict, kinds = ask(repository, wanted, tmp_path)
    assert verdict.findings == ()
    assert verdict.result is not None
    assert kinds == ["start", "done"]
    again, kinds = ask(repository, wanted, tmp_path)
    assert again == verdict
    assert kinds == ["cached"]
    samples = repository / "m" / SAMPLES_FILE
    before = samples.read_bytes()
    requests = load_requests(samples, wanted.signature)
    wrong = [replace(request, outputs={"y": np.asarray(request.outputs["y"]) * 2}) for request in requests]
    save_requests(samples, wanted.signature, wrong)
    try:
        for _ in range(2):
            verdict, kinds = ask(repository, item(repository), tmp_path)
            assert any(finding.severity == "error" for finding in verdict.findings)
            assert "cached" not in kinds
    finally:
        samples.write_bytes(before)


def test_a_copy_for_the_server_leaves_nothing_and_touches_nothing(repository: Path) -> None:
    from command_line import snapshot

    before = snapshot(repository)
    with light_copy(repository, ["m"], "26.07") as (copy, unchecked):
        place = copy.parent
        assert [path.name for path in copy.iterdir()] == ["m"]
        assert unchecked == ()
    assert not place.exists()
    assert snapshot(repository) == before
