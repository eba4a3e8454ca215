from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.findings import Finding
from builder.measurement import BatchProof, ExportReport, OutputError
from builder.records import RecordError, canonical, dump, from_json, read_record, to_json, write_record, write_text
from builder.tensors import Signature, Tensor
from builder.work import Convert, Target, Work


@dataclass(frozen=True, slots=True)
class Leaf:
    number: int
    share: float
    word: str = "x"


@dataclass(frozen=True, slots=True)
class Tree:
    leaves: tuple[Leaf, ...]
    pair: tuple[int, str]
    names: dict[str, int]
    colour: Literal["red", "green"]
    maybe: Leaf | None = None
    dim: int | str = 0
    anything: Any = None


words = st.text(max_size=8)
leaves = st.builds(Leaf, st.integers(), st.floats(allow_nan=False), words)
trees = st.builds(
    Tree,
    st.lists(leaves, max_size=3).map(tuple),
    st.tuples(st.integers(), words),
    st.dictionaries(words, st.integers(), max_size=3),
    st.sampled_from(["red", "green"]),
    st.none() | leaves,
    st.integers() | words,
    st.none() | st.booleans() | st.lists(st.integers(), max_size=2),
)


@given(trees)
def test_every_record_comes_back_equal(tree: Tree) -> None:
    assert from_json(Tree, json.loads(dump(tree))) == tree


@given(trees)
def test_the_same_value_is_always_the_same_text(tree: Tree) -> None:
    again = from_json(Tree, json.loads(dump(tree)))
    assert dump(again) == dump(tree)
    assert canonical(again) == canonical(tree)


@given(st.dictionaries(words, st.integers(), min_size=2, max_size=5))
def test_canonical_does_not_know_the_order_of_keys(names: dict[str, int]) -> None:
    assert canonical(names) == canonical(dict(reversed(names.items())))


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_infinities_come_back(value: float) -> None:
    assert from_json(Leaf, json.loads(dump(Leaf(1, value)))).share == value


def test_nan_comes_back() -> None:
    assert math.isnan(from_json(Leaf, json.loads(dump(Leaf(1, math.nan)))).share)


@pytest.mark.parametrize(
    ("kind", "data", "says"),
    [
        (Leaf, {"number": 1}, "$: missing key 'share'"),
        (Leaf, {"number": 1, "share": 1, "wrod": "y"}, "$: unknown key 'wrod'"),
        (Leaf, {"number": True, "share": 1}, "$.number: expected int"),
        (Leaf, {"number": 1.5, "share": 1}, "$.number: expected int"),
        (Leaf, {"number": 1, "share": "1"}, "$.share: expected float"),
        (Leaf, {"number": 1, "share": True}, "$.share: expected float"),
        (Leaf, [1, 2], "$: expected dict"),
        (Target, {"backend": None, "precision": "fp32"}, "$.backend: expected str"),
        (Finding, {"severity": "fatal", "check": "c", "message": "m"}, "$.severity: expected"),
        (BatchProof, {"proven": True, "refused": [[1, "a", 2]]}, "$.refused[0]: expected list of 2"),
        (BatchProof, {"proven": True, "sizes": "12"}, "$.sizes: expected list"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(kind: type, data: Any, says: str) -> None:
    with pytest.raises(RecordError) as error:
        from_json(kind, data)
    assert says in str(error.value)


def test_a_work_is_read_by_its_kind() -> None:
    work = Convert("e", None, Target("onnxruntime", "fp32"), "26.07", "{}", {"onnx": "1"}, "c")
    assert from_json(Work, to_json(work)) == work


def test_real_records_round_trip(tmp_path: Path) -> None:
    signature = Signature((Tensor("x", "float32", ("batch", 3)),), (Tensor("y", "int64", ()),))
    report = ExportReport(signature, "copy", 18, 9, BatchProof(proven=False, refused=((2, "no"),)), "random, seed 0")
    write_record(tmp_path / "r.json", report)
    assert read_record(ExportReport, tmp_path / "r.json") == report
    error = OutputError("y", max_relative=math.inf)
    assert from_json(OutputError, to_json(error)) == error


def test_a_file_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text("{", encoding="utf-8")
    with pytest.raises(RecordError, match=r"r\.json: not JSON"):
        read_record(Leaf, tmp_path / "r.json")
    (tmp_path / "b.json").write_bytes(b"\xff\xfe")
    with pytest.raises(RecordError, match=r"b\.json: not JSON"):
        read_record(Leaf, tmp_path / "b.json")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old", encoding="utf-8")
    with pytest.raises(UnicodeEncodeError):
        write_text(target, "\ud800")
    assert target.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_changed_field_changes_the_digest_text() -> None:
    before = Leaf(1, 2.0)
    for field in dataclasses.fields(before):
        after = dataclasses.replace(before, **{field.name: getattr(before, field.name) * 3})
        assert canonical(after) != canonical(before)
