"""What a command imports: heavy libraries only where they are used."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_models
from command_line import build, environment

HEAVY = ("torch", "tensorflow", "onnx", "onnxruntime", "openvino", "tensorrt", "transformers", "locust", "tritonclient",
         "docker", "numpy")  # fmt: skip
FRAMEWORKS = ("torch", "onnx", "onnxruntime", "openvino", "tensorflow", "locust")

SCRIPT = """
import json, sys
from builder.cli import main
code = main(json.loads(sys.argv[1]))
sys.stderr.write("\\nLOADED " + json.dumps([code, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def loaded(arguments: list[str], cwd: Path) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(arguments)],
        cwd=cwd, env=environment(), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    code, names = json.loads(done.stderr.rpartition("LOADED ")[2])
    assert code == 0, done.stderr
    return set(names)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["version"], ["version", "--json"], ["schema"], ["build", "--help"]], ids=" ".join
)
def test_light_commands_import_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    assert loaded(arguments, tmp_path) & set(HEAVY) == set()


def test_importing_the_command_line_imports_nothing_heavy(tmp_path: Path) -> None:
    code = "import sys, builder.cli; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert set(done.stdout.split()) & {*HEAVY, "pydantic", "yaml", "jinja2", "grpc", "rich"} == set()


def test_every_module_of_the_library_imports_without_heavy_libraries(tmp_path: Path) -> None:
    code = """
import importlib, pkgutil, sys, builder
for module in pkgutil.walk_packages(builder.__path__, "builder."):
    if not module.name.startswith(("builder.triton_backends", "builder.__main__")):
        importlib.import_module(module.name)
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) & {*HEAVY, "grpc", "jinja2"} == set()


def test_a_cached_rebuild_imports_no_framework(tmp_path: Path) -> None:
    tiny_models.linear(tmp_path / "m.onnx")
    targets = ["--targets", "onnxruntime:fp32,openvino:fp32"]
    assert build("m.onnx", "-o", "repo", *targets, cwd=tmp_path).code == 0
    names = loaded(["build", "m.onnx", "-o", "repo", *targets, "--check", "none"], tmp_path)
    assert names & set(FRAMEWORKS) == set()


def test_plan_imports_nothing_heavy(tmp_path: Path) -> None:
    tiny_models.linear(tmp_path / "m.onnx")
    assert loaded(["plan", "m.onnx"], tmp_path) & set(HEAVY) == set()
