"""`validate --fix`: one right answer is written, everything else stays, and nothing is written for nothing."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_models
from command_line import environment, run

from builder.errors import MachineError
from builder.findings import has_errors
from builder.fixes import text_edits
from builder.fixing import Fix, plan_fixes, write_fixes
from builder.validate import validate_repository

GOOD = """# our model
name: "m"   # as the folder
backend: "onnxruntime"
max_batch_size: 8

input [
  {
    name: "x"        # pixels
    data_type: TYPE_FP32
    dims: [ 4 ]
  }
]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 3 ] } ]
"""


def put(repository: Path, text: str, name: str = "m", file: str = "model.onnx") -> Path:
    path = repository / name / "1" / file
    path.parent.mkdir(parents=True)
    (repository / name / "config.pbtxt").write_bytes(text.encode())
    tiny_models.linear(path)
    return repository / name / "config.pbtxt"


def fixed(repository: Path) -> str:
    """The one fix's text, after which the repository is right."""
    (fix,) = plan_fixes(repository, "26.07")
    write_fixes(repository, (fix,))
    assert not has_errors(validate_repository(repository, "26.07"))
    return fix.new


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('name: "m" ', 'name: "other" '),
        ("data_type: TYPE_FP32\n", "data_type: TYPE_INT8\n"),
        ("    data_type: TYPE_FP32\n", ""),
        ("dims: [ 4 ]", "dims: [ -1, 4 ]"),
        ("dims: [ 4 ]", "dims: [ 5 ]"),
        ("    dims: [ 4 ]\n", ""),
        ("dims: [ 3 ]", "dims: -1"),
        ('name: "x" ', 'name: "pixels" '),
        ("  }\n]", "  },\n]"),
        ("# our", "// our"),
        ("# pixels", "// pixels"),
        ('backend: "onnxruntime"', 'platform: "onnxruntime"'),
        ("", "\ufeff"),
    ],
)
def test_one_right_answer(tmp_path: Path, old: str, new: str) -> None:
    put(tmp_path, GOOD.replace(old, new, 1) if old else new + GOOD)
    text = fixed(tmp_path)
    for comment in ("our model", "# as the folder", "# pixels"):
        assert comment in text
    if new and "TYPE" not in old and "dims: [ 4 ]\n" not in old:
        assert text.replace("dims: [ 3 ]", "dims: [ 3 ]") == GOOD


def test_slashes_in_strings_and_comments_stay() -> None:
    assert text_edits("""default_model_filename: "a//b" # c//d\nmetric_tags { key: 'e//f' value: "\\"//" }""") == []


def test_commas_between_list_items(tmp_path: Path) -> None:
    text = GOOD.replace("dims: [ 4 ]", "dims: [ 4 ]").replace(
        "output [ {", "instance_group [ { kind: KIND_CPU } { kind: KIND_CPU } ]\noutput [ {"
    )
    put(tmp_path, text)
    assert "{ kind: KIND_CPU }, { kind: KIND_CPU }" in fixed(tmp_path)


def test_another_file_name_and_line_ends_stay(tmp_path: Path) -> None:
    put(tmp_path, GOOD.replace("\n", "\r\n"), file="net.onnx")
    assert fixed(tmp_path) == 'default_model_filename: "net.onnx"\r\n' + GOOD.replace("\n", "\r\n")


def test_a_label_file_of_another_spelling(tmp_path: Path) -> None:
    config = put(tmp_path, GOOD.replace('name: "y"', 'name: "y" label_filename: "Labels.txt"'))
    (config.parent / "labels.txt").write_text("a\nb\nc\n")
    assert 'label_filename: "labels.txt"' in fixed(tmp_path)


def test_several_faults_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("# our", "// our").replace('"m"', '"n"').replace("[ 4 ]", "[ 9 ]").replace('"y"', '"z"')
    put(tmp_path, text.replace("  }\n]", "  },\n]"))
    assert fixed(tmp_path) == GOOD


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        GOOD.replace("onnxruntime", "onnxruntim"),
        GOOD.replace("max_batch_size: 8", "max_batch_size: -1"),
        GOOD.replace("max_batch_size: 8", "max_batch_size: 8\ninstance_group { kind: KIND_GPU }"),
        GOOD.replace('"x"', '"a"').replace('"y"', '"x"').replace("TYPE_FP32", "TYPE_INT8"),
        GOOD + "}",
        "",
        "nonsense",
        GOOD.replace("dims: [ 4 ]", "dims: [ 2, 2 ] reshape { shape: [ 5 ] }"),
    ],
)
def test_without_one_right_answer_nothing_is_touched(tmp_path: Path, text: str) -> None:
    config = put(tmp_path, text)
    before = config.read_bytes(), config.stat().st_mtime_ns
    assert plan_fixes(tmp_path, "26.07") == ()
    run("validate", tmp_path, "--fix", cwd=tmp_path.parent)
    assert (config.read_bytes(), config.stat().st_mtime_ns) == before


def test_what_is_no_utf8_is_left_alone(tmp_path: Path) -> None:
    config = put(tmp_path, GOOD.replace('"m"', '"n"'))
    config.write_bytes(b"# \xff\n" + config.read_bytes())
    assert plan_fixes(tmp_path, "26.07") == ()


def test_the_command_shows_the_difference_and_what_is_left(tmp_path: Path) -> None:
    put(tmp_path / "repo", GOOD.replace('"m"', '"n"'))
    put(tmp_path / "repo", GOOD.replace('"m"', '"k"').replace("8", "-8"), name="k")
    ran = run("validate", tmp_path / "repo", "--fix", cwd=tmp_path)
    assert ran.code == 3
    assert '-name: "n"   # as the folder\n+name: "m"   # as the folder\n' in ran.out
    assert "1 file rewritten; what is left stands below" in ran.err
    assert "non-negative" in ran.err
    again = run("validate", tmp_path / "repo", "--fix", "--format", "json", cwd=tmp_path)
    assert again.document["fixes"] == []


def test_json_holds_the_differences(tmp_path: Path) -> None:
    put(tmp_path / "repo", GOOD.replace('"m"', '"n"'))
    ran = run("validate", tmp_path / "repo", "--fix", "--format", "json", cwd=tmp_path)
    assert ran.code == 0
    (fix,) = ran.document["fixes"]
    assert fix["file"] == "m/config.pbtxt"
    assert fix["diff"].startswith("--- a/m/config.pbtxt\n+++ b/m/config.pbtxt\n")


def test_mode_and_link_stay_and_no_other_file_is_left(tmp_path: Path) -> None:
    config = put(tmp_path / "repo", GOOD.replace('"m"', '"n"'))
    real = tmp_path / "elsewhere.pbtxt"
    config.rename(real)
    config.symlink_to(real)
    real.chmod(0o640)
    write_fixes(tmp_path / "repo", plan_fixes(tmp_path / "repo", "26.07"))
    assert config.is_symlink()
    assert (real.read_text(), real.stat().st_mode & 0o777) == (GOOD, 0o640)
    assert sorted(item.name for item in config.parent.iterdir()) == ["1", "config.pbtxt"]


def test_a_disk_that_takes_nothing_keeps_the_old_file(tmp_path: Path) -> None:
    config = put(tmp_path / "repo", GOOD.replace('"m"', '"n"'))
    old = config.read_bytes()
    command = f"ulimit -f 0; exec {sys.executable} -m builder validate {tmp_path / 'repo'} --fix"
    ran = subprocess.run(
        ["bash", "-c", command], check=False, cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert ran.returncode == 4, ran.stderr
    assert "Traceback" not in ran.stderr
    assert config.read_bytes() == old
    fixes = plan_fixes(tmp_path / "repo", "26.07")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with pytest.raises(MachineError, match=r"m/config\.pbtxt cannot be written"):
            write_fixes(tmp_path / "repo", fixes)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert config.read_bytes() == old
    assert sorted(item.name for item in config.parent.iterdir()) == ["1", "config.pbtxt"]


def test_a_diff_without_a_last_line_end_is_whole() -> None:
    assert Fix("m", "m/config.pbtxt", "a: 1", "a: 2").diff.endswith(
        "-a: 1\n\\ No newline at end of file\n+a: 2\n\\ No newline at end of file\n"
    )
