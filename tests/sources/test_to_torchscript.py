"""PyTorch sources as TorchScript: what is copied, compiled or traced, and that Triton's backend can take the result."""

from __future__ import annotations

import subprocess
import sys
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from export_models import work_of

from builder.errors import BuildError
from builder.export import run_export
from builder.measurement import EXPORT_FILE, ONNX_FILE, REFERENCE_FILE, TORCHSCRIPT_FILE, ExportReport
from builder.ports import inspect_ports, ports_json
from builder.records import read_record
from builder.samples import load_requests
from builder.tensors import Tensor

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

NETS = """
import torch
from typing import Dict, List, Tuple

class Mlp(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Linear(4, 6)
        self.norm = torch.nn.BatchNorm1d(6)
        self.drop = torch.nn.Dropout(0.5)
        self.last = torch.nn.Linear(6, 3)
    def forward(self, x):
        return self.last(self.drop(torch.relu(self.norm(self.first(x)))))

class Eigen(torch.nn.Module):
    def forward(self, x):
        return torch.linalg.eigvalsh(x.unsqueeze(-1) * x.unsqueeze(-2))

class Deep(torch.nn.Module):
    def forward(self, x, y, factor: int) -> Tuple[Dict[str, torch.Tensor], List[torch.Tensor]]:
        return {"sum": x + y, "times": x * factor}, [x - y, y - x]

class Branching(torch.nn.Module):
    def forward(self, x):
        if bool(x.sum() > 1e6):
            return x * 3
        return x * 2

class Untyped(torch.nn.Module):
    def forward(self, *tensors):
        return tensors[0] * 2

class Looking(torch.nn.Module):
    def forward(self, *tensors):
        return tensors[0] * (3 if tensors[0].shape[1] > 100 and tensors[0].sum() > 0 else 2)

class Swapped(torch.nn.Module):
    def forward(self, a, b):
        return a - 2 * b

class Unwritable(torch.nn.Module):
    def forward(self, *tensors):
        rows = [row for row in tensors[0].tolist()]
        return torch.tensor(rows) * 2 + torch.linalg.eigvalsh(torch.eye(2))[0]
"""
X = Tensor("x", "float32", ("batch", 4))
Y = Tensor("y", "float32", ("batch", 4))


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    import importlib

    (tmp_path / "nets_to_script.py").write_text(NETS)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("nets_to_script")
    sys.modules.pop("nets_to_script", None)


def scripted(network: Any, path: Path, *, train: bool = False) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(network.train(train)).save(str(path))
    return path


def pickled(network: Any, path: Path) -> Path:
    torch.save(network.eval(), path)
    return path


def export(path: Path, out: Path, formats: tuple[str, ...] = ("torchscript",), **words: Any) -> ExportReport:
    out.mkdir()
    run_export(replace(work_of(path, **words), formats=formats), out)
    return read_record(ExportReport, out / EXPORT_FILE)


def check_served(out: Path, report: ExportReport) -> Any:
    """The file as Triton's backend runs it: arguments in the inputs' order, outputs by their places."""
    requests = load_requests(out / REFERENCE_FILE, report.signature)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.jit.load(str(out / TORCHSCRIPT_FILE))
    for request in requests:
        answer = module(*(torch.from_numpy(request.inputs[tensor.name]) for tensor in report.signature.inputs))
        values = answer if isinstance(answer, tuple) else (answer,)
        assert len(values) == len(report.signature.outputs)
        for tensor, value in zip(report.signature.outputs, values, strict=True):
            np.testing.assert_allclose(value.detach().numpy(), request.outputs[tensor.name], rtol=1e-5, atol=1e-6)
    return module


def test_an_archive_that_fits_is_served_as_it_is(nets: ModuleType, tmp_path: Path) -> None:
    path = scripted(nets.Mlp(), tmp_path / "m.pt")
    report = export(path, tmp_path / "out", inputs=[X])
    assert (report.route, report.opset, report.ir_version, report.refused) == ("copy", None, None, {})
    assert (tmp_path / "out" / TORCHSCRIPT_FILE).read_bytes() == path.read_bytes()
    assert not (tmp_path / "out" / ONNX_FILE).exists()
    check_served(tmp_path / "out", report)


def test_an_archive_in_training_mode_is_written_again(nets: ModuleType, tmp_path: Path) -> None:
    """Triton's backend runs a module in the mode that it was saved in: dropout would stay on."""
    report = export(scripted(nets.Mlp(), tmp_path / "m.pt", train=True), tmp_path / "out", inputs=[X])
    assert report.route == "script"
    assert any("saved in training mode" in note for note in report.notes)
    assert not check_served(tmp_path / "out", report).training


def test_inputs_named_in_another_order_than_the_arguments_are_not_confused(nets: ModuleType, tmp_path: Path) -> None:
    """Triton's backend goes by the names here, the spec by the order."""
    a, b = (Tensor(name, "float32", ("batch", 4)) for name in "ab")
    report = export(scripted(nets.Swapped(), tmp_path / "m.pt"), tmp_path / "out", inputs=[b, a])
    assert report.route == "script"
    module = check_served(tmp_path / "out", report)
    assert [argument.name for argument in module.forward.schema.arguments[1:]] == ["b", "a"]


def test_numbers_dicts_and_lists_are_laid_flat(nets: ModuleType, tmp_path: Path) -> None:
    path = scripted(nets.Deep(), tmp_path / "m.pt")
    report = export(path, tmp_path / "out", inputs=[X, Y], args='{"factor": 3}')
    assert report.route == "script"
    assert [tensor.name for tensor in report.signature.outputs] == [f"output_{place}" for place in range(4)]
    check_served(tmp_path / "out", report)
    table = ports_json(inspect_ports(tmp_path / "out" / TORCHSCRIPT_FILE))
    assert table == {"arguments": [{"name": "x", "type": "Tensor"}, {"name": "y", "type": "Tensor"}]}


def test_names_that_no_argument_can_have_go_by_their_order(nets: ModuleType, tmp_path: Path) -> None:
    inputs = [Tensor(name, "float32", ("batch", 4)) for name in ("in/put:0", "class")]
    report = export(pickled(nets.Swapped(), tmp_path / "m.pth"), tmp_path / "out", inputs=inputs, allow_pickle=True)
    assert report.route == "script"
    module = check_served(tmp_path / "out", report)
    assert [argument.name for argument in module.forward.schema.arguments[1:]] == ["input_0", "input_1"]


def test_compiled_code_keeps_its_branches(nets: ModuleType, tmp_path: Path) -> None:
    report = export(pickled(nets.Branching(), tmp_path / "m.pth"), tmp_path / "out", inputs=[X], allow_pickle=True)
    assert report.route == "script"
    module = check_served(tmp_path / "out", report)
    assert float(module(torch.full((1, 4), 1e6))[0, 0]) == 3e6


def test_what_cannot_be_compiled_is_traced(nets: ModuleType, tmp_path: Path) -> None:
    report = export(pickled(nets.Untyped(), tmp_path / "m.pth"), tmp_path / "out", inputs=[X], allow_pickle=True)
    assert report.route == "trace"
    assert [note for note in report.notes if note.startswith("TorchScript by the route trace, because script: ")]
    assert not any("is a trace: its Python code looks" in note for note in report.notes)
    check_served(tmp_path / "out", report)


def test_a_trace_says_that_code_looked_at_values(nets: ModuleType, tmp_path: Path) -> None:
    path = pickled(nets.Looking(), tmp_path / "m.pth")
    wide = Tensor("x", "float32", ("batch", 101))
    report = export(path, tmp_path / "wide", inputs=[wide], allow_pickle=True, samples=samples(tmp_path, 101))
    assert any("is a trace: its Python code looks at values" in note for note in report.notes)


def samples(folder: Path, width: int) -> Path:
    """Rows whose sums are positive."""
    rows = np.random.default_rng(0).uniform(0.5, 1, (8, width)).astype(np.float32)
    np.savez(folder / "samples.npz", x=rows)
    return folder / "samples.npz"


def test_onnx_and_torchscript_stand_side_by_side(nets: ModuleType, tmp_path: Path) -> None:
    formats = ("onnx", "torchscript")
    report = export(scripted(nets.Mlp(), tmp_path / "m.pt"), tmp_path / "out", formats, inputs=[X])
    assert report.route == "torchscript"
    assert report.opset == 18
    assert report.refused == {}
    assert {ONNX_FILE, TORCHSCRIPT_FILE} <= {file.name for file in (tmp_path / "out").iterdir()}


@pytest.mark.parametrize("save", [scripted, pickled])
def test_what_onnx_cannot_express_keeps_torchscript_and_the_reason(save: Any, nets: ModuleType, tmp_path: Path) -> None:
    path = save(nets.Eigen(), tmp_path / "m.pt")
    words: dict[str, Any] = {"inputs": [X], "allow_pickle": save is pickled}
    report = export(path, tmp_path / "both", ("onnx", "torchscript"), **words)
    assert list(report.refused) == ["onnx"]
    assert "linalg_eigvalsh" in report.refused["onnx"]
    assert report.opset is None
    assert report.batch.proven
    check_served(tmp_path / "both", report)
    with pytest.raises(BuildError, match="linalg_eigvalsh") as caught:
        export(path, tmp_path / "onnx", ("onnx",), **words)
    assert "pytorch:fp32" in caught.value.remedy


def test_what_neither_compiles_nor_traces_says_both_reasons(nets: ModuleType, tmp_path: Path) -> None:
    path = pickled(nets.Unwritable(), tmp_path / "m.pth")
    with pytest.raises(BuildError, match=r"as TorchScript\. script: .* \| trace: its result answers differently"):
        export(path, tmp_path / "out", inputs=[X], allow_pickle=True)
    assert not list((tmp_path / "out").iterdir())


def test_a_program_of_torch_export_is_traced(nets: ModuleType, tmp_path: Path) -> None:
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(nets.Mlp().eval(), (torch.zeros(2, 4),), dynamic_shapes={"x": {0: batch}})
    torch.export.save(program, tmp_path / "m.pt2")
    report = export(tmp_path / "m.pt2", tmp_path / "out")
    assert report.route == "trace"
    assert report.batch.proven
    check_served(tmp_path / "out", report)


WRITE = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {folder!r}]
from dataclasses import replace
from export_models import work_of
from builder.export import run_export
from builder.tensors import Tensor
out = Path(sys.argv[1])
out.mkdir()
work = work_of(Path({folder!r}) / "m.pth", inputs=[Tensor("x", "float32", ("batch", 4))], allow_pickle=True)
run_export(replace(work, formats=("torchscript",)), out)
"""


def test_two_processes_write_the_same_bytes_and_nothing_of_the_machine(nets: ModuleType, tmp_path: Path) -> None:
    pickled(nets.Mlp(), tmp_path / "m.pth")
    code = WRITE.format(tests=str(Path(__file__).parents[1]), folder=str(tmp_path))
    files = []
    for seed in ("1", "2"):
        out = tmp_path / seed
        done = subprocess.run(
            [sys.executable, "-c", code, str(out)],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[2]), "PATH": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        files.append(out / TORCHSCRIPT_FILE)
    assert files[0].read_bytes() == files[1].read_bytes()
    with zipfile.ZipFile(files[0]) as archive:
        assert not any(str(tmp_path).encode() in archive.read(name) for name in archive.namelist())
