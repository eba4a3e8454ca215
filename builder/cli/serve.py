"""`build-repo serve`."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import typer

from builder.cli.options import Engine, EngineOption, Image, ReadyTimeout, ready_timeout_s, release_of, started
from builder.errors import ServeError, SpecError

app = typer.Typer(rich_markup_mode=None, add_completion=False)
POLL_S = 0.5
TAKEN = {
    **{f"{word}-port": f"build-repo serve REPO --{word}-port PORT" for word in ("http", "grpc", "metrics")},
    **{f"{word}-address": "build-repo serve REPO --host ADDRESS" for word in ("http", "grpc", "metrics")},
    **{f"allow-{word}": "leave it out: all three ports are served" for word in ("http", "grpc", "metrics")},
    **dict.fromkeys(("model-repository", "model-store"), "build-repo serve REPO names the repository"),
}
"""Words of tritonserver's that decide where the server is found, with what says it here."""


@app.command()
def serve(
    repository: Path = typer.Argument(..., metavar="REPO", help="Any Triton model repository."),
    arguments: list[str] = typer.Argument(None, metavar="[-- TRITONSERVER ARGS]", help="Handed to tritonserver."),
    engine: EngineOption = Engine.embedded,
    image: Image = None,
    ready_timeout: ReadyTimeout = None,
    triton: str = typer.Option(None, help="The release that serves it; the repository's own when left out."),
    host: str = typer.Option("127.0.0.1", help="The address to listen on; 0.0.0.0 is every one of this machine."),
    http_port: int = typer.Option(8000, min=0, max=65535, help="0 chooses a free one."),
    grpc_port: int = typer.Option(8001, min=0, max=65535, help="0 chooses a free one."),
    metrics_port: int = typer.Option(8002, min=0, max=65535, help="0 chooses a free one."),
) -> None:
    """Serve a repository with a real Triton, in the foreground, until SIGTERM or Ctrl-C."""
    from builder.check_repository import folders_of
    from builder.manifest import all_listed
    from builder.servers import ServeOptions

    if not repository.is_dir():
        raise SpecError(f"{repository}: no such folder", remedy="build-repo build MODEL -o REPO makes a repository")
    folders_of(repository, None)
    _refuse_taken(arguments or [])
    options = ServeOptions(
        release=triton or release_of(repository),
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        host=host,
        image=image,
        auto_complete=not all_listed(repository),
        arguments=tuple(arguments or ()),
        ready_timeout_s=ready_timeout_s(ready_timeout),
    )
    # A shell script's `serve REPO &` starts with SIGINT ignored; this server ends on it all the same.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with started(engine, repository, options) as (endpoint, unchecked):
            if endpoint.http is None:
                reasons = "\n".join(f"  {text}" for text in unchecked)
                raise ServeError(
                    f"nothing here can be served by it:\n{reasons}", remedy="serve it with --engine docker"
                )
            for text in unchecked:
                sys.stderr.write(f"not served by the embedded server: {text}\n")
            print(f"ready http={endpoint.http} grpc={endpoint.grpc} metrics={endpoint.metrics}", flush=True)
            while True:
                time.sleep(POLL_S)
                endpoint.alive()
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")


def _refuse_taken(arguments: list[str]) -> None:
    """A server that was told another port would be waited for at the one that is known here.

    Raises:
        SpecError: an argument says what build-repo decides.
    """
    for argument in arguments:
        word = argument.partition("=")[0].removeprefix("--")
        if argument.startswith("--") and word in TAKEN:
            raise SpecError(f"--{word} after -- is not for tritonserver: build-repo decides it", remedy=TAKEN[word])
