"""The whole conversion with `tensorrt-rtx`: TensorRT's parser, strong typing, profiles and builder, without a GPU."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
from onnx import TensorProto, helper
from small_graphs import random_inputs, requests_for, signature, write_export, write_graph
from tiny_models import LINEAR, determinant, drifting, linear, mixing, overflowing

from builder.errors import BuildError, SpecError
from builder.frameworks.tensorrt.conversion import Built, convert_model
from builder.frameworks.tensorrt.engine import Choices, build_engine, make_config, timing_cache_file
from builder.frameworks.tensorrt.library import load, logger
from builder.frameworks.tensorrt.network import _reason, parse, ports
from builder.frameworks.tensorrt.proof import network_proof
from builder.onnx_tools.precision import PrecisionJob
from builder.onnx_tools.precision.half import convert as convert_to_half
from builder.onnx_tools.precision.lowering import LACKING
from builder.tensors import BY_ONNX, Signature, Tensor

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")

IMAGES = signature(["x:float32:batch,3,height,width"], ["y:float32:batch,4"])
SIZES = (1, 2, 3, 8)
UNSUPPORTED = {"determinant": "has no operator Det", "doubles": "reads the inputs x FLOAT; expected x None"}
"""Small models that TensorRT cannot take, and what it is told."""


def _is_model(made: Any) -> bool:
    """A function of `tiny_models` that writes a file."""
    own = inspect.isfunction(made) and made.__module__ == tiny_models.__name__
    return own and next(iter(inspect.signature(made).parameters), "") == "path"


def from_onnx(path: Path) -> Signature:
    """The ports that a file declares."""
    import onnx

    graph = onnx.load(path).graph
    return Signature(*(tuple(map(_tensor, side)) for side in (graph.input, graph.output)))


def _tensor(port: Any) -> Tensor:
    kind = port.type.tensor_type
    dims = tuple(dim.dim_param or dim.dim_value for dim in kind.shape.dim)
    return Tensor(port.name, BY_ONNX[kind.elem_type].numpy, dims)


@pytest.fixture(scope="module")
def library() -> Any:
    return load("tensorrt_rtx")


def build(library: Any, folder: Path, ports: Signature, model: Path | None = None, **options: Any) -> Built:
    """Convert `folder/model.onnx`, or `model` with the samples of the folder."""
    write_export(folder, ports, requests_for(folder, ports, SIZES))
    return convert_model(library, model or folder / "model.onnx", folder, ports, options)


def convolving(path: Path, ports: Signature = IMAGES, low: int | None = None) -> Path:
    """Conv, pooling, MatMul; between casts to `low` where it is given."""
    generator = np.random.default_rng(0)
    kind = np.float16 if low == TensorProto.FLOAT16 else np.float32
    weights = {
        "w": generator.standard_normal((8, 3, 3, 3)).astype(kind),
        "m": generator.standard_normal((8, 4)).astype(kind),
    }
    first, last = ("x", "y") if low is None else ("x_low", "y_low")
    nodes = [
        helper.make_node("Conv", [first, "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flat"),
        helper.make_node("MatMul", ["f", "m"], [last], name="times"),
    ]
    if low is not None:
        nodes.insert(0, helper.make_node("Cast", ["x"], [first], name="down", to=low))
        nodes.append(helper.make_node("Cast", [last], ["y"], name="up", to=TensorProto.FLOAT))
    return write_graph(path, ports, nodes, weights)


def quantized(path: Path) -> Path:
    """Conv between Q/DQ, per channel, and a MatMul that stays fp32."""
    generator = np.random.default_rng(0)
    weights = {
        "w8": generator.integers(-127, 127, (8, 3, 3, 3)).astype(np.int8),
        "ws": np.full(8, 0.01, np.float32),
        "wz": np.zeros(8, np.int8),
        "s": np.float32(0.02),
        "z": np.int8(0),
        "m": generator.standard_normal((8, 4)).astype(np.float32),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="quantize"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], name="dequantize"),
        helper.make_node("DequantizeLinear", ["w8", "ws", "wz"], ["w"], name="weights", axis=0),
        helper.make_node("Conv", ["d", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flat"),
        helper.make_node("MatMul", ["f", "m"], ["y"], name="times"),
    ]
    return write_graph(path, IMAGES, nodes, weights)


@pytest.mark.parametrize("make", [linear, drifting])
def test_small_models_are_built(make: Any, library: Any, tmp_path: Path) -> None:
    make(tmp_path / "model.onnx")
    built = build(library, tmp_path, LINEAR)
    assert len(built.plan) > 1000
    assert built.ports == LINEAR
    assert dict(built.proof.compute) == {"fp32": 1.0}
    (profile,) = built.profiles
    assert (profile["x"].smallest, profile["x"].best, profile["x"].largest) == ((1, 4), (8, 4), (8, 4))


@pytest.mark.parametrize("make", [overflowing, mixing])
def test_models_without_heavy_layers_prove_nothing(make: Any, library: Any, tmp_path: Path) -> None:
    make(tmp_path / "model.onnx")
    built = build(library, tmp_path, signature(["x:float32:batch,4"], ["y:float32:batch,4"]))
    assert built.plan
    assert built.proof.compute == ()


def test_external_data_is_read(library: Any, tmp_path: Path) -> None:
    import onnx

    model = onnx.load(linear(tmp_path / "model.onnx"))
    onnx.save(model, tmp_path / "model.onnx", save_as_external_data=True, location="w.data", size_threshold=0)
    assert (tmp_path / "w.data").is_file()
    assert build(library, tmp_path, LINEAR).plan


# What the parser refuses


def test_every_unsupported_node_is_named(library: Any, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Det", ["x"], ["d"], name="determinant"),
        helper.make_node("Bernoulli", ["x"], ["y"]),
    ]
    path = write_graph(
        tmp_path / "model.onnx", signature(["x:float32:n,3,3"], ["d:float32:n", "y:float32:n,3,3"]), nodes
    )
    with pytest.raises(BuildError) as error:
        parse(library, path)
    assert "has no operator Bernoulli, Det" in error.value.message
    assert "node 'determinant' (Det): not supported" in error.value.message
    assert "node 1 (Bernoulli), which writes 'y': not supported" in error.value.message
    assert "replace Bernoulli, Det" in error.value.remedy
    assert "onnxruntime+tensorrt" in error.value.remedy


def test_an_operator_of_a_foreign_domain_is_named(library: Any, tmp_path: Path) -> None:
    path = write_graph(
        tmp_path / "model.onnx", LINEAR, [helper.make_node("Wobble", ["x"], ["y"], name="odd", domain="com.own")]
    )
    with pytest.raises(BuildError, match=r"no operator Wobble: node 'odd' \(Wobble\): "):
        parse(library, path)


def test_a_node_that_is_wrong_is_named_with_the_reason(library: Any, tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "x"], ["y"], name="conv")]
    path = write_graph(tmp_path / "model.onnx", signature(["x:float32:n,3,3"], ["y:float32:n,3,3"]), nodes)
    with pytest.raises(BuildError) as error:
        parse(library, path)
    assert "refuses the model: node 'conv' (Conv): " in error.value.message
    assert "CUDA driver" not in error.value.message


def test_a_file_that_is_no_onnx(library: Any, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"nope")
    with pytest.raises(BuildError, match=r"refuses the model: the file: .*Failed to parse the ONNX model"):
        parse(library, tmp_path / "model.onnx")


def test_a_type_that_tensorrt_would_change_is_refused(library: Any, tmp_path: Path) -> None:
    doubles = signature(["x:float64:batch,4"], ["y:float64:batch,4"])
    path = write_graph(tmp_path / "model.onnx", doubles, [helper.make_node("Add", ["x", "x"], ["y"])])
    with pytest.raises(BuildError, match="reads the inputs x FLOAT; expected x None"):
        ports(parse(library, path), doubles)


def test_determinant_is_refused_by_the_whole_conversion(library: Any, tmp_path: Path) -> None:
    determinant(tmp_path / "model.onnx")
    with pytest.raises(BuildError, match="has no operator Det"):
        build(library, tmp_path, signature(["x:float32:batch,3,3"], ["y:float32:batch"]))


# Strong typing


def test_the_graph_decides_the_types(library: Any, tmp_path: Path) -> None:
    full = network_proof(parse(library, convolving(tmp_path / "full.onnx")))
    half = network_proof(parse(library, convolving(tmp_path / "half.onnx", low=TensorProto.FLOAT16)))
    assert dict(full.compute) == {"fp32": 1.0}
    assert dict(half.compute) == {"fp16": 1.0}
    assert dict(half.weights) == {"fp16": 1.0}


def test_bfloat16_is_taken_from_the_graph(library: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    nodes = [
        helper.make_node("Cast", ["x"], ["l"], to=TensorProto.BFLOAT16),
        helper.make_node("Cast", ["w"], ["v"], to=TensorProto.BFLOAT16),
        helper.make_node("MatMul", ["l", "v"], ["m"]),
        helper.make_node("Cast", ["m"], ["y"], to=TensorProto.FLOAT),
    ]
    write_graph(path, LINEAR, nodes, {"w": np.ones((4, 3), np.float32)})
    assert dict(network_proof(parse(library, path)).compute) == {"bf16": 1.0}


def test_quantised_nodes_are_int8_and_others_are_not(library: Any, tmp_path: Path) -> None:
    quantized(tmp_path / "model.onnx")
    built = build(library, tmp_path, IMAGES)
    shares = dict(built.proof.compute)
    assert set(shares) == {"int8", "fp32"}
    assert shares["int8"] > 0.8
    assert dict(built.proof.weights)["int8"] > 0.8
    assert built.plan


def test_a_quantised_convolution_of_one_axis_is_int8(library: Any, tmp_path: Path) -> None:
    """TensorRT has it with two, so a layer that adds an axis stands between the pair and the convolution."""
    ports = signature(["x:float32:batch,3,width"], ["y:float32:batch,8,width"])
    weights = {
        "w8": np.ones((8, 3, 3), np.int8),
        "ws": np.full(8, 0.01, np.float32),
        "wz": np.zeros(8, np.int8),
        "s": np.float32(0.02),
        "z": np.int8(0),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="quantize"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], name="dequantize"),
        helper.make_node("DequantizeLinear", ["w8", "ws", "wz"], ["w"], name="weights", axis=0),
        helper.make_node("Conv", ["d", "w"], ["y"], name="conv", pads=[1, 1]),
    ]
    path = write_graph(tmp_path / "model.onnx", ports, nodes, weights)
    assert dict(network_proof(parse(library, path)).compute) == {"int8": 1.0}


ONE_AXIS = signature(["x:float32:2,8"], ["y:float32:2,8"])
IMAGE = signature(["x:float32:2,3,6,6"], ["y:float32:2,outs,h,w"])
LACKED: dict[str, tuple[Signature, tuple[tuple[int, ...], ...], dict[str, Any]]] = {
    "Celu": (ONE_AXIS, (), {}),
    "ConvTranspose": (IMAGE, ((3, 4, 2, 2),), {"strides": [2, 2]}),
    "GlobalLpPool": (IMAGE, (), {}),
    "HardSwish": (ONE_AXIS, (), {}),
    "LpNormalization": (ONE_AXIS, (), {}),
    "LpPool": (IMAGE, (), {"kernel_shape": [2, 2]}),
    "MeanVarianceNormalization": (IMAGE, (), {}),
    "Mish": (ONE_AXIS, (), {}),
    "Shrink": (ONE_AXIS, (), {}),
}
"""Operator → ports, shapes of its weights, attributes."""


@pytest.mark.parametrize(
    ("dialect", "precision", "operator"), [(*key, name) for key in LACKING for name in sorted(LACKING[key])]
)
def test_what_tensorrt_lacks_in_16_bits_stays_in_fp32_and_is_built(
    library: Any, tmp_path: Path, dialect: str, precision: str, operator: str
) -> None:
    ports, shapes, attributes = LACKED[operator]
    weights = {f"w{place}": np.ones(shape, np.float32) for place, shape in enumerate(shapes)}
    nodes = [
        helper.make_node(operator, ["x", *weights], ["a"], name="lacked", **attributes),
        helper.make_node("Mul", ["a", "two"], ["y"], name="twice"),
    ]
    source = write_graph(tmp_path / "m.onnx", ports, nodes, weights | {"two": np.float32(2)})
    low = tmp_path / "low" / "model.onnx"
    low.parent.mkdir()
    convert_to_half(source, low, PrecisionJob(precision, dialect, ports, None, None, tmp_path, 23, 11), frozenset())
    network = parse(library, low)
    assert build_engine(network, make_config(network, Choices()), None)


def test_a_long_reason_ends_with_a_word() -> None:
    assert _reason("reason " * 40).endswith(" reason …")


def test_a_quantiser_that_left_everything_in_fp32_shows(library: Any, tmp_path: Path) -> None:
    """What reached TensorRT is proven, not what was asked for."""
    convolving(tmp_path / "model.onnx")
    assert dict(build(library, tmp_path, IMAGES).proof.compute) == {"fp32": 1.0}


# Profiles and the builder's choices


def test_sizes_come_from_batching_and_samples(library: Any, tmp_path: Path) -> None:
    convolving(tmp_path / "model.onnx")
    built = build(library, tmp_path, IMAGES, max_batch_size=16, best_batch_size=4)
    (profile,) = built.profiles
    assert (profile["x"].smallest, profile["x"].best, profile["x"].largest) == (
        (1, 3, 5, 5), (4, 3, 5, 5), (16, 3, 5, 5),
    )  # fmt: skip


def test_several_profiles_are_built_into_one_engine(library: Any, tmp_path: Path) -> None:
    convolving(tmp_path / "model.onnx")
    asked = [{"height": [8, 16, 32]}, {"height": [32, 64, 64], "width": [32, 32, 64]}]
    built = build(library, tmp_path, IMAGES, profiles=asked)
    assert [profile["x"].largest for profile in built.profiles] == [(8, 3, 32, 5), (8, 3, 64, 64)]
    assert built.plan


def test_a_profile_that_the_model_cannot_take_is_the_builders_refusal(library: Any, tmp_path: Path) -> None:
    """A kernel of 3 does not fit into an image of 1 without padding."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    write_graph(tmp_path / "model.onnx", IMAGES, nodes, {"w": np.ones((4, 3, 3, 3), np.float32)})
    with pytest.raises(BuildError, match=r"parsed the model and could not build an engine for it: .*conv"):
        build(library, tmp_path, IMAGES, profiles=[{"height": [1, 1, 1], "width": [1, 1, 1]}])


def test_a_wrong_axis_is_the_specs_fault(library: Any, tmp_path: Path) -> None:
    convolving(tmp_path / "model.onnx")
    with pytest.raises(SpecError, match="no input has an axis 'depth'") as error:
        build(library, tmp_path, IMAGES, profiles=[{"depth": [1, 2, 3]}])
    assert "height, width" in error.value.remedy


def test_an_input_that_is_a_shape_gets_its_values(library: Any, tmp_path: Path) -> None:
    """The engine must know the range of what Reshape is told."""
    shaped = signature(["x:float32:batch,4", "to:int64:2"], ["y:float32:a,b"])
    write_graph(tmp_path / "model.onnx", shaped, [helper.make_node("Reshape", ["x", "to"], ["y"])])
    from builder.samples import Request

    requests = []
    for rows in (2, 4, 8):
        inputs = random_inputs(signature(["x:float32:batch,4"], []), rows) | {"to": np.asarray([4, rows])}
        requests.append(Request(inputs, {"y": inputs["x"].reshape(4, rows)}, rows))
    write_export(tmp_path, shaped, requests, proven=False)
    built = convert_model(library, tmp_path / "model.onnx", tmp_path, shaped, {})
    assert built.plan
    assert built.profiles[0]["x"].largest == (8, 4)


def test_choices_reach_the_builder(library: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    network = parse(library, linear(tmp_path / "model.onnx"))
    plain = make_config(network, Choices())
    assert plain.get_flag(library.BuilderFlag.TF32)
    assert not plain.get_flag(library.BuilderFlag.VERSION_COMPATIBLE)
    options = {
        "workspace_bytes": 1 << 20,
        "version_compatible": True,
        "tf32": False,
        "hardware_compatible": "ampere_plus",
        "profiles": [{"n": [1, 1, 1]}],
    }
    config = make_config(network, Choices.of(options))
    assert config.get_memory_pool_limit(library.MemoryPoolType.WORKSPACE) == 1 << 20
    assert config.get_flag(library.BuilderFlag.VERSION_COMPATIBLE)
    assert not config.get_flag(library.BuilderFlag.TF32)
    assert config.profiling_verbosity == library.ProfilingVerbosity.DETAILED
    # The stand-in builds for other GPUs in another way, and says so of this one.
    assert "setHardwareCompatibilityLevel" in capfd.readouterr().err


def test_the_timing_cache_is_kept_and_read_again(library: Any, tmp_path: Path) -> None:
    """`tensorrt-rtx` keeps no timings in it, but it writes and reads the file as TensorRT does."""
    linear(tmp_path / "model.onnx")
    write_export(tmp_path, LINEAR, requests_for(tmp_path, LINEAR, SIZES))
    file = timing_cache_file(tmp_path / "shared", library, "NVIDIA H200 9.0")
    assert file.name == f"tensorrt-rtx-{library.__version__}-NVIDIA-H200-9.0.timing"
    for _ in range(2):
        convert_model(library, tmp_path / "model.onnx", tmp_path, LINEAR, {}, cache_file=file)
        assert file.stat().st_size > 0
        assert [item.name for item in file.parent.iterdir()] == [file.name]
    file.write_bytes(b"broken")
    convert_model(library, tmp_path / "model.onnx", tmp_path, LINEAR, {}, cache_file=file)
    assert file.read_bytes() != b"broken"


def test_progress_is_told_in_the_log(library: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    linear(tmp_path / "model.onnx")
    build(library, tmp_path, LINEAR)
    assert "tensorrt: Building engine: " in capfd.readouterr().err


def test_one_logger_for_the_process(library: Any) -> None:
    assert logger(library) is logger(library)


def test_branches_that_cannot_be_placed_are_named(library: Any, tmp_path: Path) -> None:
    """silero's main file, as shipped: TensorRT's builder stops in an assertion that names no node."""
    silero = pytest.importorskip("silero_vad", reason="silero-vad is not installed")
    path = Path(silero.__file__).parent / "data" / "silero_vad.onnx"
    stateful = signature(
        ["input:float32:n,samples", "state:float32:2,n,128", "sr:int64:"],
        ["output:float32:n,1", "stateN:float32:a,b,c"],
    )
    from builder.samples import Request

    inputs = {
        "input": np.zeros((1, 512), np.float32),
        "state": np.zeros((2, 1, 128), np.float32),
        "sr": np.asarray(16000, np.int64),
    }
    answers = {"output": np.zeros((1, 1), np.float32), "stateN": np.zeros((2, 1, 128), np.float32)}
    write_export(tmp_path, stateful, [Request(inputs, answers, 1)], proven=False)
    with pytest.raises(BuildError, match=r"the message is about the model's control flow: \d+ If\Z"):
        convert_model(library, path, tmp_path, stateful, {})


def test_the_proof_is_plain_json(library: Any, tmp_path: Path) -> None:
    from builder.records import to_json

    proof = network_proof(parse(library, linear(tmp_path / "model.onnx")))
    assert json.loads(json.dumps(to_json(proof)))["source"] == "TensorRT network"


@pytest.mark.parametrize("name", [name for name, made in vars(tiny_models).items() if _is_model(made)])
def test_every_small_model_is_built_or_its_operator_is_named(name: str, library: Any, tmp_path: Path) -> None:
    """The models that the whole build is tested with."""
    path = getattr(tiny_models, name)(tmp_path / "model.onnx")
    found = from_onnx(path)
    write_export(tmp_path, found, requests_for(tmp_path, found, SIZES))
    lacking = UNSUPPORTED.get(name)
    if lacking is None:
        assert convert_model(library, path, tmp_path, found, {}).plan
    else:
        with pytest.raises(BuildError, match=lacking):
            convert_model(library, path, tmp_path, found, {})
