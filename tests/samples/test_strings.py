"""Strings of any bytes on disk: in a repository's samples and in what the load test sends."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import ROOT
from hypothesis import given
from hypothesis import strategies as st

from builder.samples import Request, load_requests, save_requests, storable
from builder.samples.file import read_samples
from builder.samples.strings import array_bytes, pack, to_bytes, unpack
from builder.tensors import Signature, Tensor

TEXT = Signature((Tensor("text", "string", ("batch",)),), (Tensor("back", "string", ("batch", 1)),))


def objects(*items: object) -> np.ndarray:
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


@given(st.lists(st.binary(max_size=20) | st.text(st.characters(exclude_categories=["Cs"]), max_size=10), max_size=6))
def test_any_bytes_survive(items: list[bytes | str]) -> None:
    content, lengths = pack(objects(*items))
    assert (content.dtype, lengths.dtype) == (np.uint8, np.int64)
    found = unpack(content, lengths)
    assert [to_bytes(item) for item in found.tolist()] == [to_bytes(item) for item in items]
    assert array_bytes(found) == sum(4 + len(to_bytes(item)) for item in items)


def test_requests_keep_them_and_old_files_are_still_read(tmp_path: Path) -> None:
    photo = b"\xff\xd8\x00\x01\x00"
    request = Request({"text": objects(photo, "naïve", "")}, {"back": objects(b"a", b"\0", b"c").reshape(3, 1)}, rows=3)
    save_requests(tmp_path / "new.npz", TEXT, [request])
    (found,) = load_requests(tmp_path / "new.npz", TEXT)
    assert found.inputs["text"].tolist() == [photo, "naïve", ""]
    assert found.outputs["back"].tolist() == [["a"], ["\0"], ["c"]]
    old = {"rows": np.array([2]), "0.in.0": np.array(["a", "b"]), "0.out.0": np.array([["c"], ["d"]])}
    np.savez(tmp_path / "old.npz", **old)
    (found,) = load_requests(tmp_path / "old.npz", TEXT)
    assert found.inputs["text"].tolist() == ["a", "b"]


def test_the_load_test_reads_what_is_written_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "loadtests"), *sys.path])
    from stored import fitted, unpacked

    members = storable("0/text", objects(b"\xff\0", "naïve")) | {"rows": np.array([2])}
    found = unpacked(members)
    assert sorted(found) == ["0/text", "rows"]
    assert found["0/text"].tolist() == [b"\xff\0", "naïve".encode()]
    group = {"text": found["0/text"]}
    assert fitted(group, {"name": "text", "shape": ["-1", "1"]}).shape == (2, 1)
    assert fitted(group, {"name": "text", "shape": ["-1"]}).shape == (2,)


def test_a_folder_is_rows_in_the_order_of_names(tmp_path: Path) -> None:
    for name, content in (("b", b"\xff\0"), ("a", b"1"), (".hidden", b"2")):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder").mkdir()
    assert read_samples(tmp_path, None, TEXT.inputs).arrays["text"].tolist() == [b"1", b"\xff\0"]
    column = (Tensor("text", "string", ("batch", 1)),)
    assert read_samples(tmp_path, None, column).arrays["text"].shape == (2, 1)
    fixed = (Tensor("text", "string", (1,)),)
    assert read_samples(tmp_path, None, fixed).arrays["text"].shape == (2, 1)
