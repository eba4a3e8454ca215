"""Options that several commands share."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from builder import defaults
from builder.errors import SpecError
from builder.servers import READY_S

if TYPE_CHECKING:
    from builder.servers import Endpoint, ServeOptions


Models = Annotated[list[Path], typer.Argument(metavar="SPEC|MODEL", help="A spec file, or model files and folders.")]
Targets = Annotated[str | None, typer.Option(help="BACKEND:PRECISION,… for every model.")]
Triton = Annotated[str | None, typer.Option(help="The Triton release that the repository is for, as YY.MM.")]
Name = Annotated[str | None, typer.Option(help="The model's name; its file name when left out.")]
Inputs = Annotated[list[str], typer.Option("--input", help="NAME:DTYPE:D1,D2,… where the file does not tell.")]
Samples = Annotated[Path | None, typer.Option(help="Real inputs: an .npz with one array per input.")]
Serve = Annotated[str | None, typer.Option(help="best, all, or BACKEND:PRECISION.")]
Tuning = Annotated[
    str | None, typer.Option(metavar="FILE|none", help="What tune wrote; the one beside the spec when left out.")
]
Strict = Annotated[bool, typer.Option("--strict", help="Every target must pass.")]
Defer = Annotated[bool, typer.Option("--defer", help="Record targets that need a GPU for a later build.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


class Engine(StrEnum):
    """What starts a server."""

    embedded = "embedded"
    docker = "docker"


EngineOption = Annotated[Engine, typer.Option("--engine", help="What starts a server.")]
ReadyTimeout = Annotated[
    str | None,
    typer.Option(
        metavar="DURATION",
        help="How long a server may take until it is ready, for example 10m.  [default: 2m; 30s for --url]",
    ),
]
Image = Annotated[str | None, typer.Option(help="With --engine docker: the image; the release's own when left out.")]


def release_of(repository: Path) -> str:
    """The release that a repository of ours was built for, the default for any other."""
    from builder.manifest import read_manifest

    manifest = read_manifest(repository)
    return manifest.triton if manifest else defaults.RELEASE


def refuse_place(file: Path, option: str) -> None:
    """Before the work whose outcome it will hold.

    Raises:
        SpecError: the file cannot be there.
    """
    folder = file.resolve().parent
    if not folder.is_dir():
        raise SpecError(f"{folder}: no such folder", remedy=f"mkdir -p {folder}")
    if file.is_dir() or not os.access(file if file.exists() else folder, os.W_OK):
        why = "is a folder" if file.is_dir() else "cannot be written"
        raise SpecError(f"{file} {why}", remedy=f"give another file with {option}")


HEADER_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")


def parse_headers(headers: list[str]) -> tuple[tuple[str, str], ...]:
    """`Name: value` texts; a remote endpoint writes the names small.

    Raises:
        SpecError: a text has no colon, or the name is none.
    """
    pairs = []
    for place, text in enumerate(headers, 1):
        name, colon, value = text.partition(":")
        if not colon or not HEADER_NAME.fullmatch(name.strip()) or not value.isascii():
            # No part of the text is shown: what was meant as a name may be a secret.
            remedy = "for example --header 'Authorization: Bearer …'; names have letters, digits, '-', '_' and '.'"
            which = "--header" if len(headers) == 1 else f"--header, the {place}. of {len(headers)},"
            raise SpecError(f"{which} is not NAME: VALUE in ASCII", remedy=remedy)
        pairs.append((name.strip(), value.strip()))
    return tuple(pairs)


def ready_timeout_s(text: str | None, usual_s: float = READY_S) -> float:
    """Seconds of `--ready-timeout`.

    Raises:
        SpecError: the text is no duration.
    """
    if text is None:
        return usual_s
    from builder.loadtest import parse_duration

    return parse_duration(text)


@contextmanager
def open_endpoint(
    repository: Path | None,
    urls: list[str],
    headers: list[str],
    ca_file: Path | None,
    engine: Engine = Engine.embedded,
    image: str | None = None,
    ready_timeout: str | None = None,
) -> Iterator[tuple[Endpoint, tuple[str, ...]]]:
    """The server behind the URLs, or one started on the repository, and what it does not serve.

    Raises:
        SpecError: neither is given, or an option of the other one.
    """
    if urls:
        if engine is not Engine.embedded or image:
            raise SpecError(
                "--engine and --image start a server, and --url names one that runs", remedy="leave one out"
            )
        from builder.servers.remote import READY_S as REMOTE_READY_S
        from builder.servers.remote import RemoteOptions, connect

        limit_s = ready_timeout_s(ready_timeout, REMOTE_READY_S)
        options = RemoteOptions(parse_headers(headers), str(ca_file) if ca_file else None, limit_s)
        with connect(urls, options) as endpoint:
            yield endpoint, ()
        return
    if headers or ca_file:
        raise SpecError("--header and --ca-file are for a server behind --url", remedy="--url https://HOST:PORT")
    if repository is None:
        raise SpecError("nothing to connect to", remedy="give a repository, or --url grpc://HOST:PORT")
    if not repository.is_dir():
        raise SpecError(f"{repository}: no such folder", remedy="build-repo build MODEL -o REPO makes a repository")
    from builder.manifest import all_listed
    from builder.servers import ServeOptions

    wanted = ServeOptions(
        release_of(repository),
        image=image,
        auto_complete=not all_listed(repository),
        ready_timeout_s=ready_timeout_s(ready_timeout),
    )
    with started(engine, repository, wanted) as served:
        yield served


@contextmanager
def started(engine: Engine, repository: Path, options: ServeOptions) -> Iterator[tuple[Endpoint, tuple[str, ...]]]:
    """A server of the engine on the repository, and what it does not serve.

    Raises:
        SpecError: an image for an engine that has none.
    """
    from builder.log import set_up_logging
    from builder.servers import server_module
    from builder.verify import serving

    if engine is Engine.embedded:
        if options.image:
            raise SpecError("--image is for --engine docker", remedy="--engine docker --image " + options.image)
        with serving(repository, None, options) as served:
            yield served
        return
    set_up_logging()
    with server_module(engine.value).serve(repository, options) as endpoint:
        yield endpoint, ()
