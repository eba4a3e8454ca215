"""Pickled networks: refused unless allowed, classes that are missing named, state and randomness noticed."""

import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from export_models import export, work_of

from builder.errors import SpecError
from builder.export import run_export
from builder.frameworks.pytorch.files import foreign_names, torch_kind
from builder.recognise import recognise
from builder.sources import torch_pickle
from builder.tensors import Tensor

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

NETS = """
import torch

class Small(torch.nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.linear = torch.nn.Linear(4, width)
        self.drop = torch.nn.Dropout(0.5)
    def forward(self, x):
        return self.drop(self.linear(x))

class Dropping(torch.nn.Module):
    def forward(self, x):
        return torch.nn.functional.dropout(x, 0.5)

class Remembering(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = torch.nn.LSTMCell(4, 3)
        self.state = None
    def forward(self, x):
        if self.state is not None and self.state[0].shape[0] != x.shape[0]:
            self.state = None
        self.state = self.cell(x, self.state)
        return self.state[0]

class Settings:
    pass
"""
X = Tensor("x", "float32", ("batch", 4))


@pytest.fixture
def nets(tmp_path, monkeypatch):
    (tmp_path / "pickled_nets.py").write_text(NETS)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "pickled_nets", raising=False)
    import importlib

    importlib.invalidate_caches()
    yield importlib.import_module("pickled_nets")
    sys.modules.pop("pickled_nets", None)


def failure(path, tmp_path, **options):
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    with pytest.raises(SpecError) as caught:
        run_export(work_of(path, **{"inputs": (X,), "allow_pickle": True, **options}), out)
    return caught.value.message + " | " + caught.value.remedy


def test_refused_by_default_and_described_without_being_opened(nets, tmp_path):
    torch.save(nets.Small(), tmp_path / "net.pt")
    assert recognise(tmp_path / "net.pt") == "torch_pickle"
    message = failure(tmp_path / "net.pt", tmp_path, allow_pickle=False)
    assert "net.pt is a pickle (it names pickled_nets.Small, " in message
    assert "source: {path: ..., allow_pickle: true}" in message
    note, _ = torch_pickle.describe(tmp_path / "net.pt").notes
    assert "a pickle that names pickled_nets.Small, torch.nn.modules.linear.Linear" in note


@pytest.mark.parametrize("form", ["zip", "legacy", "plain", "checkpoint"])
def test_allowed(nets, tmp_path, form):
    network, path = nets.Small(), tmp_path / "net.pt"
    if form == "plain":
        path.write_bytes(pickle.dumps(network))
    elif form == "checkpoint":
        torch.save({"epoch": 3, "ema": network}, path)
    else:
        torch.save(network, path, _use_new_zipfile_serialization=form == "zip")
    assert recognise(path) == "torch_pickle"
    source = work_of(path, allow_pickle=True).source
    loaded = torch_pickle.load(source, (X,), ())
    rows = np.ones((2, 4), np.float32)
    with torch.no_grad():
        assert np.array_equal(loaded.run({"x": rows})[0], network.eval()(torch.from_numpy(rows)).numpy())


def test_from_its_own_folder_to_onnx(nets, tmp_path):
    torch.save(nets.Small(), tmp_path / "net.pt")
    report, _, _ = export(tmp_path / "net.pt", tmp_path / "out", inputs=(X,), allow_pickle=True)
    assert report.signature.describe() == "x float32[batch,4] → output float32[batch,3]"
    assert "the source was opened as a pickle, which can run code: the spec allows it" in report.notes


def test_weights_with_other_things_need_the_word_and_the_callable(nets, tmp_path):
    path = tmp_path / "checkpoint.pt"
    torch.save({"settings": nets.Settings(), "state_dict": nets.Small().state_dict()}, path)
    assert recognise(path) == "torch_pickle"
    assert "holds weights without the network's code" in failure(path, tmp_path)
    root = {"import_root": str(tmp_path), "model": "pickled_nets:Small"}
    report, _, _ = export(path, tmp_path / "out", inputs=(X,), allow_pickle=True, **root)
    assert "state dict found under 'state_dict' of the checkpoint" in report.notes


def test_missing_classes_are_named(nets, tmp_path):
    torch.save(nets.Small(), tmp_path / "net.pt")
    del nets.Small
    message = failure(tmp_path / "net.pt", tmp_path)
    assert "net.pt needs pickled_nets.Small, which cannot be imported: pickled_nets has no 'Small'" in message
    (tmp_path / "pickled_nets.py").unlink()
    del sys.modules["pickled_nets"]
    message = failure(tmp_path / "net.pt", tmp_path)
    assert "net.pt needs pickled_nets.Small, which cannot be imported: ModuleNotFoundError" in message
    assert "put pickled_nets beside the spec file" in message


def test_classes_of_a_script(tmp_path):
    code = NETS + "\ntorch.save(Small(), 'script.pt')\n"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    message = failure(tmp_path / "script.pt", tmp_path)
    assert "needs the class __main__.Small, which was defined in the script that saved it" in message


def test_what_is_no_network(nets, tmp_path):
    torch.save(nets.Settings(), tmp_path / "net.pt")
    assert "net.pt holds a Settings, no torch.nn.Module" in failure(tmp_path / "net.pt", tmp_path)
    torch.save(nets.Small(), tmp_path / "cut.pt")
    (tmp_path / "cut.pkl").write_bytes(pickle.dumps(nets.Small())[:-40])
    assert "cut.pkl cannot be unpickled" in failure(tmp_path / "cut.pkl", tmp_path)


@pytest.mark.parametrize("name", ["Dropping", "Remembering"])
def test_randomness_and_state_are_refused(nets, tmp_path, name):
    torch.save(getattr(nets, name)(), tmp_path / "net.pt")
    assert "it keeps state between calls or draws random numbers" in failure(tmp_path / "net.pt", tmp_path)


def test_torch_package_archives_are_named(tmp_path):
    path = tmp_path / "package.pt"
    with torch.package.PackageExporter(str(path)) as exporter:
        exporter.save_text("notes", "one.txt", "1")
    with zipfile.ZipFile(path) as archive:
        assert any(name.endswith("extern_modules") for name in archive.namelist())
    assert torch_kind(path) == "package"
    with pytest.raises(SpecError, match=r"package\.pt is a torch\.package archive"):
        recognise(path)


def test_names_kept_in_the_memo_are_followed(tmp_path):
    import collections
    import fractions

    path = tmp_path / "memo.pkl"
    path.write_bytes(pickle.dumps([fractions.Fraction(1, 2), collections.OrderedDict(), fractions.Fraction]))
    assert foreign_names(path) == ("fractions.Fraction",)
