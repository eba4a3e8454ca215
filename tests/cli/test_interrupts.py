"""An interrupt that comes where Python swallows exceptions still ends the command."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import builder

SCRIPT = textwrap.dedent("""
    import os, signal, sys, time, weakref
    import typer
    from builder import cli

    class Thing:
        pass

    def interrupted_in_a_callback(number):
        thing = Thing()
        reference = weakref.ref(thing, lambda _: os.kill(os.getpid(), number))
        del thing
        return reference

    @cli.app.command("wait")
    def wait() -> None:
        interrupted_in_a_callback(signal.Signals[sys.argv[1]])
        print("goes on", flush=True)
        try:
            time.sleep(60)
        finally:
            print("cleaned up", flush=True)
            time.sleep(0.2)
            print("in peace", flush=True)

    sys.exit(cli.main(["wait"]))
""")


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_an_interrupt_in_a_callback_ends_the_command(number: str) -> None:
    """Its clean-up is left in peace: one signal interrupts once."""
    words = [sys.executable, "-c", f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n{SCRIPT}"]
    run = subprocess.run([*words, number], check=False, capture_output=True, text=True, timeout=30)
    assert run.returncode == 130, run.stderr
    assert run.stdout.split("\n")[:3] == ["goes on", "cleaned up", "in peace"], run.stdout
    assert "interrupted" in run.stderr
    assert "Traceback" not in run.stderr


def test_other_lost_exceptions_are_still_shown() -> None:
    script = "from builder.cli import interrupts; interrupts.install()\nclass T:\n  def __del__(self): 1/0\nT()"
    run = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=30)
    assert "ZeroDivisionError" in run.stderr


def test_an_interrupt_while_the_command_line_is_imported_shows_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt\n", encoding="utf-8")
    words = [sys.executable, "-c", "from builder.__main__ import main; main()"]
    here = str(Path(builder.__file__).parents[1])
    search = {"PYTHONPATH": os.pathsep.join([str(tmp_path), here])}
    run = subprocess.run(
        words, check=False, capture_output=True, text=True, timeout=30, cwd=tmp_path, env=os.environ | search
    )
    assert run.returncode == 130, run.stderr
    assert not run.stderr
