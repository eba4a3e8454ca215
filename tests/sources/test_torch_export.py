"""Programs of torch.export: what the file says, what runs, and what is refused."""

import io
import json
import zipfile

import numpy as np
import onnx
import pytest
from export_models import export, plain_run, work_of

from builder.errors import SpecError
from builder.export import run_export
from builder.frameworks.pytorch.archive import is_arithmetic
from builder.recognise import recognise
from builder.sources import torch_export
from builder.tensors import Tensor

torch = pytest.importorskip("torch", reason="PyTorch is not installed")


class Scaled(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)

    def forward(self, x, power, *, scale):
        y = self.linear(x) * scale**power
        return {"logits": y, "extra": (y + 1, y.sum(1))}


class Flattened(torch.nn.Module):
    def forward(self, x):
        return (x.reshape(-1, 4, 4) * 2).reshape(-1, 4)


class Dropping(torch.nn.Module):
    def forward(self, x):
        return torch.nn.functional.dropout(x, 0.5, training=True)


class Remembering(torch.nn.Module):
    """An LSTM that keeps its state in buffers."""

    def __init__(self):
        super().__init__()
        self.cell = torch.nn.LSTMCell(4, 3)
        self.register_buffer("h", torch.zeros(1, 3))
        self.register_buffer("c", torch.zeros(1, 3))

    def forward(self, x):
        h, c = self.cell(x, (self.h, self.c))
        self.h.copy_(h)
        self.c.copy_(c)
        return h


def saved(network, arguments, path, keywords=None, shapes=None):
    program = torch.export.export(network.eval(), arguments, keywords or {}, dynamic_shapes=shapes)
    torch.export.save(program, str(path))
    return path


@pytest.fixture(scope="module")
def scaled(tmp_path_factory):
    rows = torch.export.Dim("rows", min=1, max=64)
    network = Scaled()
    path = saved(
        network,
        (torch.randn(3, 4), 2),
        tmp_path_factory.mktemp("program") / "model.pt2",
        {"scale": torch.randn(3, 1)},
        {"x": {0: rows}, "power": None, "scale": {0: rows}},
    )
    return network, path


def failure(path, tmp_path, **options):
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    with pytest.raises(SpecError) as caught:
        run_export(work_of(path, **options), out)
    return caught.value.message + " | " + caught.value.remedy


def test_the_program_tells_everything(scaled, tmp_path):
    network, path = scaled
    assert recognise(path) == "torch_export"
    found = torch_export.describe(path)
    assert found.signature.describe() == (
        "x float32[batch,4], scale float32[batch,1] → "
        "logits float32[batch,3], extra_0 float32[batch,3], extra_1 float32[batch]"
    )
    assert found.parameters == 15
    assert found.notes == ("batch is 1 to 64 in the program",)
    report, requests, exported = export(path, tmp_path / "out")
    assert report.signature == found.signature
    assert report.route == "dynamo"
    assert report.batch.proven
    request = requests[2]
    with torch.no_grad():
        expected = network(torch.from_numpy(request.inputs["x"]), 2, scale=torch.from_numpy(request.inputs["scale"]))
    assert np.array_equal(request.outputs["logits"], expected["logits"].numpy())
    for answer, output in zip(plain_run(exported, dict(requests[3].inputs)), report.signature.outputs, strict=True):
        assert np.allclose(answer, requests[3].outputs[output.name], atol=1e-5)


def test_wanted_outputs_and_fixed_axes(scaled, tmp_path):
    _, path = scaled
    inputs = (Tensor("scale", "float32", (5, 1)), Tensor("x", "float32", (5, 4)))
    report, requests, exported = export(path, tmp_path / "out", inputs=inputs, outputs=("extra_1",))
    assert report.signature.describe() == "x float32[5,4], scale float32[5,1] → extra_1 float32[5]"
    assert [value.name for value in onnx.load(str(exported)).graph.output] == ["extra_1"]
    assert np.allclose(plain_run(exported, dict(requests[0].inputs))[0], requests[0].outputs["extra_1"], atol=1e-5)
    assert "outputs: got 1 names (probs); the network returns 3" in failure(path, tmp_path, outputs=("probs",))
    wrong = (Tensor("x", "float32", ("batch", 5)), Tensor("scale", "float32", ("batch", 1)))
    assert "'x' got shape [batch,5], the model expects [batch,4]" in failure(path, tmp_path, inputs=wrong)


def test_sizes_that_the_program_refuses_are_found(tmp_path):
    rows = torch.export.Dim("groups", min=1, max=100)
    path = saved(Flattened(), (torch.randn(8, 4),), tmp_path / "m.pt2", shapes={"x": {0: 4 * rows}})
    report, _, _ = export(path, tmp_path / "out")
    assert not report.batch.proven
    assert "runs only at batch sizes 8, 16, 32; refuses 1, 2, 3, 4" in report.batch.reason
    assert any("4*" in note for note in torch_export.describe(path).notes)


def test_fixed_batch(tmp_path):
    path = saved(torch.nn.Linear(4, 3), (torch.randn(2, 4),), tmp_path / "m.pt2")
    report, requests, _ = export(path, tmp_path / "out")
    assert report.signature.describe() == "input float32[2,4] → linear float32[2,3]"
    assert requests[0].rows == 0


def test_randomness_and_state_are_refused(tmp_path):
    path = saved(Dropping(), (torch.randn(2, 4),), tmp_path / "dropping.pt2")
    assert "keeps state between calls or draws random numbers" in failure(path, tmp_path)
    path = saved(Remembering(), (torch.randn(1, 4),), tmp_path / "lstm.pt2")
    assert "keeps state between calls or draws random numbers" in failure(path, tmp_path)


def test_damaged_and_without_program(scaled, tmp_path):
    _, path = scaled
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    broken = written(tmp_path / "broken.pt2", {**members, name_of(members, "model.json"): b"{}"})
    assert "broken.pt2 is not a readable torch.export program" in failure(broken, tmp_path)
    empty = written(tmp_path / "empty.pt2", {n: c for n, c in members.items() if "/models/" not in n})
    assert "is a .pt2 package without a program" in failure(empty, tmp_path)


def name_of(members, end):
    return next(name for name in members if name.endswith(end))


def written(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_archives_that_bring_code_are_refused_unopened(scaled, tmp_path):
    class Bomb:
        def __reduce__(self):
            from pathlib import Path

            return Path.touch, (tmp_path / "exploded",)

    _, path = scaled
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    stream = io.BytesIO()
    torch.save((Bomb(),), stream)
    samples = written(tmp_path / "samples.pt2", {**members, name_of(members, "model.pt"): stream.getvalue()})
    assert "is a pickle of more than tensors: opening it can run any code" in failure(samples, tmp_path)
    text = members[name_of(members, "model.json")].decode()
    size = json.loads(text)["graph_module"]["graph"]["tensor_values"]["x"]["sizes"][0]["as_expr"]["expr_str"]
    evil = text.replace(json.dumps(size), json.dumps(f"open(chr(47)) or {size}"), 1)
    assert evil != text
    sizes = written(tmp_path / "sizes.pt2", {**members, name_of(members, "model.json"): evil.encode()})
    assert "is more than arithmetic" in failure(sizes, tmp_path)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    "text",
    [
        "s77",
        "4*s0 + 1",
        "Symbol_2",
        "Max(1, s0)",
        "FloorDiv(s0, 2)",
        "2.5*s0",
        "(s0 // 2)",
        "Symbol('s7', positive=True)",
    ],
)
def test_arithmetic(text):
    assert is_arithmetic(text)


@pytest.mark.parametrize(
    "text", ["eval(chr(95))", "s0.__class__", "__import__('os')", "exec(s0)", "a.b", "[s0]", "'x y'", "eval('x')"]
)
def test_no_arithmetic(text):
    assert not is_arithmetic(text)
