"""YAML with the line of every key, and duplicate keys refused (PyYAML would keep the last one in silence)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import yaml

Path = tuple[str | int, ...]
Lines = Mapping[Path, int]

_MERGE_TAG: Final = "tag:yaml.org,2002:merge"


class YamlError(ValueError):
    """The text is no usable YAML; the message starts with the line."""


class _Loader(yaml.SafeLoader):
    """Safe YAML, with duplicate keys refused."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: ANN401
        try:
            return super().construct_object(node, deep=deep)
        except YamlError:
            raise
        except ValueError as error:
            msg = f"line {node.start_mark.line + 1}: {error}"
            raise YamlError(msg) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == _MERGE_TAG:
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, (str, int, float, bool)) or key in seen:
                what = "is written twice" if isinstance(key, (str, int, float, bool)) else "is no plain key"
                msg = f"line {key_node.start_mark.line + 1}: {key!r} {what}"
                raise YamlError(msg)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def parse_yaml(text: str) -> tuple[Any, Lines]:
    """The data and, for every path in it, the line (from 1) on which it stands.

    Raises:
        YamlError: a syntax error or a duplicate key.
    """
    lines: dict[Path, int] = {}
    try:
        node = yaml.compose(text, Loader=_Loader)
        if node is not None:
            _collect(node, (), lines, [])
        data = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        said = error.problem or error.context or "no YAML"
        msg = f"line {line}: {said}{' (indent with spaces, not tabs)' if repr(chr(9)) in said else ''}"
        raise YamlError(msg) from error
    except (yaml.YAMLError, RecursionError) as error:
        msg = f"line 1: {str(error).splitlines()[0]}"
        raise YamlError(msg) from error
    return data, lines


def _collect(node: yaml.Node, path: Path, lines: dict[Path, int], around: list[yaml.Node]) -> None:
    if any(node is part for part in around):
        msg = f"line {node.start_mark.line + 1}: an alias holds itself"
        raise YamlError(msg)
    inside = [*around, node]
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                lines[(*path, key.value)] = key.start_mark.line + 1
                _collect(value, (*path, key.value), lines, inside)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _collect(item, (*path, index), lines, inside)


def line_of(path: Sequence[str | int], lines: Lines) -> int | None:
    """The line of the path, or of the nearest part around it that stands in the file."""
    parts = tuple(path)
    while parts and parts not in lines:
        parts = parts[:-1]
    return lines.get(parts)


def path_text(path: Sequence[str | int]) -> str:
    """`models[0].inputs[1].dtype`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".") or "the file"
