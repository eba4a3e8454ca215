"""The command line: one file per command; the only place that prints.

stdout carries results only; stderr carries progress and errors.
"""

from __future__ import annotations

import importlib
import io
import itertools
import os
import sys
from typing import Any, Final, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from builder.cli import interrupts
from builder.cli.failures import Interrupted, end, failure_document
from builder.errors import EXIT_INTERRUPTED

COMMANDS: Final[dict[str, str]] = {
    "build": "Convert, measure, configure, check, and only then replace the repository.",
    "plan": "What a build would do, what is cached, and why not; changes nothing.",
    "inspect": "Format, inputs, outputs, operators of a model, and which targets take it.",
    "init": "Write a commented spec inferred from model files.",
    "validate": "Judge any Triton repository offline, with reasons and remedies.",
    "diff": "Compare two repositories: artefacts, configurations, measurements.",
    "serve": "Serve a repository with a real Triton.",
    "check": "Check the accuracy of served models through tritonclient, HTTP and gRPC.",
    "loadtest": "Load-test served models with Locust.",
    "tune": "Find by measurement how models are served best; the next build takes it.",
    "report": "A page on what is served and why, with every measurement behind it.",
    "runtime": "Install, list and remove the embedded server's own environment.",
    "doctor": "What works on this machine, and the next thing to type for what does not.",
    "schema": "The JSON Schema of the spec file.",
    "version": "Versions of build-repo and of the libraries it uses.",
}
"""Command → its line in the help. The module `builder.cli.<command>` is imported only when the command runs."""


class LazyCommands(TyperGroup):
    """Lists every command without importing any, so that --help costs no more than typer itself."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]  # noqa: ARG002
        """The order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]  # noqa: ANN401, ARG002
        """The real command once it is resolved, else a line for the help."""
        if cmd_name in self.commands:
            return self.commands[cmd_name]
        return TyperCommand(cmd_name, help=COMMANDS[cmd_name]) if cmd_name in COMMANDS else None

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> Any:  # type: ignore[override]  # noqa: ANN401
        """Import the one command that runs."""
        if args and args[0] in COMMANDS:
            module = importlib.import_module(f"builder.cli.{args[0]}")
            command = typer.main.get_command(module.app)
            command.name = args[0]
            self.commands[args[0]] = command
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # noqa: ANN401
        """Ctrl-C leaves as our own exception: typer would make a silent exit code of it."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise Interrupted(*error.args) from error


app = typer.Typer(
    cls=LazyCommands,
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Trained models in, a proven Triton Inference Server model repository out.",
)


@app.callback()
def options() -> None:
    """Nothing is global."""


def main(arguments: list[str]) -> int:
    """Run one command; returns its exit code. A traceback is only printed for a bug (70)."""
    interrupts.install()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Names of files may be no UTF-8; their escapes are right in JSON too.
            stream.reconfigure(errors="backslashreplace")
    try:
        result = app(arguments, standalone_mode=False, prog_name="build-repo")
    except BrokenPipeError:
        return EXIT_INTERRUPTED
    except (KeyboardInterrupt, Exception) as error:
        code, finding = end(error, resumes=arguments[:1] in (["build"], ["tune"]))
        if _wants_json(arguments):
            from builder.cli.show import print_json

            print_json(failure_document(finding))
        return code
    return result if isinstance(result, int) else 0


def _wants_json(arguments: list[str]) -> bool:
    """`--json`, or `--format json` of `validate`."""
    pairs = itertools.pairwise(arguments)
    return "--json" in arguments or "--format=json" in arguments or ("--format", "json") in pairs


def entrypoint() -> NoReturn:
    """The `build-repo` command."""
    code = main(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Nobody reads any more; the interpreter's own flush at exit must not complain about it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
