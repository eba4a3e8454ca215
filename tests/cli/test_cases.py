"""Whole commands: a folder with a spec, a command, and the exit code, words and files that must come out."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest
import tiny_models
import yaml
from command_line import run

CASES = sorted(folder for folder in (Path(__file__).parent / "cases").iterdir() if folder.is_dir())


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every tiny model under its own name."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("linear", "wide", "mixing", "doubles", "drifting"):
        getattr(tiny_models, name)(folder / f"{name}.onnx")
    return folder


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case: Path, models: Path, tmp_path: Path) -> None:
    """`case.yaml`: command, exit_code, says (in stderr), prints (in stdout), files (the whole tree of `repo`)."""
    expected = yaml.safe_load((case / "case.yaml").read_text(encoding="utf-8"))
    here = tmp_path / "here"
    shutil.copytree(models, here)
    shutil.copytree(case, here, dirs_exist_ok=True)
    ran = run(*shlex.split(expected["command"]), cwd=here)
    assert ran.code == expected["exit_code"], f"{ran.out}\n{ran.err}"
    assert "Traceback" not in ran.err
    for words in expected.get("says", []):
        assert words in ran.err, f"{words!r} is not in\n{ran.err}"
    for words in expected.get("prints", []):
        assert words in ran.out, f"{words!r} is not in\n{ran.out}"
    repository = here / "repo"
    found = sorted(str(path.relative_to(repository)) for path in repository.rglob("*") if path.is_file())
    assert found == sorted(expected.get("files", []))
