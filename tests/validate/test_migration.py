"""`validate --from YY.MM`: what changes for one repository between two releases, each with what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_models
from command_line import run

from builder.errors import SpecError
from builder.findings import Finding
from builder.migration import migration_report
from builder.releases import get_origin, known_releases

IO = """max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 3 ] }
"""


def put(repository: Path, name: str, head: str, file: str, io: str = IO) -> Path:
    path = repository / name / "1" / file
    path.parent.mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(head + "\n" + io)
    path.write_bytes(b"x")
    return path


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository of 2023."""
    root = tmp_path / "repo"
    saved = put(root, "saved", 'platform: "tensorflow_savedmodel"', "model.savedmodel/saved_model.pb")
    assert saved.is_file()
    put(root, "frozen", 'platform: "tensorflow_graphdef"', "model.graphdef")
    put(root, "plan", 'platform: "tensorrt_plan"', "model.plan")
    put(root, "code", 'backend: "python"', "model.py")
    tiny_models.linear(put(root, "net", 'backend: "onnxruntime"', "model.onnx"))
    return root


def of(findings: tuple[Finding, ...], check: str) -> list[Finding]:
    return [item for item in findings if item.check == f"migration.{check}"]


def test_tensorflow_models_get_the_command_that_replaces_them(repository: Path) -> None:
    frozen, saved = of(migration_report(repository, "23.06", "26.07"), "tensorflow")
    path = repository / "saved" / "1" / "model.savedmodel"
    assert saved.severity == "error"
    assert saved.remedy.startswith(f"build-repo build {path} --name saved --triton 26.07 -o migrated-26.07")
    assert (saved.file, saved.line) == ("saved/config.pbtxt", 1)
    graph = repository / "frozen" / "1" / "model.graphdef"
    assert f"--graphdef {graph} --inputs x:0 --outputs y:0 --output frozen.onnx" in frozen.remedy
    assert not of(migration_report(repository, "23.06", "25.02"), "tensorflow")


def test_plans_are_built_again_and_unknown_versions_are_said_to_be_unknown(repository: Path) -> None:
    (plan,) = of(migration_report(repository, "23.06", "26.07"), "tensorrt")
    assert plan.severity == "error"
    assert "23.06 has a version that is not known, 26.07 has 11.1.0.106" in plan.message
    (plan,) = of(migration_report(repository, "24.05", "25.10"), "tensorrt")
    assert "24.05 has 10.0.1.6, 25.10 has a version that is not known" in plan.message
    (plan,) = of(migration_report(repository, "24.05", "24.05"), "tensorrt")
    assert (plan.severity, plan.remedy) == ("info", "nothing")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [("23.04", "24.10", "Python 3.8, and runs in Python 3.10"), ("23.06", "26.07", "3.10, and runs in Python 3.12"),
     ("20.06", "26.07", "(which one is not known), and runs in Python 3.12"), ("23.06", "24.10", "")],
)  # fmt: skip
def test_python_models_change_their_python(repository: Path, old: str, new: str, words: str) -> None:
    found = of(migration_report(repository, old, new), "python")
    assert [words in item.message for item in found] == ([True] if words else [])


def test_dims_that_were_accepted(repository: Path) -> None:
    config = repository / "net" / "config.pbtxt"
    config.write_text(config.read_text().replace("[ 3 ]", "[ 7 ]"))
    (found,) = of(migration_report(repository, "23.06", "24.03"), "dims")
    assert "dims [7] and the model file [3]: accepted in 23.06, refused in 24.03" in found.message
    assert found.line == 4
    assert not of(migration_report(repository, "24.03", "26.07"), "dims")


def test_limits_gpus_and_own_libraries(repository: Path) -> None:
    config = repository / "code" / "config.pbtxt"
    config.write_text(config.read_text().replace("[ 4 ]", "[ -1 ]"))
    (repository / "code" / "libtriton_own.so").write_bytes(b"")
    report = migration_report(repository, "23.06", "26.07")
    assert [item.model for item in of(report, "http_limit")] == ["code"]
    assert [item.file for item in of(report, "library")] == ["code/libtriton_own.so"]
    assert len(of(report, "gpu")) == 1
    assert not of(migration_report(repository, "25.06", "26.07"), "gpu")


@pytest.mark.parametrize("old", ["20.03", "22.12", "23.06", "23.12", "24.01", "26.07"])
def test_every_release_may_be_left(repository: Path, old: str) -> None:
    assert get_origin(old).release == old
    assert all(item.remedy for item in migration_report(repository, old, "26.07"))


@pytest.mark.parametrize("old", ["23.13", "17.01", "99.01", "old", "2.35", ""])
def test_what_is_no_release_is_refused(old: str) -> None:
    with pytest.raises(SpecError, match="unknown Triton release"):
        get_origin(old)


def test_facts_of_a_known_release_are_those_of_the_table() -> None:
    for release in known_releases():
        origin = get_origin(release.release)
        assert (origin.server, origin.python) == (release.server, release.python)
        assert origin.tensorrt == (release.tensorrt if release.tensorrt_verified else None)


@pytest.mark.parametrize("form", ["json", "sarif", "junit", "text"])
def test_every_format_carries_it(repository: Path, form: str) -> None:
    ran = run("validate", repository, "--from", "23.06", "--triton", "26.07", "--format", form, cwd=repository.parent)
    assert ran.code == 3
    assert "model.savedmodel --name saved --triton 26.07" in (ran.out if form != "text" else ran.err)
    if form == "json":
        assert set(json.loads(ran.out)) == {"repository", "findings"}
