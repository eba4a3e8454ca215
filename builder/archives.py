"""Zip archives, which may be damaged anywhere: what reading one may raise, and what is in it."""

from __future__ import annotations

import lzma
import zipfile
import zlib
from pathlib import Path
from typing import Final

UNREADABLE: Final = (
    zipfile.BadZipFile,
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    MemoryError,
    zlib.error,
    lzma.LZMAError,
)
"""For cut off, changed, encrypted and unknown ways to pack; a size in it may be any number."""


def member_names(path: Path) -> tuple[str, ...]:
    """The members of a zip archive; none where it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return tuple(archive.namelist())
    except UNREADABLE:
        return ()
