"""The proto's text into a message, by Python's reader where it agrees with the server's, by hand where it does not."""

from __future__ import annotations

import re
from typing import Any, Final

from builder.triton_config.lexer import LexError, readable, tokens
from builder.triton_config.tree import Field, parse_tree

_ODD_ZERO: Final = re.compile(r"(?<![\w.])0[xX0-9]|-(?:\s|#[^\n]*)*0")
"""Rare, and the only texts that are walked through a second time."""
_NO_DECIMAL: Final = re.compile(r"0[xX].*|0[0-9]+")


def read_into(text: str, message: Any) -> None:  # noqa: ANN401 - a protobuf message
    """Fill the message.

    Raises:
        google.protobuf.text_format.ParseError: with line and column, for what the server's reader refuses.
    """
    from google.protobuf import text_format

    try:
        # Python's parser takes other numbers, escapes and white space than the server's.
        text_format.Parse(readable(text), message)
        if _ODD_ZERO.search(text):
            _check_numbers(parse_tree(text), message.DESCRIPTOR, text)
    except LexError as error:
        line, column = _line_and_column(text, error.place)
        raise text_format.ParseError(str(error), line, column) from None
    except ValueError as error:
        # A number of an enum that fits into no 32 bits.
        number = str(error).rpartition(" ")[2]
        place = _line_and_column(text, text.index(number)) if number in text else (None, None)
        raise text_format.ParseError(f"Integer out of range ({number})", *place) from None


def _check_numbers(block: Field, descriptor: Any, text: str) -> None:  # noqa: ANN401 - of a protobuf message
    """What only the server's reader minds: hexadecimal and octal floats, and a minus before an unsigned zero."""
    for field in block.children or ():
        known = descriptor.fields_by_name[field.name]
        if field.children is not None:
            _check_numbers(field, known.message_type, text)
            continue
        for token in tokens(text[slice(*field.span)]):
            place = field.span[0] + token.place
            if known.cpp_type in (known.CPPTYPE_FLOAT, known.CPPTYPE_DOUBLE) and _NO_DECIMAL.fullmatch(token.text):
                raise LexError(f"Expect a decimal number, got: {token.text}", place)
            if known.cpp_type in (known.CPPTYPE_UINT32, known.CPPTYPE_UINT64) and token.text == "-":
                raise LexError("Expected integer, got: -", place)


def _line_and_column(text: str, place: int) -> tuple[int, int]:
    return text.count("\n", 0, place) + 1, place - text.rfind("\n", 0, place)
