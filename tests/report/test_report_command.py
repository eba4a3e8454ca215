"""`build-repo report`: what it writes and prints, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import assert_refused, environment, run, snapshot

from builder.report import FORMATS


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_suffix_is_the_format_and_stdout_names_the_file(repository: Path, suffix: str) -> None:
    before = snapshot(repository)
    ran = run("report", "repo", "-o", f"out{suffix}", cwd=repository.parent)
    assert (ran.code, ran.out) == (0, f"out{suffix}\n"), ran.err
    assert "5 models and 1 ensemble for Triton 26.07" in ran.err
    text = (repository.parent / f"out{suffix}").read_text(encoding="utf-8")
    starts = {".html": "<!doctype html>", ".md": "# repo: ", ".json": "{"}
    assert text.lstrip().startswith(starts[suffix])
    assert snapshot(repository) == before, "a report changes nothing in the repository"


def test_without_an_output_it_is_a_page(repository: Path) -> None:
    ran = run("report", repository, cwd=repository.parent)
    assert (ran.code, ran.out) == (0, "report.html\n"), ran.err
    page = (repository.parent / "report.html").read_bytes()
    assert 50_000 < len(page) < 3_000_000
    assert json.dumps(str(repository))[1:-1].encode() in page


def test_what_it_cannot_do_is_said_and_leaves_nothing(repository: Path) -> None:
    here = repository.parent
    before = snapshot(here)
    assert_refused(run("report", "nowhere", cwd=here), 2, "no such folder", "build-repo build")
    assert_refused(run("report", "repo", "-o", "out.pdf", cwd=here), 2, "'.pdf'", ".html, .md, .json")
    assert_refused(run("report", "repo", "-o", "no/out.html", cwd=here), 2, "no such folder", "mkdir -p")
    assert_refused(run("report", "repo", "-o", "repo/report.html", cwd=here), 2, "would lie in the repository")
    assert_refused(run("report", ".", cwd=repository), 2, "would lie in the repository")
    assert_refused(run("report", "repo/lossy", "-o", "out.html", cwd=here), 2, "has no build-repo.json", "validate")
    assert_refused(run("report", cwd=here), 2)
    assert snapshot(here) == before


def test_a_manifest_of_another_version_is_an_error(repository: Path) -> None:
    manifest = repository / "build-repo.json"
    document = json.loads(manifest.read_text(encoding="utf-8"))
    manifest.write_text(json.dumps(document | {"format": 99}), encoding="utf-8")
    assert_refused(run("report", "repo", cwd=repository.parent), 2, "cannot be read", "its format is 99")
    manifest.write_text("{", encoding="utf-8")
    assert_refused(run("report", "repo", cwd=repository.parent), 2, "cannot be read", "not JSON")
    assert not (repository.parent / "report.html").exists()


def test_without_the_library_only_the_page_is_refused(repository: Path) -> None:
    """As on a machine without the extra: the module cannot be found."""
    script = (
        "import sys; sys.modules['vl_convert'] = None\nfrom builder.cli import main\nsys.exit(main(sys.argv[1:]))\n"
    )

    def report(output: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", script, "report", "repo", "-o", output]
        return subprocess.run(
            command, cwd=repository.parent, env=environment(), capture_output=True, text=True, timeout=120, check=False
        )

    ended = report("out.html")
    assert ended.returncode == 4, ended.stderr
    assert "pip install 'build-repo[report]'" in ended.stderr
    assert not (repository.parent / "out.html").exists()
    assert report("out.md").returncode == 0
    assert report("out.json").returncode == 0
