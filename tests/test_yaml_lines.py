from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from builder.yaml_lines import YamlError, line_of, parse_yaml, path_text

TEXT = """triton: "26.07"
models:
  - name: a
    source:
      path: a.onnx
  - name: b
    inputs:
      - {name: x, shape: [1, batch]}
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("triton",), 1),
        (("models",), 2),
        (("models", 0, "name"), 3),
        (("models", 0, "source", "path"), 5),
        (("models", 1), 6),
        (("models", 1, "inputs", 0, "shape", 1), 8),
        (("models", 1, "targets", 3), 6),
        (("nowhere",), 1),
    ],
)
def test_every_path_has_its_line_or_that_of_what_is_around_it(path: tuple[str | int, ...], line: int) -> None:
    _, lines = parse_yaml(TEXT)
    assert line_of(path, lines) == line


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: 'a' is written twice"),
        ("a:\n  x: 1\n  x: 2\n", "line 3: 'x' is written twice"),
        ("a: [1,\nb: 2\n", "line 3"),
        ("a: 1\n\tb: 2\n", "line 2"),
        ("? [1, 2]\n: 3\n", "line 1: [1, 2] is no plain key"),
        ("a: !!python/object/apply:os.system [true]\n", "line 1: could not determine a constructor"),
        ("a: &a [*a]\n", "an alias holds itself"),
        ("b: 1\na: 2026-13-45\n", "line 2: month must be in 1..12"),
        ("a: \0\n", "line 1"),
        ("- " * 5000, "line 1: maximum recursion depth"),
    ],
)
def test_what_is_no_usable_yaml_is_refused_with_a_line(text: str, says: str) -> None:
    with pytest.raises(YamlError) as error:
        parse_yaml(text)
    assert says in str(error.value)
    assert str(error.value).startswith("line ")


def test_anchors_and_merge_keys_are_yaml() -> None:
    data, _ = parse_yaml("a: &base {x: 1, y: 2}\nb: {<<: *base, y: 3}\n")
    assert data == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}}


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abcxyz", min_size=1, max_size=3), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(plain)
def test_data_is_what_pyyaml_reads_and_every_path_has_a_line(data: Any) -> None:
    text = yaml.safe_dump(data)
    read, lines = parse_yaml(text)
    assert read == data
    count = text.count("\n") + 1
    assert all(1 <= line <= count for line in lines.values())


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_yaml(text)
    except YamlError as error:
        assert str(error).startswith("line ")


def test_paths_read_as_in_python() -> None:
    assert path_text(("models", 0, "inputs", 1, "dtype")) == "models[0].inputs[1].dtype"
    assert path_text(()) == "the file"
