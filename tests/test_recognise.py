import zipfile

import pytest

from builder.errors import SpecError
from builder.recognise import recognise


def refusal(path):
    with pytest.raises(SpecError) as caught:
        recognise(path)
    return caught.value.message


def test_missing_and_empty(tmp_path):
    assert refusal(tmp_path / "none.onnx") == f"no such file or folder: {tmp_path / 'none.onnx'}"
    (tmp_path / "empty.onnx").touch()
    assert refusal(tmp_path / "empty.onnx") == "empty.onnx is empty"


@pytest.mark.parametrize(
    ("asked", "remedy"),
    [
        ("modle.onnx", "did you mean {folder}/model.onnx?"),
        ("model.pt", "did you mean {folder}/model.onnx?"),
        ("photos.h5", "check the path; accepted are ONNX files, "),
        ("nowhere/model.onnx", "there is no folder {folder}/nowhere either: check the path"),
    ],
)
def test_what_may_have_been_meant(tmp_path, asked, remedy):
    (tmp_path / "model.onnx").touch()
    with pytest.raises(SpecError) as caught:
        recognise(tmp_path / asked)
    assert caught.value.remedy.startswith(remedy.format(folder=tmp_path))


def test_directories(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    assert refusal(folder) == "folder is a directory that is no model (it is empty)"
    for name in ("a.txt", "b.txt", "c.txt", "d.txt"):
        (folder / name).touch()
    assert refusal(folder) == "folder is a directory that is no model (it holds a.txt, b.txt, c.txt …)"
    (folder / "saved_model.pb").touch()
    assert recognise(folder) == "tf_saved_model"


def test_zip_that_is_no_model(tmp_path):
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("one.txt", "1")
    assert refusal(path) == "photos.zip is a zip archive that is no model (it holds one.txt)"
    path.write_bytes(path.read_bytes()[:20])
    assert refusal(path) == "photos.zip is a zip archive that is no model (damaged or empty)"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello, this is text\n", "model.bin is a text file, no model"),
        (b"\x08\x07\x00\x01\xff" * 40, "model.bin is a binary file of no known format, no model"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    ],
)
def test_other_files(tmp_path, content, message):
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    assert message in refusal(path)


def test_pickle_is_recognised_and_refused_when_described(tmp_path):
    import pickle

    from builder.sources import torch_state_dict

    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"a": 1}))
    assert recognise(path) == "torch_pickle"
    with pytest.raises(SpecError, match=r"model\.pkl is a pickle"):
        torch_state_dict.describe(path)
