"""`make demo`, run as it is: the whole main job on the real pretrained classifier."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.live
@pytest.mark.slow
def test_demo_builds_serves_checks_and_load_tests(runtime):
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "classifier" / "demo.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the bytes of coffee.jpg, as Triton answered: espresso" in done.stdout
    for name in ("classifier", "decode", "top", "photo_classifier"):
        assert f"live check of {name} over http and grpc: passed" in done.stdout
    assert "photo_classifier = decode → classifier → top: built" in done.stdout
    assert float(re.search(r"load test of photo_classifier: ([\d.]+) requests/s", done.stdout)[1]) > 0
    report = Path(re.search(r"report: (\S+)", done.stdout)[1])
    assert "<html" in report.read_text(encoding="utf-8")
    page = done.stdout.rpartition("-o reports/repository.html")[2].split()[0]
    assert "photo_classifier" in (ROOT / page).read_text(encoding="utf-8")
    assert re.search(r"onnxruntime:fp32 .*(built|cached)", done.stdout)
    # On a CPU that computes in bfloat16 the gate on top-1 may say no to it.
    assert re.search(r"openvino:fp16 .*(built|cached|rejected)", done.stdout)

    manifest = json.loads((ROOT / "model_repository" / "build-repo.json").read_text(encoding="utf-8"))
    ensemble = manifest["ensembles"]["photo_classifier"]
    assert ensemble["reference"] == [
        "decode: source (python)",
        "classifier: source (torch_state_dict)",
        "top: source (python)",
    ]
    model = manifest["models"]["classifier"]
    for target in model["targets"]:
        assert target["numbers"]["metric"]["rows"] == 16
        assert target["numbers"]["batch"]["proven"]
        assert all(output["max_relative"] < 0.05 for output in target["numbers"]["outputs"])
