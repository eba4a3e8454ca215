"""Options of serve, check and loadtest that cannot be: each refused before a server starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import assert_refused, run
from triton_models import doubling, doubling_config, write_onnx

URL = ("--url", "http://127.0.0.1:1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a repository and a text file."""
    made = tmp_path_factory.mktemp("options")
    write_onnx(made / "repo", "double", doubling(), doubling_config("onnxruntime"))
    (made / "text.txt").write_text("no certificate", encoding="utf-8")
    return made


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("check", "repo", "--junit", "absent/verdicts.xml"), ("no such folder", "mkdir -p")),
        (("check", "repo", "--junit", "repo"), ("repo is a folder", "--junit")),
        (("check", "repo", "--header", "a: b"), ("behind --url",)),
        (("check", "repo", *URL, "--engine", "docker"), ("one that runs",)),
        (("check", "repo", *URL, "--ca-file", "absent.pem"), ("absent.pem holds no certificates: No such file",)),
        (("check", "repo", *URL, "--ca-file", "text.txt"), ("text.txt holds no certificates",)),
        (("loadtest", "repo", "--model", "double", "--mix", "other"), ("both say what is called",)),
        (("loadtest", "repo", "--report", "text.txt"), ("text.txt cannot hold the report", "--report")),
        (("loadtest", "repo", "--report", "text.txt/below"), ("cannot hold the report",)),
        (("serve", "repo", "--", "--http-port=9555"), ("--http-port after --", "build-repo serve REPO --http-port")),
        (
            ("serve", "repo", "--", "--log-verbose=1", "--metrics-address", "::"),
            ("--metrics-address after --", "--host"),
        ),
        (("serve", "repo", "--", "--allow-metrics=false"), ("--allow-metrics after --", "leave it out")),
    ],
)
def test_what_cannot_be_is_refused(folder: Path, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    assert_refused(run(*arguments, cwd=folder), 2, *words)
