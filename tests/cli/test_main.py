"""What every command keeps: exit codes, where output goes, one JSON document, no colour where none is wanted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_models
import typer
from command_line import build, environment, run

from builder.cli.failures import end, json_on_failure
from builder.cli.request import parse_input
from builder.errors import BuildError, GateError, MachineError, ServeError, SpecError


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], 2),
        (["--help"], 0),
        (["nosuch"], 2),
        (["build"], 2),
        (["build", "m.onnx", "--nosuch"], 2),
        (["build", "m.onnx", "--check", "maybe"], 2),
        (["build", "m.onnx", "--jobs", "-1"], 2),
        (["build", "m.onnx", "--jobs", "many"], 2),
    ],
    ids=lambda item: " ".join(item) if isinstance(item, list) else "",
)
def test_usage(arguments: list[str], code: int, tmp_path: Path) -> None:
    ran = run(*arguments, cwd=tmp_path)
    assert ran.code == code, ran.err
    assert "Traceback" not in ran.err
    if code and arguments:
        assert ran.out == "", "stdout carries results only"


def test_help_lists_every_command(tmp_path: Path) -> None:
    ran = run("--help", cwd=tmp_path)
    for command in (
        "build",
        "plan",
        "inspect",
        "init",
        "check",
        "serve",
        "loadtest",
        "report",
        "runtime",
        "doctor",
        "schema",
        "version",
    ):
        assert f"  {command} " in ran.out


FAILURES = [
    (["build", "gone.onnx", "--json"], 2),
    (["build", "--nosuch", "--json"], 2),
    (["build", "m.onnx", "-o", "m.onnx", "--targets", "onnxruntime", "--check", "none", "--json"], 2),
    (["build", "m.onnx", "-o", "m.onnx/x", "--targets", "onnxruntime", "--check", "none", "--json"], 4),
    (["plan", "gone.onnx", "--json"], 2),
    (["inspect", "gone.onnx", "--json"], 2),
    (["check", "gone", "--json"], 2),
    (["check", "empty", "--json"], 2),
]


@pytest.mark.parametrize(
    ("arguments", "code"), FAILURES, ids=lambda item: " ".join(item) if isinstance(item, list) else ""
)
def test_json_is_one_document_when_nothing_could_be_done(arguments: list[str], code: int, tmp_path: Path) -> None:
    tiny_models.linear(tmp_path / "m.onnx")
    (tmp_path / "empty").mkdir()
    ran = run(*arguments, cwd=tmp_path)
    assert ran.code == code, ran.err
    assert "Traceback" not in ran.err
    (finding,) = ran.document["findings"]
    assert finding["severity"] == "error"
    assert finding["message"]
    assert finding["message"].splitlines()[0] in ran.err, "people read it on stderr"
    assert ran.document["models"] == []
    if arguments[0] == "build" and "--nosuch" not in arguments:
        assert ran.document["repository"].startswith(str(tmp_path))
        assert ran.document["seconds"] >= 0


@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [
        (SpecError("m", remedy="r"), 2, "SpecError"),
        (BuildError("m", remedy="r"), 1, "BuildError"),
        (GateError("m", remedy="r"), 3, "GateError"),
        (MachineError("m", remedy="r"), 4, "MachineError"),
        (ServeError("m", remedy="r"), 5, "ServeError"),
        (KeyboardInterrupt(), 130, "Interrupted"),
        (ZeroDivisionError("m"), 70, "Bug"),
    ],
    ids=lambda item: type(item).__name__ if isinstance(item, BaseException) else "",
)
def test_every_exit_code_has_its_document(
    error: BaseException, code: int, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as left, json_on_failure(tmp_path):
        raise error
    assert left.value.exit_code == code
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert document["repository"] == str(tmp_path)
    assert document["findings"][0]["check"] == kind
    assert ("Traceback" in captured.err) == (code == 70), "a traceback is for a bug"


def test_a_document_that_was_printed_is_not_followed_by_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as left, json_on_failure(tmp_path):
        raise typer.Exit(3)
    assert left.value.exit_code == 3
    assert capsys.readouterr().out == ""


def test_the_remedy_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert end(SpecError("what", remedy="this"))[0] == 2
    assert capsys.readouterr().err == "error: what\n  try: this\n"


def test_only_what_goes_on_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert end(KeyboardInterrupt())[0] == end(KeyboardInterrupt(), resumes=False)[0] == 130
    assert (
        capsys.readouterr().err == "interrupted\n  try: the same command again goes on where it stopped\ninterrupted\n"
    )


def test_no_colour_where_none_is_wanted(tmp_path: Path) -> None:
    tiny_models.linear(tmp_path / "m.onnx")
    arguments = ("m.onnx", "-o", "repo", "--targets", "onnxruntime:fp32")
    for more in ({}, {"NO_COLOR": "1", "FORCE_COLOR": ""}, {"TERM": "dumb"}):
        ran = build(*arguments, cwd=tmp_path, **more)
        assert ran.code == 0
        assert "\x1b[" not in ran.out + ran.err


def test_a_terminal_gets_colours_unless_no_color_is_set(tmp_path: Path) -> None:
    tiny_models.linear(tmp_path / "m.onnx")
    assert b"\x1b[1m" in in_terminal(["inspect", "m.onnx"], tmp_path, TERM="xterm-256color")
    plain = in_terminal(["plan", "m.onnx"], tmp_path, TERM="xterm-256color", NO_COLOR="1")
    assert not any(b"\x1b[%d" % colour in plain for colour in range(30, 38))


def in_terminal(arguments: list[str], cwd: Path, **more: str) -> bytes:
    """What a command prints when stdout is a terminal."""
    import pty

    leader, follower = pty.openpty()
    variables = {key: value for key, value in environment(**more).items() if key != "NO_COLOR" or key in more}
    child = subprocess.Popen(
        [sys.executable, "-m", "builder", *arguments], cwd=cwd, env=variables, stdin=subprocess.DEVNULL,
        stdout=follower, stderr=follower,
    )  # fmt: skip
    os.close(follower)
    said = b""
    try:
        while part := os.read(leader, 65536):
            said += part
    except OSError:
        pass  # the terminal's other side is closed
    finally:
        os.close(leader)
    assert child.wait(timeout=60) == 0, said
    return said


@pytest.mark.parametrize("columns", ["", "wide", "40"])
def test_any_columns_variable_will_do(columns: str, tmp_path: Path) -> None:
    assert run("plan", tiny_models.linear(tmp_path / "m.onnx"), cwd=tmp_path, COLUMNS=columns).code == 0


def test_a_reader_that_leaves_early_hears_no_complaint(tmp_path: Path) -> None:
    command = f"set -o pipefail; {sys.executable} -m builder schema | head -c 1"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "{"
    assert done.stderr == ""


def test_brackets_in_a_path_are_no_markup(tmp_path: Path) -> None:
    here = tmp_path / "[red]x[" / "red]"
    here.mkdir(parents=True)
    tiny_models.linear(here / "m.onnx")
    for command in ("plan", "build"):
        ran = run(command, here / "m.onnx", "-o", here / "repo", "--targets", "onnxruntime", cwd=tmp_path)
        assert ran.code == 0, ran.err
        assert str(here / "repo") in ran.out


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("x:float32:batch,3", ("x", "float32", ["batch", 3])),
        ("x:0:int64:batch, seq", ("x:0", "int64", ["batch", "seq"])),
        ("a:b:c:uint8:1", ("a:b:c", "uint8", [1])),
        ("scalar:float32:", ("scalar", "float32", [])),
        ("x:float32:-1,3", ("x", "float32", [-1, 3])),
        ("x:float32:--5,²", ("x", "float32", ["--5", "²"])),
        ("x:float32:3,,4", ("x", "float32", [3, "", 4])),
    ],
)
def test_inputs_are_split_from_the_right(text: str, parts: tuple[str, str, list[object]]) -> None:
    made = parse_input(text)
    assert (made["name"], made["dtype"], made["shape"]) == parts


@pytest.mark.parametrize("text", ["", "x", "x:float32", ":float32:3", "x::3"])
def test_what_is_no_input_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="is not NAME:DTYPE:D1,D2"):
        parse_input(text)
