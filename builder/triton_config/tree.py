"""Where every field of a `config.pbtxt` stands in its text, so that one value is changed and all else stays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from builder.triton_config.lexer import LexError, Token, tokens

_CLOSERS: Final = {"{": "}", "<": ">"}


@dataclass(frozen=True, slots=True)
class Field:
    """One field: its name's place, its value's span, and what lies in it where it is a block.

    An item of a list is a field of its own; `span` is then the item's.
    """

    name: str
    place: int
    span: tuple[int, int]
    whole: tuple[int, int]
    children: tuple[Field, ...] | None = None

    def fields(self, name: str) -> tuple[Field, ...]:
        """The fields of that name directly below."""
        return tuple(child for child in self.children or () if child.name == name)

    def field(self, name: str) -> Field | None:
        """The first of them."""
        return next(iter(self.fields(name)), None)


Edit = tuple[int, int, str]
"""From, to, and what stands there then."""


def parse_tree(text: str) -> Field:
    """The whole text as one block.

    Raises:
        LexError: it cannot be split, or its brackets do not match.
    """
    found = tokens(text)
    reader = _Reader(found, text)
    children = tuple(reader.fields(""))
    return Field("", 0, (0, len(text)), (0, len(text)), children)


def apply(text: str, edits: Sequence[Edit]) -> str:
    """The text after all edits, none of which overlap."""
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text


class _Reader:
    """Walks over the tokens once."""

    def __init__(self, found: Sequence[Token], text: str) -> None:
        self.tokens, self.text, self.at = found, text, 0

    def fields(self, closer: str) -> Iterator[Field]:
        while self.at < len(self.tokens) and self.tokens[self.at].text != closer:
            yield from self._field()
        if closer:
            self._expect(closer)

    def _field(self) -> Iterator[Field]:
        name = self._next()
        if name.kind != "word":
            raise LexError(f"Expected identifier, got: {name.text}", name.place)
        self._skip(":")
        first = self._peek()
        if first == "[":
            items = list(self._list(name))
            end = self._end()
            yield from (Field(item.name, name.place, item.span, (name.place, end), item.children) for item in items)
            if not items or items[0].children is None:
                # A list of scalars is one value.
                return
        else:
            item = self._value(name)
            yield Field(name.text, name.place, item.span, (name.place, item.span[1]), item.children)
        if not self._skip(","):
            self._skip(";")

    def _list(self, name: Token) -> Iterator[Field]:
        start = self._next().place
        if self._peek() not in _CLOSERS:
            while self._next().text != "]":
                pass
            yield Field(name.text, name.place, (start, self._end()), (start, self._end()))
            self._skip(",") or self._skip(";")
            return
        while True:
            yield self._value(name)
            if not self._skip(","):
                self._expect("]")
                return

    def _value(self, name: Token) -> Field:
        first = self._next()
        if first.text in _CLOSERS:
            children = tuple(self.fields(_CLOSERS[first.text]))
            return Field(name.text, name.place, (first.place, self._end()), (name.place, self._end()), children)
        if first.text == "-":
            self._next()
        while first.kind == "string" and self.at < len(self.tokens) and self.tokens[self.at].kind == "string":
            self._next()
        return Field(name.text, name.place, (first.place, self._end()), (name.place, self._end()))

    def _peek(self) -> str:
        return self.tokens[self.at].text if self.at < len(self.tokens) else ""

    def _next(self) -> Token:
        if self.at >= len(self.tokens):
            raise LexError("the text ends too early", len(self.text))
        self.at += 1
        return self.tokens[self.at - 1]

    def _skip(self, sign: str) -> bool:
        if self._peek() != sign:
            return False
        self.at += 1
        return True

    def _expect(self, sign: str) -> None:
        token = self._next()
        if token.text != sign:
            raise LexError(f'Expected "{sign}", found "{token.text}".', token.place)

    def _end(self) -> int:
        last = self.tokens[self.at - 1]
        return last.place + len(last.text)
