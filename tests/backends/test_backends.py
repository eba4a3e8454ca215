"""What every row of the backend table keeps, and what each backend makes of hard models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from small_graphs import conversion, plain_answers, random_inputs, signature, write_graph

from builder.backends import BACKENDS, Backend, Settings, backend_module
from builder.errors import BuildError, MachineError
from builder.machine import has_nvidia_gpu
from builder.tensors import Signature

CPU = ("onnxruntime", "openvino")
RELEASE = "26.07"
LINEAR = signature(["x:float32:batch,16"], ["y:float32:batch,4"])


def site(*parts: str) -> Path:
    """A model that comes with an installed package."""
    import importlib.util

    spec = importlib.util.find_spec(parts[0])
    if spec is None or spec.origin is None:
        pytest.skip(f"{parts[0]} is not installed")
    return Path(spec.origin).parent.joinpath(*parts[1:])


def converted(word: str, tmp_path: Path, ports: Signature, precision: str = "fp32") -> tuple[Backend, Path, Signature]:
    """`tmp_path/export/model.onnx` converted by a backend."""
    backend = backend_module(word)
    out = tmp_path / f"{word}-{precision}-{len(list(tmp_path.iterdir()))}"
    out.mkdir()
    assert backend.refuses(ports, RELEASE) is None
    return backend, out, backend.convert(conversion(tmp_path / "export", ports, precision), out)


def run(word: str, tmp_path: Path, ports: Signature, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    backend, out, _ = converted(word, tmp_path, ports)
    session = backend.open_session(out, ports, Settings())
    try:
        return dict(session.run(inputs))
    finally:
        session.close()


def linear(tmp_path: Path, weights: np.ndarray | None = None) -> Path:
    values = np.random.default_rng(1).standard_normal((16, 4)).astype(np.float32) if weights is None else weights
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")]
    return write_graph(tmp_path / "export" / "model.onnx", LINEAR, nodes, {"w": values})


@pytest.mark.parametrize("word", BACKENDS)
def test_every_row_keeps_the_protocol(word):
    backend = backend_module(word)
    assert backend.GRAPHS
    assert backend.FILENAME.startswith("model.")
    assert all(isinstance(name, str) for name in backend.LIBRARIES)
    assert backend.refuses(LINEAR, RELEASE) is None
    lack = backend.missing()
    assert lack is None or all(lack)


@pytest.mark.parametrize("word", CPU)
def test_a_model_keeps_its_ports_and_answers(word, tmp_path):
    path = linear(tmp_path)
    backend, out, ports = converted(word, tmp_path, LINEAR)
    assert ports == LINEAR
    session = backend.open_session(out, LINEAR, Settings())
    inputs = random_inputs(LINEAR, 3)
    weights = np.random.default_rng(1).standard_normal((16, 4)).astype(np.float32)
    np.testing.assert_allclose(session.run(inputs)["y"], inputs["x"] @ weights, rtol=2e-2, atol=2e-2)
    assert session.compute.split(", ")[0] in ("fp32", "bf16", "fp16")
    assert "CPU" in session.compute
    session.close()
    assert path.exists()


@pytest.mark.parametrize("word", CPU)
def test_the_same_model_gives_the_same_bytes(word, tmp_path):
    linear(tmp_path)
    first, second = (converted(word, tmp_path, LINEAR)[1] for _ in range(2))
    files = sorted(file.name for file in first.iterdir())
    assert files == sorted(file.name for file in second.iterdir())
    for name in files:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
        assert str(tmp_path).encode() not in (first / name).read_bytes()


ODD = signature(
    ["a b/c:float32:batch,3"],
    ['{"k": 1}:float32:batch,3', "z:0:float32:batch,3", "same/in:float32:batch,3", "const:float32:2"],
)


@pytest.mark.parametrize("word", CPU)
def test_odd_names_and_outputs_without_a_node_of_their_own(word, tmp_path):
    value = helper.make_tensor("v", TensorProto.FLOAT, [2], [1.0, 2.0])
    nodes = [
        helper.make_node("Relu", ["a b/c"], ['{"k": 1}']),
        helper.make_node("Identity", ['{"k": 1}'], ["z:0"]),
        helper.make_node("Identity", ["a b/c"], ["same/in"]),
        helper.make_node("Constant", [], ["const"], value=value),
    ]
    write_graph(tmp_path / "export" / "model.onnx", ODD, nodes)
    assert converted(word, tmp_path, ODD)[2] == ODD
    inputs = random_inputs(ODD, 2)
    answer = run(word, tmp_path, ODD, inputs)
    x = inputs["a b/c"]
    assert list(answer) == [item.name for item in ODD.outputs]
    for name, wanted in zip(answer, (np.maximum(x, 0), np.maximum(x, 0), x, [1.0, 2.0]), strict=True):
        np.testing.assert_array_equal(answer[name], np.asarray(wanted, np.float32))


@pytest.mark.parametrize("word", CPU)
def test_an_input_that_is_also_an_output_keeps_its_own_memory(word, tmp_path):
    ports = signature(["x:float32:batch,3"], ["same:float32:batch,3", "y:float32:batch,3"])
    one = helper.make_tensor("v", TensorProto.FLOAT, [], [1.0])
    nodes = [
        helper.make_node("Identity", ["x"], ["same"]),
        helper.make_node("Constant", [], ["one"], value=one),
        helper.make_node("Add", ["x", "one"], ["y"]),
    ]
    write_graph(tmp_path / "export" / "model.onnx", ports, nodes)
    backend, out, _ = converted(word, tmp_path, ports)
    for seed in range(5):
        session = backend.open_session(out, ports, Settings())
        for rows in np.random.default_rng(seed).integers(1, 6, 60):
            x = np.random.default_rng(int(rows)).standard_normal((rows, 3)).astype(np.float32)
            np.testing.assert_array_equal(session.run({"x": x})["same"], x)
        session.close()


@pytest.mark.parametrize("word", CPU)
def test_a_port_that_an_operator_without_effect_shares_is_found(word, tmp_path):
    ports = signature(["x:float32:batch,3"], ["y:float32:batch,3", "many:bool:batch,3"])
    nodes = [helper.make_node("Mul", ["x", "w"], ["a"]), helper.make_node("Relu", ["a"], ["y"])]
    nodes.append(helper.make_node("Greater", ["a", "w"], ["many"]))
    write_graph(tmp_path / "export" / "model.onnx", ports, nodes, {"w": np.ones(3, np.float32)})
    inputs = random_inputs(ports, 2)
    np.testing.assert_array_equal(run(word, tmp_path, ports, inputs)["y"], np.maximum(inputs["x"], 0))


@pytest.mark.parametrize("word", CPU)
def test_an_unused_input_stays(word, tmp_path):
    ports = signature(["x:float32:batch,3", "unused:int64:batch"], ["y:float32:batch,3"])
    write_graph(tmp_path / "export" / "model.onnx", ports, [helper.make_node("Relu", ["x"], ["y"])])
    assert converted(word, tmp_path, ports)[2] == ports
    assert run(word, tmp_path, ports, random_inputs(ports, 2))["y"].shape == (2, 3)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "int16", "uint16", "int32", "int64", "float16", "float32"])
@pytest.mark.parametrize("word", CPU)
def test_element_types_pass_unchanged(word, dtype, tmp_path):
    ports = signature([f"x:{dtype}:batch,3"], [f"y:{dtype}:batch,3"])
    write_graph(tmp_path / "export" / "model.onnx", ports, [helper.make_node("Identity", ["x"], ["y"])])
    inputs = random_inputs(ports, 2)
    answer = run(word, tmp_path, ports, inputs)["y"]
    assert answer.dtype == inputs["x"].dtype
    np.testing.assert_array_equal(answer, inputs["x"])


# onnxruntime


def test_onnxruntime_strings_and_bfloat16(tmp_path):
    import ml_dtypes

    ports = signature(["s:string:batch"], ["t:string:batch"])
    write_graph(tmp_path / "export" / "model.onnx", ports, [helper.make_node("Identity", ["s"], ["t"])])
    words = np.array(["één", "b", ""], dtype=object)
    assert run("onnxruntime", tmp_path, ports, {"s": words})["t"].tolist() == words.tolist()

    ports = signature(["x:bfloat16:batch,2"], ["y:bfloat16:batch,2", "z:float32:batch,2"])
    nodes = [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Cast", ["x"], ["z"], to=1)]
    write_graph(tmp_path / "export" / "model.onnx", ports, nodes)
    x = np.array([[1.5, -2.0], [3.0, 0.1]], dtype=ml_dtypes.bfloat16)
    answer = run("onnxruntime", tmp_path, ports, {"x": x})
    assert answer["y"].dtype == x.dtype
    np.testing.assert_array_equal(answer["y"], x)
    np.testing.assert_array_equal(answer["z"], x.astype(np.float32))


def test_onnxruntime_takes_bfloat16_from_26_03():
    backend = backend_module("onnxruntime")
    ports = signature(["x:bfloat16:batch"], ["y:bfloat16:batch"])
    assert "TYPE_BF16 for input 'x'" in (backend.refuses(ports, "26.02") or "")
    assert backend.refuses(ports, "26.03") is None


def test_onnxruntime_keeps_external_data_beside_the_model(tmp_path):
    import onnx

    path = linear(tmp_path)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    _, out, _ = converted("onnxruntime", tmp_path, LINEAR)
    assert sorted(file.name for file in out.iterdir()) == ["model.onnx", "model.onnx.data"]
    assert run("onnxruntime", tmp_path, LINEAR, random_inputs(LINEAR, 2))["y"].shape == (2, 4)


def test_onnxruntime_says_what_it_does_not_know(tmp_path):
    nodes = [helper.make_node("Wobble", ["x"], ["y"], domain="my.ops")]
    write_graph(tmp_path / "export" / "model.onnx", LINEAR, nodes)
    with pytest.raises(BuildError, match=r"Wobble") as caught:
        converted("onnxruntime", tmp_path, LINEAR)
    assert str(tmp_path) not in caught.value.message


def test_onnxruntime_reports_what_the_file_declares(tmp_path):
    ports = signature(["x:float32:batch,3"], ["y:float32:batch,width"])
    write_graph(tmp_path / "export" / "model.onnx", ports, [helper.make_node("Relu", ["x"], ["y"])])
    assert converted("onnxruntime", tmp_path, ports)[2].outputs[0].shape == ("batch", 3)


# openvino


@pytest.mark.parametrize(
    ("inputs", "outputs", "words"),
    [
        (["x:float64:batch,2"], ["y:float32:batch,2"], "unsupported datatype TYPE_FP64 for input 'x'"),
        (["x:float32:batch,2"], ["y:string:batch"], "unsupported datatype TYPE_STRING for output 'y'"),
        (["x:bfloat16:batch,2"], ["y:float32:batch"], "unsupported datatype TYPE_BF16 for input 'x'"),
        (["x:float32:batch,2", "rate:int64:"], ["y:float32:batch"], "input 'rate' is a scalar (rank 0)"),
        (["x:float32:batch,2"], ["y:float32:"], "output 'y' is a scalar (rank 0)"),
        (["x:float32:batch,2"], ["x:float32:batch,2"], "output 'x' is the input of that name"),
    ],
)
def test_openvino_refuses_what_the_native_backend_refuses(inputs, outputs, words):
    assert words in (backend_module("openvino").refuses(signature(inputs, outputs), RELEASE) or "")


@pytest.mark.parametrize(
    ("ports", "nodes", "given", "shape"),
    [
        (
            signature(["x:float32:batch,length"], ["y:float32:batch,cut"]),
            [helper.make_node("Slice", ["x", "zero", "five", "one"], ["y"])],
            np.zeros((2, 9), np.float32),
            (2, 5),
        ),
        (
            signature(["x:float32:4,5"], ["y:int64:2,found"]),
            [helper.make_node("NonZero", ["x"], ["y"])],
            np.eye(4, 5, dtype=np.float32),
            (2, 4),
        ),
    ],
)
def test_openvino_outputs_have_no_upper_bound(ports, nodes, given, shape, tmp_path):
    """The native backend takes `-1` in the configuration only for a dimension without one."""
    import openvino

    numbers = {"zero": 0, "one": 1, "five": 5}
    weights = {name: np.array([number], np.int64) for name, number in numbers.items()}
    write_graph(tmp_path / "export" / "model.onnx", ports, nodes, weights)
    _, out, found = converted("openvino", tmp_path, ports)
    assert found == ports
    model = openvino.Core().read_model(out / "model.xml")
    for dim in model.outputs[0].get_partial_shape():
        assert dim.is_static or dim.get_max_length() == -1
    assert run("openvino", tmp_path, ports, {"x": given})["y"].shape == shape


def test_openvino_names_the_operator_it_lacks(tmp_path):
    nodes = [helper.make_node("Wobble", ["x"], ["y"], domain="my.ops")]
    write_graph(tmp_path / "export" / "model.onnx", LINEAR, nodes)
    with pytest.raises(BuildError) as caught:
        converted("openvino", tmp_path, LINEAR)
    assert caught.value.message.endswith("it has no such operator: my.ops.Wobble")
    assert "\n" not in caught.value.message


def test_openvino_fp16_halves_the_weights(tmp_path):
    linear(tmp_path)
    sizes = [(converted("openvino", tmp_path, LINEAR, p)[1] / "model.bin").stat().st_size for p in ("fp32", "fp16")]
    assert sizes[1] < 0.6 * sizes[0]


def test_openvino_fp16_that_stays_fp32_is_refused(tmp_path):
    weights = np.random.default_rng(1).standard_normal((16, 4)).astype(np.float32) * 1e6
    linear(tmp_path, weights)
    with pytest.raises(BuildError, match="0 of 64 weights in fp16") as caught:
        converted("openvino", tmp_path, LINEAR, "fp16")
    assert "openvino:fp32" in caught.value.remedy


@pytest.mark.parametrize("word", CPU)
def test_magika_as_it_is_shipped(word, tmp_path):
    import shutil

    (tmp_path / "export").mkdir()
    shutil.copy(site("magika", "models", "standard_v3_3", "model.onnx"), tmp_path / "export" / "model.onnx")
    ports = signature(["bytes:int32:batch,2048"], ["target_label:float32:batch,214"])
    assert converted(word, tmp_path, ports)[2] == ports
    answer = run(word, tmp_path, ports, random_inputs(ports, 3))["target_label"]
    np.testing.assert_allclose(answer.sum(axis=-1), 1.0, atol=2e-2)


# tensorrt


@pytest.mark.skipif(has_nvidia_gpu(), reason="this machine has an NVIDIA GPU")
def test_tensorrt_without_a_gpu_names_the_choices(tmp_path):
    backend = backend_module("tensorrt")
    lack = backend.missing()
    assert lack is not None
    what, remedy = lack
    assert "NVIDIA GPU" in what
    assert all(word in remedy for word in ("remove the tensorrt target", "--defer", "machine with an NVIDIA GPU"))
    with pytest.raises(MachineError):
        backend.convert(conversion(tmp_path, LINEAR), tmp_path)


def test_tensorrt_refuses_types_it_lacks():
    ports = signature(["x:int16:batch,2"], ["y:float32:batch,2"])
    assert "unsupported datatype TYPE_INT16 for input 'x'" in (backend_module("tensorrt").refuses(ports, RELEASE) or "")


@pytest.mark.parametrize(
    ("options", "file"),
    [
        ({}, "model_sm90.plan"),
        ({"hardware_compatible": "same_compute_capability"}, "model_sm90.plan"),
        ({"hardware_compatible": "ampere_plus"}, "model.plan"),
    ],
)
def test_an_engine_is_named_after_the_gpus_it_is_for(options, file):
    from builder.backends.tensorrt import engine_file

    assert engine_file(options, "9.0") == file


def test_openvino_in_bf16_is_told_to_the_server_and_proven(tmp_path: Path):
    write_graph(
        tmp_path / "export" / "model.onnx",
        LINEAR,
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        {"w": np.random.default_rng(0).standard_normal((16, 4)).astype(np.float32)},
    )
    backend, out, _ = converted("openvino", tmp_path, LINEAR, "bf16")
    settings = Settings("bf16")
    assert backend.config_fields(settings) == {"parameters": {"HINT_BF16": {"string_value": "YES"}}}
    session = backend.open_session(out, LINEAR, settings)
    proof = session.precision_proof()
    assert proof is not None
    assert proof.weights == (("fp32", 1.0),)
    import openvino

    able = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert proof.compute == ((("bf16" if able else "fp32"), 1.0),)
    session.close()


def test_weights_beyond_fp16_stay_as_they_are_in_openvino(tmp_path: Path):
    """OpenVINO would store 65504 in their place."""
    generator = np.random.default_rng(0)
    weights = generator.standard_normal((16, 1024)).astype(np.float32)
    large = generator.standard_normal((1024, 4)).astype(np.float32)
    large[0, :2] = 2e5, -3e5
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("MatMul", ["m", "large"], ["y"])]
    write_graph(tmp_path / "export" / "model.onnx", LINEAR, nodes, {"w": weights, "large": large})
    backend, out, _ = converted("openvino", tmp_path, LINEAR, "fp16")
    session = backend.open_session(out, LINEAR, Settings("fp16"))
    proof = session.precision_proof()
    assert proof is not None
    assert dict(proof.weights) == {"fp16": 0.8, "fp32": 0.2}
    inputs = random_inputs(LINEAR, 3)
    expected = plain_answers(tmp_path / "export", inputs, LINEAR)["y"]
    np.testing.assert_allclose(session.run(inputs)["y"], expected, rtol=0, atol=0.02 * np.abs(expected).max())
    session.close()


def test_what_runs_nowhere_in_bf16_is_not_said_to(tmp_path: Path):
    """On a CPU with bf16 units the plugin may use the type; here nothing does."""
    ports = signature(["x:float32:batch,16"], ["y:float32:batch,16"])
    write_graph(tmp_path / "export" / "model.onnx", ports, [helper.make_node("Sin", ["x"], ["y"])])
    backend, out, _ = converted("openvino", tmp_path, ports)
    session = backend.open_session(out, ports, Settings())
    assert session.compute == "fp32, CPU"
    session.close()


def test_converting_with_openvino_tells_nobody(tmp_path: Path):
    """The converter's telemetry would write its settings into the home folder and send from there."""
    import os
    import subprocess
    import sys

    write_graph(
        tmp_path / "export" / "model.onnx",
        LINEAR,
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        {"w": np.ones((16, 4), np.float32)},
    )
    script = (
        "import sys; from pathlib import Path; from small_graphs import conversion, signature\n"
        "from builder.backends import backend_module\n"
        "ports = signature(['x:float32:batch,16'], ['y:float32:batch,4'])\n"
        "out = Path(sys.argv[1]) / 'out'; out.mkdir()\n"
        "backend_module('openvino').convert(conversion(Path(sys.argv[1]) / 'export', ports), out)\n"
    )
    home = tmp_path / "home"
    home.mkdir()
    here = Path(__file__).resolve().parents[1]
    python = os.environ | {"HOME": str(home), "PYTHONPATH": os.pathsep.join((str(here), str(here.parent)))}
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=python, check=True, timeout=120)
    assert (tmp_path / "out" / "model.xml").is_file()
    assert list(home.iterdir()) == []


def test_openvino_runs_with_the_threads_and_streams_of_the_spec(tmp_path):
    linear(tmp_path)
    backend, out, _ = converted("openvino", tmp_path, LINEAR)
    session = backend.open_session(out, LINEAR, Settings("fp32", {"threads": 1, "streams": 1, "hint": "throughput"}))
    compiled = session._compiled
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
    assert int(compiled.get_property("NUM_STREAMS")) == 1
    assert "THROUGHPUT" in str(compiled.get_property("PERFORMANCE_HINT"))
    assert session.run(random_inputs(LINEAR, 2))["y"].shape == (2, 4)
    session.close()
