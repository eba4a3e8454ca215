"""What holds for every row of the table, and for the code behind pickles."""

import pickle
import sys

import pytest

from builder.code_digest import pickled_code_digest
from builder.errors import MachineError, SpecError
from builder.plan import make_plan
from builder.sources import SOURCES, require, source_module
from builder.spec_file import spec_from_models


@pytest.mark.parametrize("word", SOURCES)
def test_every_row_says_what_it_needs(word, tmp_path):
    module = source_module(word)
    assert all(isinstance(name, str) for name in module.LIBRARIES)
    assert isinstance(module.EXTRA, str)
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_text("hello")
    (tmp_path / "bytes").write_bytes(bytes(range(256)))
    for path in tmp_path.iterdir():
        assert not module.recognise(path)


@pytest.mark.parametrize(("word", "extra"), [("onnx", ""), ("torch_export", "[torch]"), ("sklearn", "[sklearn]")])
def test_an_absent_library_ends_the_plan_with_the_line_that_installs_it(word, extra, monkeypatch):
    require("onnx")
    monkeypatch.setattr(source_module(word), "LIBRARIES", ("numpy", "no-such-library"))
    with pytest.raises(MachineError) as caught:
        require(word)
    assert caught.value.message == f"a source of the format {word} needs no-such-library, which is not installed"
    assert caught.value.remedy == f"pip install 'build-repo{extra}'"


@pytest.fixture
def pickled(tmp_path, monkeypatch):
    """A pickle of a class in a file beside it, in a folder that nothing has imported from."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "own_class_of_a_pickle.py").write_text("class Thing: pass\n")
    module = __import__("own_class_of_a_pickle")
    (tmp_path / "thing.pkl").write_bytes(pickle.dumps(module.Thing()))
    yield tmp_path / "thing.pkl"
    del sys.modules["own_class_of_a_pickle"]


def test_the_code_of_a_pickled_class_decides_the_key(pickled):
    def key():
        source = {"path": str(pickled), "allow_pickle": True, "import_root": str(pickled.parent)}
        spec = spec_from_models([{"name": "m", "source": source}], {"targets": ["onnxruntime:fp32"]})
        return next(iter(make_plan(spec).works()))

    before, first = pickled_code_digest(pickled, pickled.parent), key()
    assert key() == first
    (pickled.parent / "own_class_of_a_pickle.py").write_text("class Thing:\n    size = 3\n")
    assert pickled_code_digest(pickled, pickled.parent) != before
    assert key() != first


def planned(path, **source):
    return make_plan(spec_from_models([{"name": "m", "source": {"path": str(path), **source}}], {}))


def test_a_pickle_without_the_word_is_refused_by_the_plan(tmp_path):
    """Before any work, and in the words in which opening it would be refused."""
    from command_line import assert_refused, build

    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    linear = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed")
    torch.save(torch.nn.Linear(4, 2), tmp_path / "net.pt")
    (tmp_path / "scores.pkl").write_bytes(pickle.dumps(linear.LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0])))
    for name, words in (("net.pt", "net.pt is a pickle"), ("scores.pkl", "scores.pkl is a pickle (it names sklearn.")):
        with pytest.raises(SpecError, match=r"opening it can run any code, so it is refused") as caught:
            planned(tmp_path / name)
        assert caught.value.message.startswith(f"m: {words}")
        assert "allow_pickle: true" in caught.value.remedy
        assert planned(tmp_path / name, allow_pickle=True).works()
    ran = build("net.pt", "-o", "repo", cwd=tmp_path, cache=tmp_path / "cache")
    assert_refused(ran, 2, "net: net.pt is a pickle", "allow_pickle: true")
    assert "started" not in ran.err
    assert not (tmp_path / "repo").exists()
