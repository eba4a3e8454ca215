"""What a pickle would import, read from its opcodes: nothing is unpickled."""

from __future__ import annotations

import bz2
import io
import lzma
import pickletools
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Final

HEAD: Final = 1 << 20
"""So many bytes of a file are enough to tell what it is."""
MOST_OPCODES: Final = 2_000_000
DECOMPRESSORS: Final[tuple[tuple[bytes, Callable[[], Any]], ...]] = (
    (b"\x1f\x8b", lambda: zlib.decompressobj(wbits=31)),
    (b"BZh", bz2.BZ2Decompressor),
    (b"\xfd7zXZ", lzma.LZMADecompressor),
    (b"\x5d\x00\x00", lzma.LZMADecompressor),
    (b"\x78\x01", zlib.decompressobj),
    (b"\x78\x5e", zlib.decompressobj),
    (b"\x78\x9c", zlib.decompressobj),
    (b"\x78\xda", zlib.decompressobj),
)
"""How compressed pickles (joblib, gzip) begin."""


def pickle_head(path: Path) -> bytes:
    """The beginning of a pickle file, decompressed; empty where it is none."""
    with path.open("rb") as stream:
        content = _plain(stream.read(HEAD))
    is_pickle = content[:1] == b"\x80" and len(content) > 2 and content[1] in range(2, 6)  # noqa: PLR2004 - protocols
    return content if is_pickle else b""


def pickle_content(path: Path) -> bytes:
    """The whole file, decompressed."""
    return _plain(path.read_bytes())


def _plain(content: bytes) -> bytes:
    for magic, make in DECOMPRESSORS:
        if content.startswith(magic):
            try:
                return bytes(make().decompress(content))
            except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError):
                return b""
    return content


def imported_names(content: bytes | IO[bytes]) -> tuple[str, ...]:
    """`module.name` of everything a pickle would import, in order, as far as its opcodes can be followed.

    Raises:
        ValueError: not a pickle, from the first opcode on.
    """
    stream = io.BytesIO(content) if isinstance(content, bytes) else content
    scan = _Scan()
    try:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            scan.take(opcode.name, argument)
            if number > MOST_OPCODES:
                break
    except (ValueError, IndexError, UnicodeDecodeError):
        # joblib writes raw arrays between the opcodes: what came before them stands.
        if not scan.opcodes:
            raise
    return tuple(dict.fromkeys(name for name in scan.names if re.fullmatch(r"[A-Za-z_][\w.]*", name)))


class _Scan:
    """Follows the texts on a pickle's stack and in its memo, which name what STACK_GLOBAL imports."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.opcodes = 0
        self._texts: list[str | None] = []
        self._memo: dict[int, str | None] = {}
        self._last: str | None = None

    def take(self, opcode: str, argument: Any) -> None:  # noqa: ANN401 - what pickletools gives
        """One opcode."""
        self.opcodes += 1
        if opcode == "MEMOIZE":
            self._memo[len(self._memo)] = self._last
        elif opcode in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[int(argument)] = self._last
        else:
            self._last = self._pushed(opcode, argument)

    def _pushed(self, opcode: str, argument: Any) -> str | None:  # noqa: ANN401
        text = None
        if opcode in ("GLOBAL", "INST"):
            self.names.append(str(argument).replace(" ", "."))
        elif opcode == "STACK_GLOBAL":
            parts = [part for part in self._texts[-2:] if part]
            if len(parts) == 2:  # noqa: PLR2004 - module and name
                self.names.append(".".join(parts))
        elif opcode in ("GET", "BINGET", "LONG_BINGET"):
            text = self._memo.get(int(argument))
        elif isinstance(argument, str):
            text = argument
        if text is not None:
            self._texts = [*self._texts[-1:], text]
        return text
