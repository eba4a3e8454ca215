"""What each Triton container release bundles: `releases.json` and its reader.

The table was read from the `build.py` and the compatibility pages of the server's branches; a TensorRT version that was
not seen in an image has `tensorrt_verified` false. The largest ONNX IR and opset were found by loading models.
Older releases, which a repository may come from, hold what their release notes and issues tell; the rest is null.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from builder.errors import SpecError
from builder.records import from_json

DATA_FILE: Final = Path(__file__).resolve().parent / "releases.json"
FIRST: Final = "18.11"
"""The first container of the server, under its first name."""
EMBEDDED_SERVER: Final = "24.10"
"""The release whose server the embedded runtime carries, whatever the target release is."""


@dataclass(frozen=True, slots=True)
class Release:
    """One container release, `YY.MM`."""

    release: str
    server: str
    onnxruntime: str
    openvino: str
    tensorrt: str
    tensorrt_verified: bool
    cuda: str
    python: str
    max_ir: int
    max_opset: int


@dataclass(frozen=True, slots=True)
class NewField:
    """A field of the model configuration, `Message.field`, and the first release that knows it."""

    field: str
    since: str


@dataclass(frozen=True, slots=True)
class Origin:
    """A release that a repository comes from; None is not known."""

    release: str
    server: str | None = None
    onnxruntime: str | None = None
    openvino: str | None = None
    tensorrt: str | None = None
    cuda: str | None = None
    python: str | None = None


@dataclass(frozen=True, slots=True)
class _Table:
    releases: tuple[Release, ...]
    older: tuple[Origin, ...]
    fields: tuple[NewField, ...]


@cache
def _table() -> _Table:
    return from_json(_Table, json.loads(DATA_FILE.read_text(encoding="utf-8")), DATA_FILE.name)


def known_releases() -> tuple[Release, ...]:
    """Every release of the table, oldest first."""
    return _table().releases


def new_fields() -> tuple[NewField, ...]:
    """Fields that some release of the table does not know."""
    return _table().fields


def get_release(name: str) -> Release:
    """The release `YY.MM`.

    Raises:
        SpecError: it is not in the table; names the nearest known one and the newest.
    """
    for release in known_releases():
        if release.release == name:
            return release
    newest = known_releases()[-1].release
    near = _nearest(name)
    hint = f"the nearest known is {near}, the newest {newest}" if near and near != newest else f"the newest is {newest}"
    msg = f"unknown Triton release {name!r}: expected YY.MM; {hint}"
    raise SpecError(msg, remedy=f'write triton: "{near or newest}" in the spec, or --triton {near or newest}')


def get_origin(name: str) -> Origin:
    """Any release there was, with what is known of it.

    Raises:
        SpecError: it is no `YY.MM`, or newer than every known one.
    """
    for release in known_releases():
        if release.release == name:
            proven = release.tensorrt if release.tensorrt_verified else None
            return Origin(
                name, release.server, release.onnxruntime, release.openvino, proven, release.cuda, release.python
            )
    oldest = known_releases()[0].release
    if (FIRST <= name < oldest) and re.fullmatch(r"\d\d\.(0[1-9]|1[0-2])", name):
        return next((origin for origin in _table().older if origin.release == name), Origin(name))
    get_release(name)
    raise AssertionError(name)


def fields_unknown(release: str) -> tuple[str, ...]:
    """Fields of the newest model configuration that the release's server refuses, as `Message.field`."""
    wanted = _months(get_release(release).release)
    return tuple(field.field for field in new_fields() if (_months(field.since) or 0) > (wanted or 0))


def _months(name: str) -> int | None:
    """`26.07` as a number of months; None where it is no release name."""
    year, dot, month = str(name).partition(".")
    if not (dot and year.isdigit() and month.isdigit()):
        return None
    return int(year) * 12 + int(month)


def _nearest(name: str) -> str | None:
    wanted = _months(name)
    if wanted is None:
        return None
    return min(known_releases(), key=lambda release: abs((_months(release.release) or 0) - wanted)).release
