from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.digests import digest_of, file_digest
from builder.errors import SpecError
from builder.manifest import Manifest, ModelRecord, RunRecord, ServedRecord
from builder.repository import ModelFolder, carry_over, check_output, stage_model
from builder.tensors import Signature, Tensor
from builder.trees import same_content
from builder.versions import signature_changes, signature_finding, versions_in
from builder.work import Target

TARGET = Target("onnxruntime", "fp32")
LINEAR = Signature((Tensor("x", "float32", ("batch", 4)),), (Tensor("y", "float32", ("batch", 3)),))


def artefact(folder: Path, content: str, *, keep: int = 2) -> ModelFolder:
    made = folder / f"artefact-{content}"
    (made / "data").mkdir(parents=True, exist_ok=True)
    (made / "model.onnx").write_text(content, encoding="utf-8")
    (made / "data" / "w").write_text(content, encoding="utf-8")
    (made / "convert.json").write_text("{}", encoding="utf-8")
    files = {name: file_digest(made / name) for name in ("model.onnx", "data/w")}
    return ModelFolder("m", TARGET, made, files, f"# {content[:1]}\n", True, None, {"labels.txt": b"a\n"}, keep)


class Repository:
    """Builds of one model, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.current, self.record, self.count = folder, folder / "repo0", None, 0

    def build(self, content: str, keep: int = 2) -> ServedRecord:
        self.count += 1
        staged = self.folder / f"repo{self.count}"
        staged.mkdir()
        self.record = stage_model(staged, self.current, artefact(self.folder, content, keep=keep), self.record)
        self.current = staged
        return self.record

    def versions(self) -> dict[int, str]:
        folder = self.current / "m"
        return {n: (folder / str(n) / "model.onnx").read_text(encoding="utf-8") for n in versions_in(folder)}


def test_versions_follow_the_artefact(tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    assert repository.build("one").version == 1
    assert repository.build("one").version == 1
    assert repository.build("two").version == 2
    assert repository.versions() == {1: "one", 2: "two"}
    assert repository.build("three").version == 3
    assert repository.versions() == {2: "two", 3: "three"}
    assert repository.build("two").version == 4, "an older artefact that comes back is a new version"
    assert repository.versions() == {3: "three", 4: "two"}


@pytest.mark.parametrize("keep", [1, 2, 3, 9])
def test_as_many_versions_stay_as_are_kept(tmp_path: Path, keep: int) -> None:
    repository = Repository(tmp_path)
    for number in range(1, 6):
        assert repository.build(f"v{number}", keep).version == number
    assert list(repository.versions()) == list(range(max(1, 6 - keep), 6))


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=8), st.integers(1, 3))
def test_any_history_serves_what_was_built_last(
    tmp_path_factory: pytest.TempPathFactory, history: list[str], keep: int
) -> None:
    repository = Repository(tmp_path_factory.mktemp("history"))
    before = 0
    for place, content in enumerate(history):
        version = repository.build(content, keep).version
        same = place > 0 and history[place - 1] == content
        assert version == (before if same else before + 1)
        assert repository.versions()[version] == content
        assert len(repository.versions()) <= keep
        before = version


def test_a_version_that_a_user_changed_is_not_taken_for_ours(tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    repository.build("one")
    (repository.current / "m" / "1" / "model.onnx").write_text("edited", encoding="utf-8")
    assert repository.build("one").version == 2
    assert repository.versions() == {1: "edited", 2: "one"}


def test_an_edit_of_the_repository_does_not_reach_the_cache(tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    repository.build("one")
    with (repository.current / "m" / "1" / "model.onnx").open("a", encoding="utf-8") as stream:
        stream.write("edited")
    assert (tmp_path / "artefact-one" / "model.onnx").read_text(encoding="utf-8") == "one"


def test_the_record_names_every_file_but_older_versions(tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    repository.build("one")
    record = repository.build("two")
    folder = repository.current / "m"
    assert set(record.files) == {"config.pbtxt", "labels.txt", "2/model.onnx", "2/data/w"}
    assert all(file_digest(folder / name) == digest for name, digest in record.files.items())
    assert record.artefact == digest_of({name: record.files[f"2/{name}"] for name in ("model.onnx", "data/w")})


def manifest(*folders: str, model: str = "ours") -> Manifest:
    served = tuple(ServedRecord(folder, TARGET, 1, "a", batching=True, files={}) for folder in folders)
    record = ModelRecord(model, LINEAR, "onnx", "d", "copy", "random", "k", {}, (), served)
    return Manifest(1, "0", "26.07", "s", {model: record}, RunRecord("", {}))


def test_an_empty_or_new_folder_is_taken(tmp_path: Path) -> None:
    check_output(tmp_path / "new", None, {"m": "m"})
    check_output(tmp_path, None, {"m": "m"})
    (tmp_path / ".gitignore").write_text("*\n", encoding="utf-8")
    check_output(tmp_path, None, {"m": "m"})


def test_somebody_elses_repository_is_taken_for_other_names(tmp_path: Path) -> None:
    (tmp_path / "theirs" / "1").mkdir(parents=True)
    (tmp_path / "README.md").write_text("", encoding="utf-8")
    check_output(tmp_path, None, {"m": "m"})
    with pytest.raises(SpecError, match="theirs exists and was not made by build-repo"):
        check_output(tmp_path, None, {"theirs": "theirs"})


def test_a_strangers_files_are_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(SpecError, match="is a file, not a folder"):
        check_output(tmp_path / "file", None, {"m": "m"})
    with pytest.raises(SpecError, match="is not a model repository: it holds the file 'file'"):
        check_output(tmp_path, None, {"m": "m"})
    (tmp_path / "file").unlink()
    (tmp_path / "photos").mkdir()
    with pytest.raises(SpecError, match="it holds the folder 'photos', which is no model"):
        check_output(tmp_path, None, {"m": "m"})


def test_a_strangers_model_or_dangling_link_stands_beside_ours(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("theirs", "link"):
        with pytest.raises(SpecError, match="was not made by build-repo"):
            check_output(tmp_path, manifest("ours"), {name: name})
    check_output(tmp_path, manifest("ours"), {"ours": "ours"})


def test_a_folder_of_a_model_that_stays_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "a_openvino_fp32").mkdir()
    before = manifest("a", "a_openvino_fp32", model="a")
    with pytest.raises(SpecError, match="would replace 'a_openvino_fp32', which the model 'a'"):
        check_output(tmp_path, before, {"a_openvino_fp32": "a_openvino_fp32"})
    check_output(tmp_path, before, {"a_openvino_fp32": "a_openvino_fp32", "a": "a"})


def test_what_is_unknown_is_carried_over(tmp_path: Path) -> None:
    current, staged = tmp_path / "current", tmp_path / "staged"
    staged.mkdir()
    (current / "theirs" / "1").mkdir(parents=True)
    (current / "theirs" / "1" / "model.onnx").write_text("x", encoding="utf-8")
    (current / "gone").mkdir()
    (current / "ours").mkdir()
    (staged / "ours").mkdir()
    (staged / "ours" / "new").write_text("new", encoding="utf-8")
    (current / ".gitignore").write_text("*", encoding="utf-8")
    (current / "build-repo.json").write_text("{}", encoding="utf-8")
    (current / "link").symlink_to("theirs")
    (current / "broken").symlink_to("nowhere")
    os.mkfifo(current / "pipe")
    carry_over(staged, current, drop=frozenset({"gone"}))
    assert sorted(item.name for item in staged.iterdir()) == [".gitignore", "broken", "link", "ours", "pipe", "theirs"]
    assert (staged / "theirs" / "1" / "model.onnx").samefile(current / "theirs" / "1" / "model.onnx")
    assert os.readlink(staged / "link") == "theirs"
    assert (staged / "ours" / "new").read_text(encoding="utf-8") == "new"


def test_equal_trees_are_the_same_whatever_their_links(tmp_path: Path) -> None:
    left, right = tmp_path / "left", tmp_path / "right"
    for folder in (left, right):
        (folder / "m").mkdir(parents=True)
        (folder / "m" / "config.pbtxt").write_text("x", encoding="utf-8")
        (folder / "link").symlink_to("m")
    (right / "build-repo.json").write_text("{}", encoding="utf-8")
    assert same_content(left, right)
    os.link(right / "m" / "config.pbtxt", tmp_path / "backup")
    assert same_content(left, right), "a hard link kept elsewhere changes nothing"
    (right / "m" / "config.pbtxt").write_text("y", encoding="utf-8")
    assert not same_content(left, right)
    (right / "m" / "config.pbtxt").write_text("x", encoding="utf-8")
    (right / "more").mkdir()
    assert not same_content(left, right)


def signature(*tensors: Tensor) -> Signature:
    return Signature(tensors[:1], tensors[1:])


X, Y = LINEAR.tensors


@pytest.mark.parametrize(
    ("new", "lines"),
    [
        (signature(Tensor("x", "float32", ("n", 4)), Y), []),
        (
            signature(Tensor("x", "float16", ("batch", 4)), Y),
            ["- input x float32[batch,4]", "+ input x float16[batch,4]"],
        ),
        (signature(Tensor("x", "float32", (1, 4)), Y), ["- input x float32[batch,4]", "+ input x float32[1,4]"]),
        (
            signature(Tensor("z", "float32", ("batch", 4)), Y),
            ["- input x float32[batch,4]", "+ input z float32[batch,4]"],
        ),
        (signature(X, Y, Tensor("w", "int64", ())), ["+ output w int64[]"]),
        (signature(X), ["- output y float32[batch,3]"]),
    ],
)
def test_what_a_client_would_notice_is_said(new: Signature, lines: list[str]) -> None:
    assert signature_changes(LINEAR, new) == lines
    found = signature_finding("m", LINEAR, new)
    assert (found is None) == (not lines)
    if found:
        assert found.severity == "error"
        assert all(line in found.message for line in lines)
        assert "m_v2" in found.remedy


def test_the_order_of_outputs_is_part_of_the_signature() -> None:
    first = signature(X, Y, Tensor("w", "int64", ()))
    second = signature(X, Tensor("w", "int64", ()), Y)
    assert signature_changes(first, second) == ["order: ['x', 'y', 'w'] → ['x', 'w', 'y']"]
