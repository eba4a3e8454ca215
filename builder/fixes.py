"""What has exactly one right answer in a `config.pbtxt`, as edits of its text: nothing else of the text changes.

Each rule of `RULES` looks at one model and gives edits. Where two answers are possible there is none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from builder.errors import SpecError
from builder.native_rules import TRITON, batch_size, sizes
from builder.ports import inspect_ports, ports_json
from builder.scan import FILENAMES, ModelDir, backend_of, joined, model_file, served_versions
from builder.triton_config.lexer import LexError, tokens
from builder.triton_config.tree import Edit, Field, parse_tree

Json = dict[str, Any]

READABLE: Final = ("onnxruntime", "openvino")
SUFFIXES: Final = {"onnxruntime": ".onnx", "openvino": ".xml", "tensorrt": ".plan", "pytorch": ".pt", "python": ".py"}


@dataclass(frozen=True, slots=True)
class Subject:
    """A model, its text as a tree, and what its newest served file declares; no ports where that is not known."""

    model: ModelDir
    tree: Field
    ports: Json


_COMMENT: Final = re.compile(r""""(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|#[^\n]*|(//)""")
"""Strings and comments are passed over, and what is left of `//` is one of other languages."""


def text_edits(text: str) -> list[Edit]:
    """What makes a text readable that the server cannot read: commas of lists, comments of other languages, a BOM."""
    if text.startswith("\ufeff"):
        return [(0, 1, "")]
    comment = next((found for found in _COMMENT.finditer(text) if found.group(1)), None)
    if comment:
        return [(comment.start(1), comment.end(1), "#")]
    try:
        return _commas(text)
    except LexError:
        return []


def _commas(text: str) -> list[Edit]:
    edits: list[Edit] = []
    opened: list[str] = []
    found = tokens(text)
    for token, after in zip(found, [*found[1:], None], strict=True):
        if token.text in ("[", "{", "<"):
            opened.append(token.text)
        elif token.text in ("]", "}", ">") and opened:
            opened.pop()
        inside = bool(opened) and opened[-1] == "["
        if after and inside and token.text == "," and after.text == "]":
            edits.append((token.place, token.place + 1, ""))
        values = token.kind == after.kind == "number" if after else False
        if after and inside and ((token.text in "}>" and after.text in "{<") or values):
            end = token.place + len(token.text)
            edits.append((end, end, ","))
    return edits


def model_edits(model: ModelDir) -> list[Edit]:
    """The edits of the first rule that has any; later rules see its result."""
    try:
        subject = Subject(model, parse_tree(model.text or ""), _ports(model))
    except LexError:
        return []
    for rule in RULES:
        edits = list(rule(subject))
        if edits:
            return edits
    return []


def _ports(model: ModelDir) -> Json:
    """Of one file only: where versions differ there is no one right answer."""
    tables: list[Json] = []
    for version in served_versions(model) if backend_of(model) in READABLE else ():
        path = model_file(model, version)
        try:
            tables.append(ports_json(inspect_ports(path)) if path else {})
        except SpecError:
            return {}
    return tables[0] if tables and all(table == tables[0] for table in tables) else {}


def _quoted(text: str) -> str:
    from google.protobuf import text_encoding

    return f'"{text_encoding.CEscape(text.encode(), False)}"'


def _set(block: Field, name: str, value: str) -> Iterator[Edit]:
    """Give a field its value, or write it at the end of its block."""
    fields = block.fields(name)
    if fields:
        yield (*fields[0].span, value)
        for more in fields[1:]:
            yield (*more.whole, "")
    else:
        end = block.span[1] - 1
        yield (end, end, f" {name}: {value} ")


def _name(subject: Subject) -> Iterator[Edit]:
    field = subject.tree.field("name")
    if field and (subject.model.config or {}).get("name") not in (None, "", subject.model.name):
        yield (*field.span, _quoted(subject.model.name))


def _backend(subject: Subject) -> Iterator[Edit]:
    """A backend written as a platform, and an ensemble that does not say so."""
    config, platform = subject.model.config or {}, subject.tree.field("platform")
    word = config.get("platform", "")
    if platform and not config.get("backend") and word in FILENAMES:
        start = platform.whole[0]
        yield (start, start + len("platform"), "backend")
    if "ensemble_scheduling" in config and not config.get("backend") and not word:
        yield (0, 0, f'platform: "ensemble"{_newline(subject)}')


def _newline(subject: Subject) -> str:
    return "\r\n" if "\r\n" in (subject.model.text or "") else "\n"


def _filename(subject: Subject) -> Iterator[Edit]:
    """The one file of the backend's kind, where it has another name."""
    model, suffix = subject.model, SUFFIXES.get(backend_of(subject.model))
    served = served_versions(model)
    paths = [path for version in served if (path := model_file(model, version))]
    if not suffix or not paths or any(path.exists() for path in paths):
        return
    names = [sorted(item.name for item in path.parent.glob(f"*{suffix}") if item.is_file()) for path in paths]
    if any(len(found) != 1 for found in names) or len({found[0] for found in names}) != 1:
        return
    field = subject.tree.field("default_model_filename")
    if names[0][0] == FILENAMES[backend_of(model)]:
        if field:
            yield (*field.whole, "")
    elif field:
        yield (*field.span, _quoted(names[0][0]))
    else:
        yield (0, 0, f"default_model_filename: {_quoted(names[0][0])}{_newline(subject)}")


def _labels(subject: Subject) -> Iterator[Edit]:
    """A label file of another spelling, or the only one there is."""
    folder = subject.model.path
    there = sorted(item.name for item in folder.iterdir() if item.is_file())
    for output in subject.tree.fields("output"):
        field = output.field("label_filename")
        name = _text(subject, field)
        if field is None or not name or joined(folder, name).is_file():
            continue
        same = [item for item in there if item.lower() == Path(name).name.lower()]
        lists = [item for item in there if "label" in item.lower() and item.endswith(".txt")]
        found = same or lists
        if len(found) == 1:
            yield (*field.span, _quoted(found[0]))


def _text(subject: Subject, field: Field | None) -> str:
    """A string's value, where it is one plain literal."""
    raw = (subject.model.text or "")[slice(*field.span)] if field else ""
    return raw[1:-1] if re.fullmatch(r""""[^"\\]*"|'[^'\\]*'""", raw) else ""


def _names(subject: Subject) -> Iterator[Edit]:
    """The one tensor that the file does not have for the one that the configuration lacks."""
    config = subject.model.config or {}
    if "sequence_batching" in config or config.get("batch_input"):
        return
    for side in ("input", "output"):
        ours = {str(io.get("name", "")): io for io in config.get(side, ())}
        theirs = {port["name"]: port for port in subject.ports.get(f"{side}s", ())}
        extra, lacking = sorted(set(ours) - set(theirs)), sorted(set(theirs) - set(ours))
        if len(extra) == len(lacking) == 1 and _same(ours[extra[0]], theirs[lacking[0]], config):
            for block in subject.tree.fields(side):
                field = block.field("name")
                if field and _text(subject, field) == extra[0]:
                    yield (*field.span, _quoted(lacking[0]))


def _same(io: Json, port: Json, config: Json) -> bool:
    """Of one type and one number of dims."""
    lead, shape = (1 if batch_size(config) > 0 else 0), port["shape"]
    fits = shape is not None and len(shape) == len(io.get("dims", ())) + lead
    return bool(io.get("data_type") == f"TYPE_{TRITON.get(port['dtype'])}" and fits)


def _types(subject: Subject) -> Iterator[Edit]:
    for block, _, port in _known(subject):
        wanted = f"TYPE_{TRITON.get(port['dtype'], '')}"
        field = block.field("data_type")
        given = (subject.model.text or "")[slice(*field.span)] if field else ""
        if wanted not in ("TYPE_", given) and not given.isdecimal():
            yield from _set(block, "data_type", wanted)


def _sizes(subject: Subject) -> Iterator[Edit]:
    for block, io, port in _known(subject):
        wanted = _dims(io, port, subject.model.config or {})
        if wanted:
            yield from _set(block, "dims", f"[ {', '.join(map(str, wanted))} ]")


def _known(subject: Subject) -> Iterator[tuple[Field, Json, Json]]:
    """(block, tensor, what the file says of it); tensors that are reshaped or ragged are left alone."""
    config = subject.model.config or {}
    for side in ("input", "output"):
        theirs = {port["name"]: port for port in subject.ports.get(f"{side}s", ())}
        for block, io in zip(subject.tree.fields(side), config.get(side, ()), strict=False):
            port = theirs.get(str(io.get("name", "")))
            if port and "reshape" not in io and not io.get("allow_ragged_batch") and not io.get("optional"):
                yield block, {**io, "side": side}, port


def _dims(io: Json, port: Mapping[str, Any], config: Json) -> list[int] | None:
    """The sizes that the file demands; None where those given are right, or where there is more than one answer."""
    shape = port["shape"]
    if not shape:
        return None
    lead = 1 if batch_size(config) > 0 else 0
    wanted, given = list(shape[lead:]), sizes(io.get("dims"))
    if batch_size(config) < 0 or (lead and shape[0] != -1):
        return None
    exact = io.get("side") == "output"
    fits = len(given) == len(wanted) and all(
        ours == theirs or (theirs == -1 and not exact) for ours, theirs in zip(given, wanted, strict=True)
    )
    return None if fits or not wanted else wanted


RULES: Final[tuple[Callable[[Subject], Iterator[Edit]], ...]] = (
    _name, _backend, _filename, _labels, _names, _types, _sizes,
)  # fmt: skip
