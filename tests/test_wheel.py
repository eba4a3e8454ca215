"""The wheel in an empty environment: what a user gets from `pip install build-repo`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import tiny_models
from command_line import ROOT

PACKAGES_S = 600


def clean(**more: str) -> dict[str, str]:
    """An environment that knows nothing of the checkout."""
    return {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")} | more


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling", reason="hatchling builds the wheel")
    folder = tmp_path_factory.mktemp("wheel")
    # From a copy: a build must not depend on, nor leave, anything else in the checkout.
    source = folder / "source"
    source.mkdir()
    for name in ("builder", "templates", "loadtests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "CHANGELOG.md"):
        shutil.copyfile(ROOT / name, source / name)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        str(folder),
        str(source),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=clean())
    assert done.returncode == 0, done.stderr
    (made,) = folder.glob("*.whl")
    return made


def test_everything_that_is_read_at_run_time_is_inside(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, place in (("templates", "builder/_resources/"), ("loadtests", "builder/_resources/"), ("builder", "")):
        for file in (ROOT / folder).rglob("*"):
            inside = file.relative_to(ROOT)
            if file.is_file() and not any(part.startswith((".", "__pycache__", "_resources")) for part in inside.parts):
                assert f"{place}{inside}" in names
    assert not any(name.startswith(("tests/", "templates/", "examples/")) for name in names)


def _pythons() -> list[str]:
    """This one, and the other supported one where it is installed."""
    other = "3.12" if sys.version_info[:2] == (3, 11) else "3.11"
    found = [sys.executable, *map(str, sorted(Path.home().glob(f".pyenv/versions/{other}*/bin/python")))]
    on_path = shutil.which(f"python{other}")
    return found if len(found) > 1 or on_path is None else [*found, on_path]


def test_both_supported_pythons_are_here() -> None:
    if len(_pythons()) == 1:
        pytest.skip("only one of Python 3.11 and 3.12 is installed: the wheel is tried with that one")


@pytest.mark.slow
@pytest.mark.parametrize("python", _pythons(), ids=lambda path: Path(path).parent.parent.name)
def test_it_builds_a_repository_in_an_empty_environment(wheel: Path, python: str, tmp_path: Path) -> None:
    environment = tmp_path / "venv"
    done = subprocess.run(
        [python, "-m", "venv", str(environment)], capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"{python} cannot make an environment: {done.stderr.strip()[-200:]}")
    constraints = ROOT / "constraints.txt"
    more = ["-c", str(constraints)] if constraints.is_file() else []
    install = [str(environment / "bin" / "python"), "-m", "pip", "install", "-q", *more, str(wheel)]
    done = subprocess.run(install, capture_output=True, text=True, timeout=PACKAGES_S, check=False, env=clean())
    assert done.returncode == 0, done.stderr[-2000:]
    here = tmp_path / "here"
    here.mkdir()
    tiny_models.linear(here / "tiny.onnx")
    command = [
        str(environment / "bin" / "build-repo"),
        "build",
        "tiny.onnx",
        "-o",
        "repo",
        "--check",
        "offline",
        "--json",
    ]
    variables = clean(BUILD_REPO_CACHE=str(tmp_path / "cache"))
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=300, check=False, env=variables)
    assert done.returncode == 0, done.stderr
    (model,) = json.loads(done.stdout)["models"]
    assert model["served"] == {"backend": "onnxruntime", "precision": "fp32"}
    targets = {target["backend"]: target for target in model["targets"]}
    assert targets["onnxruntime"]["status"] == "built"
    assert targets["openvino"]["status"] == "failed"
    (finding,) = targets["openvino"]["findings"]
    assert finding["severity"] == "warning"
    assert "pip install 'build-repo[openvino]'" in finding["remedy"]
    assert (here / "repo" / "tiny" / "config.pbtxt").is_file()
