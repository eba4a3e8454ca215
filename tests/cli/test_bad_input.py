"""What a user can get wrong: each with its message and exit code, and the repository as it was, byte for byte."""

from __future__ import annotations

import os
import pickle
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import yaml
from command_line import assert_refused, build, snapshot

ORT = ("--targets", "onnxruntime:fp32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a good repository."""
    made = tmp_path_factory.mktemp("bad-input")
    tiny_models.linear(made / "good.onnx")
    ran = build("good.onnx", "-o", "repo", *ORT, cwd=made)
    assert ran.code == 0, ran.err
    return made


@pytest.fixture(autouse=True)
def nothing_changes(folder: Path) -> Iterator[None]:
    before = snapshot(folder / "repo")
    yield
    assert snapshot(folder / "repo") == before
    assert [item.name for item in folder.iterdir() if item.name.startswith(".build-repo")] == []


def external(path: Path, location: str) -> None:
    """An ONNX model whose weights lie in `location`."""
    import onnx

    model = onnx.load(tiny_models.linear(path))
    tensor = model.graph.initializer[0]
    data = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(len(data)))):
        tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())


def _truncated(folder: Path) -> str:
    whole = tiny_models.linear(folder / "whole.onnx").read_bytes()
    (folder / "torn.onnx").write_bytes(whole[: len(whole) // 2])
    return "torn.onnx"


def _outside(folder: Path) -> str:
    (folder / "weights.bin").write_bytes(tiny_models.weights().tobytes())
    (folder / "inner" / "deep").mkdir(parents=True, exist_ok=True)
    external(folder / "inner" / "deep" / "outside.onnx", "../../weights.bin")
    return "inner/deep/outside.onnx"


def _missing_data(folder: Path) -> str:
    external(folder / "alone.onnx", "gone.bin")
    return "alone.onnx"


def _zip(folder: Path) -> str:
    with zipfile.ZipFile(folder / "photos.zip", "w") as archive:
        archive.writestr("a.jpg", b"x")
    return "photos.zip"


def _pickle(folder: Path) -> str:
    class Evil:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {folder}/was-here",)

    (folder / "model.pkl").write_bytes(pickle.dumps(Evil()))
    return "model.pkl"


def _directory(folder: Path) -> str:
    (folder / "photos").mkdir(exist_ok=True)
    (folder / "photos" / "a.jpg").write_bytes(b"x")
    return "photos"


def _empty(folder: Path) -> str:
    (folder / "empty.onnx").write_bytes(b"")
    return "empty.onnx"


def _text(folder: Path) -> str:
    (folder / "notes.onnx").write_text("not a model", encoding="utf-8")
    return "notes.onnx"


SOURCES: list[tuple[Callable[[Path], str], int, tuple[str, ...]]] = [
    (lambda folder: "gone.onnx", 2, ("gone.onnx: no such file or folder",)),
    (lambda folder: "x" * 300, 2, ("no such file or folder",)),
    (_directory, 2, ("photos is a directory that is no model (it holds a.jpg)", "accepted are")),
    (_truncated, 2, ("torn.onnx",)),
    (_outside, 2, ("outside.onnx", "../../weights.bin")),
    (_missing_data, 2, ("alone.onnx", "gone.bin")),
    (_zip, 2, ("photos.zip is a zip archive that is no model (it holds a.jpg)",)),
    (_pickle, 2, ("model.pkl",)),
    (_empty, 2, ("empty.onnx is empty",)),
    (_text, 2, ("notes.onnx",)),
]


@pytest.mark.parametrize(("make", "code", "words"), SOURCES, ids=lambda item: getattr(item, "__name__", ""))
def test_what_is_no_model_is_refused(folder: Path, make: Any, code: int, words: tuple[str, ...]) -> None:
    ran = build(make(folder), "-o", "repo", "--name", "good", *ORT, cwd=folder)
    assert_refused(ran, code, *words)
    assert not (folder / "was-here").exists()


@pytest.mark.parametrize("name", ["a/b", "a b", "..", "../good", ""])
def test_a_name_that_leaves_the_repository_is_refused(folder: Path, name: str) -> None:
    if name:
        assert_refused(build("good.onnx", "-o", "repo", "--name", name, *ORT, cwd=folder), 2, "is no model name")


SAMPLES: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"z": np.zeros((2, 4), np.float32)}, ("holds the arrays z; the model's inputs are x",)),
    ({"x": np.zeros((2, 5), np.float32)}, ("'x'", "5")),
    ({"x": np.zeros((2, 4), np.complex64)}, ("'x'", "complex64")),
    ({"x": np.zeros((0, 4), np.float32)}, ("at least one; got x 0",)),
    ({"x": np.asarray([["a"] * 4])}, ("'x'",)),
]


@pytest.mark.parametrize(("arrays", "words"), SAMPLES, ids=["name", "shape", "dtype", "no-rows", "strings"])
def test_samples_that_do_not_fit_are_refused(folder: Path, arrays: dict[str, Any], words: tuple[str, ...]) -> None:
    np.savez(folder / "samples.npz", **arrays)
    ran = build("good.onnx", "-o", "repo", "--samples", "samples.npz", *ORT, cwd=folder)
    assert_refused(ran, 2, "samples.npz", *words)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04junk", pickle.dumps([1])], ids=["empty", "torn", "pickle"])
def test_samples_that_are_no_npz_are_refused(folder: Path, content: bytes) -> None:
    (folder / "samples.npz").write_bytes(content)
    ran = build("good.onnx", "-o", "repo", "--samples", "samples.npz", *ORT, cwd=folder)
    assert_refused(ran, 2, "samples.npz")


NETS = """
import torch

def build(width=3):
    return torch.nn.Linear(4, width)

def number():
    return 7

def broken():
    raise RuntimeError("no weights for you")
"""


@pytest.fixture(scope="module")
def torch_folder(folder: Path) -> Path:
    torch = pytest.importorskip("torch")
    (folder / "my_nets.py").write_text(NETS, encoding="utf-8")
    torch.manual_seed(0)
    torch.save(torch.nn.Linear(4, 3).state_dict(), folder / "net.pth")
    torch.save({"head.weight": torch.zeros(3, 4), "bias": torch.zeros(3)}, folder / "other.pth")
    return folder


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"model": "no_nets:build"}, ("good: source: model: no_nets:build: there is no module 'no_nets'",)),
        ({"model": "my_nets:gone"}, ("gone",)),
        ({"model": "my_nets:number"}, ("my_nets:number", "int")),
        ({"model": "my_nets:broken"}, ("no weights for you",)),
        ({"model": "my_nets:build", "args": {"depth": 2}}, ("depth",)),
        ({"model": "my_nets:build", "args": {"width": 5}}, ("weight", "[5, 4]", "[3, 4]")),
        ({"path": "other.pth", "model": "my_nets:build"}, ("missing", "weight", "unexpected", "head.weight")),
        ({}, ("model",)),
    ],
    ids=["no-module", "no-callable", "no-network", "raises", "wrong-args", "wrong-shapes", "wrong-keys", "no-model"],
)
def test_weights_that_do_not_fit_the_network_are_refused(
    torch_folder: Path, source: dict[str, Any], words: Any
) -> None:
    model = {
        "name": "good",
        "source": {"path": "net.pth", **source},
        "inputs": [{"name": "x", "shape": ["batch", 4]}],
        "targets": ["onnxruntime:fp32"],
    }
    (torch_folder / "models.yaml").write_text(yaml.safe_dump({"models": [model]}), encoding="utf-8")
    assert_refused(build("models.yaml", "-o", "repo", cwd=torch_folder), 2, *words)


def test_an_output_of_somebody_else_is_never_touched(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine", encoding="utf-8")
    before = snapshot(tmp_path)
    assert_refused(build("good.onnx", "-o", tmp_path, *ORT, cwd=folder), 2, "is not a model repository", "thesis.tex")
    assert_refused(build("good.onnx", "-o", tmp_path / "thesis.tex", *ORT, cwd=folder), 2, "is a file, not a folder")
    assert snapshot(tmp_path) == before


def test_a_manifest_that_cannot_be_read_is_not_overwritten(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "build-repo.json").write_text('{"format": 99}', encoding="utf-8")
    assert_refused(build("good.onnx", "-o", tmp_path, *ORT, cwd=folder), 2, "build-repo.json cannot be read")
    assert (tmp_path / "build-repo.json").read_text(encoding="utf-8") == '{"format": 99}'


def test_a_second_build_of_one_output_is_refused(folder: Path) -> None:
    import fcntl

    workshop = folder / ".build-repo-repo"
    workshop.mkdir()
    with (workshop / "lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert_refused(build("good.onnx", "-o", "repo", *ORT, cwd=folder), 4, "another build is writing", "wait for it")
    assert build("good.onnx", "-o", "repo", *ORT, cwd=folder).code == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Two megabytes."""
    if os.geteuid() != 0:
        pytest.skip("a full disk is made with a small tmpfs, which only root may mount")
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"a full disk is made with a small tmpfs, which cannot be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.fixture(scope="module")
def large(folder: Path) -> Path:
    """A model of three megabytes that has the signature of the small one."""
    from onnx import helper
    from small_graphs import write_graph

    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("MatMul", ["h", "v"], ["y"])]
    weight = np.random.default_rng(0).standard_normal((4, 120_000)).astype(np.float32)
    return write_graph(folder / "large.onnx", tiny_models.LINEAR, nodes, {"w": weight, "v": weight.T[:, :3].copy()})


def test_a_full_disk_under_the_cache(folder: Path, large: Path, small_disk: Path) -> None:
    ran = build(large, "-o", "repo", "--name", "good", *ORT, cwd=folder, cache=small_disk / "cache")
    assert_refused(ran, 4, "the disk is full", "BUILD_REPO_CACHE")
    assert list((small_disk / "cache" / "tmp").iterdir()) == []


def test_a_full_disk_under_the_output(folder: Path, large: Path, small_disk: Path) -> None:
    assert build("good.onnx", "-o", small_disk / "repo", *ORT, cwd=folder).code == 0
    before = snapshot(small_disk / "repo")
    ran = build(large, "-o", small_disk / "repo", "--name", "good", *ORT, cwd=folder)
    assert_refused(ran, 4, "the disk is full", "-o")
    assert snapshot(small_disk / "repo") == before
    assert [item.name for item in small_disk.iterdir()] == ["repo"]


def test_a_cache_that_cannot_be_written(folder: Path) -> None:
    (folder / "file").write_text("", encoding="utf-8")
    ran = build("good.onnx", "-o", "repo", *ORT, cwd=folder, cache=folder / "file" / "cache")
    assert_refused(ran, 4, "cannot write")
