"""The proto's text as the server's own reader splits it, written so that Python's reader understands the same.

The server reads `config.pbtxt` with the C++ library. Python's reader of the same language takes other white space,
numbers and escapes: it would accept what the server refuses, and the other way round. Read from the library's
`tokenizer.cc` and `text_format.cc`, tried on the server of 24.10.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_SKIPPED: Final = re.compile(r"(?:[ \t\r\v\f\n]|#[^\n]*)*")
_TOKEN: Final = re.compile(
    r"""(?P<word>[a-zA-Z_][a-zA-Z0-9_]*)
      | (?P<number>0[xX][0-9a-fA-F]*|0[0-9]+|(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]*)?[fF]?)
      | (?P<string>"(?:\\[^\n]|[^"\\\n])*"|'(?:\\[^\n]|[^'\\\n])*')
      | (?P<sign>[!-~])""",
    re.VERBOSE,
)
_ESCAPE: Final = re.compile(
    r"\\(?:(?P<octal>[0-7]{1,3})|x(?P<hex>[0-9a-fA-F]{1,2})|u(?P<short>[0-9a-fA-F]{4})"
    r"|U(?P<long>00[01][0-9a-fA-F]{5})|(?P<plain>[abfnrtv\\?'\"]))"
)
_PLAIN: Final = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "?": 63, "\\": 92, "'": 39, '"': 34}
_BLANKS: Final = str.maketrans("\r\t\v\f", "    ")
_SURROGATES: Final = (range(0xD800, 0xDC00), range(0xDC00, 0xE000))


class LexError(ValueError):
    """What the server's reader cannot split; `place` counts characters from the beginning of the text."""

    def __init__(self, reason: str, place: int) -> None:
        super().__init__(reason)
        self.place = place


@dataclass(frozen=True, slots=True)
class Token:
    """One word, number, string or sign, and where it stands."""

    kind: str
    text: str
    place: int


def tokens(text: str) -> list[Token]:
    """Every token in its order.

    Raises:
        LexError: the text cannot be split.
    """
    if "\0" in text:
        raise LexError("Invalid control characters encountered in text.", text.index("\0"))
    found = []
    place = _end(_SKIPPED, text, 0)
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise LexError(_reason(text[place]), place)
        token = Token(str(match.lastgroup), match[0], place)
        _check_number(token, text)
        found.append(token)
        place = _end(_SKIPPED, text, match.end())
    return found


def readable(text: str) -> str:
    """The text with every token at its place, numbers and strings as Python's reader takes them, without comments.

    Raises:
        LexError: the server refuses the text.
    """
    parts: list[str] = []
    place, minus = 0, False
    for token in tokens(text):
        gap = _blank(text[place : token.place])
        place = token.place + len(token.text)
        if token.text == "-":
            parts.append(gap + ("-" if minus else ""))
            minus = True
            continue
        # Python takes neighbours without a gap for one word.
        parts.append(gap or (" " if token.kind in ("word", "number") else ""))
        parts.append(("-" if minus else "") + _written(token))
        minus = False
    return "".join([*parts, "-" if minus else "", _blank(text[place:])])


def _blank(gap: str) -> str:
    """Lines and columns stay."""
    if gap.isspace() or not gap:
        return gap.translate(_BLANKS)
    return re.sub(r"[^\n]", " ", re.sub(r"#[^\n]*", "", gap))


def _end(pattern: re.Pattern[str], text: str, place: int) -> int:
    match = pattern.match(text, place)
    return match.end() if match else place


def _reason(char: str) -> str:
    if char in "\"'":
        return "String literals cannot cross line boundaries."
    return "Invalid control characters encountered in text." if char < " " else f"Expected identifier, got: {char}"


def _check_number(token: Token, text: str) -> None:
    end = token.place + len(token.text)
    lowered = token.text.lower()
    if token.kind != "number":
        return
    if lowered == "0x":
        raise LexError('"0x" must be followed by hex digits.', end)
    if re.fullmatch(r"0[0-9]+", lowered) and not re.fullmatch(r"[0-7]+", lowered):
        raise LexError("Numbers starting with leading zero must be in octal.", end)
    if re.search(r"e[-+]?f?$", lowered) and not lowered.startswith("0x"):
        raise LexError('"e" must be followed by exponent.', end)
    if re.match(r"[a-zA-Z_]", text[end : end + 1]):
        raise LexError("Need space between number and identifier.", end)
    if text[end : end + 1] == ".":
        raise LexError("Hex and octal numbers must be integers.", end)


def _written(token: Token) -> str:
    if token.kind == "string":
        return _quoted(token)
    if token.kind == "number" and re.fullmatch(r"0[xX].+|0[0-7]+", token.text):
        value = int(token.text, 16) if token.text[1] in "xX" else int(token.text, 8)
        # Not decimal: the server takes neither form where it wants a float.
        return str(value) if value <= 1 else hex(value)
    return token.text


def _quoted(token: Token) -> str:
    from google.protobuf import text_encoding

    data, place, body = bytearray(), 0, token.text[1:-1]
    while place < len(body):
        if body[place] != "\\":
            data += body[place].encode("utf-8", "replace")
            place += 1
            continue
        match = _ESCAPE.match(body, place)
        if match is None:
            raise LexError("Invalid escape sequence in string literal.", token.place + 1 + place)
        value, place = _unescaped(body, match)
        data += value
    # Raw bytes that are no UTF-8 load in the server and name nothing that a client could send.
    return f'"{text_encoding.CEscape(data.decode("utf-8", "replace").encode(), False)}"'


def _unescaped(body: str, match: re.Match[str]) -> tuple[bytes, int]:
    """The bytes, and where the text goes on."""
    if match["plain"]:
        return bytes([_PLAIN[match["plain"]]]), match.end()
    if match["octal"] or match["hex"]:
        value = int(match["octal"], 8) if match["octal"] else int(match["hex"], 16)
        return bytes([value % 256]), match.end()
    code, end = int(match["short"] or match["long"], 16), match.end()
    tail = _ESCAPE.match(body, end)
    low = int(tail["short"], 16) if tail and tail["short"] else 0
    if code in _SURROGATES[0] and low in _SURROGATES[1] and tail:
        code, end = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00), tail.end()
    return (chr(code).encode("utf-8", "surrogatepass") if code < 0x110000 else b"\xff"), end  # noqa: PLR2004 - Unicode
