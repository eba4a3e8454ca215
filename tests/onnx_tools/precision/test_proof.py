"""In which types graphs really work, by their operators, and by what onnxruntime makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from small_graphs import random_inputs, signature, write_graph

from builder.measurement import PrecisionProof
from builder.onnx_tools.precision import PrecisionJob
from builder.onnx_tools.precision.half import convert
from builder.onnx_tools.precision.proof import prove, prove_as_run

CPU = ["CPUExecutionProvider"]
PORTS = signature(["x:float32:batch,1,8,8"], ["y:float32:batch,10"])


def network(path: Path) -> Path:
    """A convolution of 36 weights at 64 places, and a product of 2560 weights."""
    generator = np.random.default_rng(0)
    weights = {
        "k": generator.standard_normal((4, 1, 3, 3)).astype(np.float32),
        "w": generator.standard_normal((256, 10)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("Flatten", ["r"], ["f"], name="flatten"),
        helper.make_node("MatMul", ["f", "w"], ["y"], name="product"),
    ]
    return write_graph(path, PORTS, nodes, weights)


def lowered(path: Path, precision: str, *keep: str) -> Path:
    out = path.with_name(f"{precision}.onnx")
    convert(path, out, PrecisionJob(precision, "onnx", PORTS, None, None, path.parent, 22, 10), frozenset(keep))
    return out


def shares(proof: PrecisionProof) -> tuple[dict[str, float], dict[str, float]]:
    return dict(proof.compute), dict(proof.weights)


CONV_WORK, PRODUCT_WORK = 36 * 64, 2560
CONV_SHARE = round(CONV_WORK / (CONV_WORK + PRODUCT_WORK), 4)


def test_work_is_counted_in_multiply_adds_and_weights_by_their_elements(tmp_path: Path) -> None:
    source = network(tmp_path / "m.onnx")
    assert shares(prove(source)) == ({"fp32": 1.0}, {"fp32": 1.0})
    for precision in ("fp16", "bf16"):
        compute, stored = shares(prove(lowered(source, precision, "conv")))
        assert compute == {"fp32": CONV_SHARE, precision: round(1 - CONV_SHARE, 4)}
        assert stored == {"fp32": round(36 / 2596, 4), precision: round(2560 / 2596, 4)}


def test_onnxruntimes_cpu_stores_fp16_and_computes_fp32(tmp_path: Path) -> None:
    low = lowered(network(tmp_path / "m.onnx"), "fp16")
    assert shares(prove(low)) == ({"fp16": 1.0}, {"fp16": 1.0})
    proof = prove_as_run(low, CPU)
    assert shares(proof) == ({"fp32": 1.0}, {"fp16": 1.0})
    assert proof.source == "ONNX graph as CPUExecutionProvider runs it"


def quantized(path: Path, **options: object) -> Path:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Samples(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = [random_inputs(PORTS, 4, seed) for seed in range(3)]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return self.left.pop() if self.left else None

    out = path.with_name("int8.onnx")
    quantize_static(str(path), str(out), Samples(), quant_format=QuantFormat.QDQ, **options)
    return out


def test_int8_counts_where_integers_are_really_multiplied(tmp_path: Path) -> None:
    low = quantized(network(tmp_path / "m.onnx"))
    for proof in (prove(low), prove_as_run(low, CPU)):
        compute, stored = shares(proof)
        assert compute == {"int8": 1.0}
        assert stored["int8"] > 0.99


def test_a_quantiser_that_left_the_work_in_fp32_is_seen(tmp_path: Path) -> None:
    """Everything but the heavy operators was quantised."""
    low = quantized(network(tmp_path / "m.onnx"), op_types_to_quantize=["Relu"])
    for proof in (prove(low), prove_as_run(low, CPU)):
        assert shares(proof) == ({"fp32": 1.0}, {"fp32": 1.0})


def test_dequantised_weights_alone_are_no_integer_work(tmp_path: Path) -> None:
    ports = signature(["x:float32:batch,8"], ["y:float32:batch,8"])
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s"], ["w"], name="dequantize"),
        helper.make_node("MatMul", ["x", "w"], ["y"], name="product"),
    ]
    source = write_graph(tmp_path / "m.onnx", ports, nodes, {"q": np.ones((8, 8), np.int8), "s": np.float32(0.1)})
    assert shares(prove(source)) == ({"fp32": 1.0}, {"int8": 1.0})


@pytest.mark.parametrize("transposed", [False, True])
def test_sizes_that_are_not_fixed_count_as_one_everywhere(tmp_path: Path, transposed: bool) -> None:
    """Attention of 4 heads over any length: products of activations weigh little beside those with weights."""
    ports = signature(["x:float32:batch,length,16"], ["y:float32:batch,length,16"])
    weight = np.ones((16, 16), np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["q"], name="project"),
        helper.make_node("Transpose", ["x"], ["t"], name="turn", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "t"], ["scores"], name="scores"),
        helper.make_node("MatMul", ["scores", "x"], ["y"], name="mix"),
    ]
    source = write_graph(tmp_path / "m.onnx", ports, nodes, {"w": weight})
    compute, _ = shares(prove(lowered(source, "fp16", "scores" if transposed else "mix")))
    # project: 16 x 16; scores: 1 x 1 x 16; mix: 1 x 16 x 1
    assert compute == {"fp16": round(272 / 288, 4), "fp32": round(16 / 288, 4)}


def test_a_graph_without_heavy_operators_has_no_shares(tmp_path: Path) -> None:
    ports = signature(["x:float32:batch,4"], ["y:float32:batch,4"])
    source = write_graph(tmp_path / "m.onnx", ports, [helper.make_node("Add", ["x", "x"], ["y"])])
    proof = prove(source)
    assert (proof.compute, proof.weights) == ((), ())


def test_work_inside_a_loop_counts(tmp_path: Path) -> None:
    ports = signature(["x:float32:4,4"], ["y:float32:4,4"])
    infos = [
        helper.make_tensor_value_info("i", TensorProto.INT64, []),
        helper.make_tensor_value_info("go", TensorProto.BOOL, []),
        helper.make_tensor_value_info("state", TensorProto.FLOAT, [4, 4]),
    ]
    outs = [
        helper.make_tensor_value_info("on", TensorProto.BOOL, []),
        helper.make_tensor_value_info("next", TensorProto.FLOAT, [4, 4]),
    ]
    inner = [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("MatMul", ["state", "w"], ["next"])]
    body = helper.make_graph(inner, "body", infos, outs)
    nodes = [
        helper.make_node("Loop", ["times", "", "x"], ["last"], name="loop", body=body),
        helper.make_node("MatMul", ["last", "w"], ["y"], name="product"),
    ]
    weights = {"times": np.int64(3), "w": np.ones((4, 4), np.float32)}
    source = write_graph(tmp_path / "m.onnx", ports, nodes, weights)
    compute, _ = shares(prove(lowered_loop(source, ports)))
    assert set(compute) == {"fp16", "fp32"}, "what is inside stays in fp32"


def lowered_loop(path: Path, ports: object) -> Path:
    out = path.with_name("low.onnx")
    job = PrecisionJob("fp16", "onnx", ports, None, None, path.parent, 22, 10)  # type: ignore[arg-type]
    convert(path, out, job, frozenset())
    return out
