"""The native backends' verdicts, one row per line of what was seen on a real server (C++ backends of 24.10)."""

from __future__ import annotations

import ast
import copy
import sys
from pathlib import Path
from typing import Any

import pytest

from builder import native_rules
from builder.native_rules import refusals
from builder.native_warnings import warnings
from builder.tensors import DTYPES

Json = dict[str, Any]


def make_ports(batch: int = -1) -> Json:
    """The model of the table: x FP32 [N,3,32,32] → y FP32 [N,10]."""
    return {
        "inputs": [{"name": "x", "dtype": "float32", "shape": [batch, 3, 32, 32]}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": [batch, 10]}],
    }


def make_config(backend: str, max_batch_size: int, **changes: Any) -> Json:
    lead = [] if max_batch_size else ["-1"]
    config: Json = {
        "name": "NAME",
        "backend": backend,
        "max_batch_size": max_batch_size,
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [*lead, "3", "32", "32"]}],
        "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [*lead, "10"]}],
        "instance_group": [{"count": 1, "kind": "KIND_CPU"}],
    }
    return config | changes


def io(name: str, data_type: str, *dims: int) -> Json:
    return {"name": name, "data_type": f"TYPE_{data_type}", "dims": list(dims)}


ORT8, ORT0, OV8, OV1, OV0 = (
    ("onnxruntime", 8),
    ("onnxruntime", 0),
    ("openvino", 8),
    ("openvino", 1),
    ("openvino", 0),
)
BATCHED = (
    "(an initial batch dimension because max_batch_size > 0 followed by the explicit tensor shape, making complete "
)
WANTED = "but the model configuration specifies "
X = f"model 'NAME', tensor 'x': the model expects 4 dimensions (shape [-1,3,32,32]) {WANTED}"
Y = f"model 'NAME', tensor 'y': the model expects 2 dimensions (shape [-1,10]) {WANTED}"
Y8 = Y.replace("[-1,10]", "[8,10]")
TWO_INPUTS = [io("x", "FP32", 3, 32, 32), io("z", "FP32", 3)]
TWO_OUTPUTS = [io("y", "FP32", 10), io("y2", "FP32", 10)]
MUST_BATCH = (
    "model 'NAME', tensor 'x': for the model to support batching the shape should have at least 1 dimension and the "
    "first dimension must be -1; but shape expected by the model is [4,3,32,32]"
)

# what · backend, max_batch_size · changes to the config · the model's batch axis · auto-complete · first reason or None
ROWS: list[tuple[str, tuple[str, int], Json, int, bool, str | None]] = [
    ("as it should be", ORT8, {}, -1, False, None),
    ("as it should be", ORT8, {}, -1, True, None),
    ("as it should be", ORT0, {}, -1, False, None),
    ("as it should be", OV0, {}, -1, False, None),
    ("as it should be", OV0, {}, -1, True, None),
    ("as it should be", OV1, {}, -1, False, None),
    ("as it should be", OV8, {}, -1, False, None),
    # a dim differs, wrong rank, wrong output dims
    ("dim", ORT8, {"input": [io("x", "FP32", 3, 31, 32)]}, -1, False, f"{X}4 dimensions {BATCHED}shape [-1,3,31,32])"),
    ("dim", OV8, {"input": [io("x", "FP32", 3, 31, 32)]}, -1, False, f"{X}4 dimensions {BATCHED}shape [8,3,31,32])"),
    ("dim", ORT0, {"input": [io("x", "FP32", -1, 3, 31, 32)]}, -1, False, f"{X}4 dimensions (shape [-1,3,31,32])"),
    ("dim", OV0, {"input": [io("x", "FP32", -1, 3, 31, 32)]}, -1, False, f"{X}4 dimensions (shape [-1,3,31,32])"),
    ("rank", ORT8, {"input": [io("x", "FP32", 3, 32)]}, -1, False, f"{X}3 dimensions {BATCHED}shape [-1,3,32])"),
    ("rank", OV8, {"input": [io("x", "FP32", 3, 32)]}, -1, False, f"{X}3 dimensions {BATCHED}shape [8,3,32])"),
    ("output dims", ORT8, {"output": [io("y", "FP32", 11)]}, -1, False,
     (f"{Y}2 dimensions {BATCHED}shape [-1,11])")),
    ("output dims", OV8, {"output": [io("y", "FP32", 11)]}, -1, False,
     (f"{Y8}2 dimensions {BATCHED}shape [8,11])")),
    ("output fixed where the model is dynamic", ORT0, {"output": [io("y", "FP32", 4, 10)]}, -1, False,
     (f"{Y}2 dimensions (shape [4,10])")),
    ("output fixed where the model is dynamic", OV0, {"output": [io("y", "FP32", 4, 10)]}, -1, False, None),
    ("input fixed where the model is dynamic", ORT0, {"input": [io("x", "FP32", 4, 3, 32, 32)]}, -1, False, None),
    # dtype
    ("dtype", ORT8, {"input": [io("x", "FP16", 3, 32, 32)]}, -1, False,
     "unable to load model 'NAME', configuration expects datatype TYPE_FP16 for input 'x', model provides TYPE_FP32"),
    ("dtype", OV8, {"input": [io("x", "FP16", 3, 32, 32)]}, -1, False, None),
    ("output dtype", OV0, {"output": [io("y", "INT32", -1, 10)]}, -1, False, None),
    ("FP64", OV0, {"output": [io("y", "FP64", -1, 10)]}, -1, False,
     "unsupported datatype TYPE_FP64 for output 'y' for model 'NAME'"),
    ("BF16", OV0, {"input": [io("x", "BF16", -1, 3, 32, 32)]}, -1, False,
     "unsupported datatype TYPE_BF16 for input 'x' for model 'NAME'"),
    ("STRING", OV0, {"input": [io("x", "STRING", -1, 3, 32, 32)]}, -1, False,
     "unsupported datatype TYPE_STRING for input 'x' for model 'NAME'"),
    # names and counts
    ("input name", ORT8, {"input": [io("z", "FP32", 3, 32, 32)]}, -1, False,
     "unexpected inference input 'z', allowed inputs are: x"),
    ("input name", OV0, {"input": [io("z", "FP32", -1, 3, 32, 32)]}, -1, False,
     "unexpected inference input 'z', allowed inputs are: x"),
    ("output name", ORT8, {"output": [io("z", "FP32", 10)]}, -1, False,
     "unexpected inference output 'z', allowed outputs are: y"),
    ("output name", OV0, {"output": [io("z", "FP32", -1, 10)]}, -1, False,
     "unexpected inference output 'z', allowed outputs are: y"),
    ("input too many", ORT8, {"input": TWO_INPUTS}, -1, False,
     "unable to load model 'NAME', configuration expects 2 inputs, model provides 1"),
    ("input too many", OV8, {"input": TWO_INPUTS}, -1, False,
     "unable to load model 'NAME', configuration expects 2 inputs, model provides 1"),
    ("output too many", ORT8, {"output": TWO_OUTPUTS}, -1, False,
     "unexpected inference output 'y2', allowed outputs are: y"),
    ("output too many", OV8, {"output": TWO_OUTPUTS}, -1, False,
     "unexpected inference output 'y2', allowed outputs are: y"),
    # the batch axis
    ("no batch axis in dims", ORT0, {"input": [io("x", "FP32", 3, 32, 32)]}, -1, False,
     f"{X}3 dimensions (shape [3,32,32])"),
    ("no batch axis in dims", OV0, {"input": [io("x", "FP32", 3, 32, 32)]}, -1, False,
     f"{X}3 dimensions (shape [3,32,32])"),
    ("fixed batch 4", ORT8, {}, 4, False, MUST_BATCH),
    ("fixed batch 4", OV8, {}, 4, False, None),
    # -1 where the model is fixed
    ("-1 for fixed", ORT8, {"input": [io("x", "FP32", 3, -1, 32)]}, -1, False,
     f"{X}4 dimensions {BATCHED}shape [-1,3,-1,32])"),
    ("-1 for fixed", OV8, {"input": [io("x", "FP32", 3, -1, 32)]}, -1, False, None),
    ("-1 for fixed, unbatched", OV0, {"input": [io("x", "FP32", -1, 3, -1, 32)]}, -1, False,
     f"{X}4 dimensions (shape [-1,3,-1,32])"),
    ("-1 for fixed output", OV8, {"output": [io("y", "FP32", -1)]}, -1, False,
     (f"{Y8}2 dimensions {BATCHED}shape [8,-1])")),
    # instances
    ("KIND_GPU", ORT8, {"instance_group": [{"kind": "KIND_GPU"}]}, -1, False,
     "instance group NAME_0 of model NAME has kind KIND_GPU but no GPUs are available"),
    ("KIND_GPU", OV8, {"instance_group": [{"kind": "KIND_GPU"}]}, -1, False,
     "instance group NAME_0 of model NAME has kind KIND_GPU but no GPUs are available"),
    ("KIND_AUTO", ORT8, {"instance_group": [{"kind": "KIND_AUTO"}]}, -1, False, None),
    # no output section
    ("no output section", ORT8, {"output": []}, -1, False, None),
    ("no output section", OV0, {"output": []}, -1, False, None),
    ("no output section, auto-complete", ORT8, {"output": []}, -1, True, None),
    ("no output section, auto-complete, max_batch_size 0", ORT0, {"output": []}, -1, True,
     f"{X}5 dimensions {BATCHED}shape [-1,-1,3,32,32])"),
    ("no output section, auto-complete", OV0, {"output": []}, -1, True,
     (f"{Y}2 dimensions (shape [-1,-1])")),
    ("nothing given, auto-complete", ORT0, {"input": [], "output": []}, -1, True, None),
    ("nothing given, auto-complete, fixed model", OV0, {"input": [], "output": []}, 4, True, None),
    ("nothing given, auto-complete, fixed model", ORT8, {"input": [], "output": []}, 4, True,
     "autofill failed for model 'NAME': model does not support batching while non-zero max_batch_size is specified"),
    ("no input section", ORT8, {"input": []}, -1, False,
     "unable to load model 'NAME', configuration expects 0 inputs, model provides 1"),
    # parameters of openvino
    ("threads", OV0, {"parameters": {"INFERENCE_NUM_THREADS": {"string_value": "1"}}}, -1, False, None),
    ("threads", OV0, {"parameters": {"INFERENCE_NUM_THREADS": {"string_value": "two"}}}, -1, False,
     "expected the parameter 'INFERENCE_NUM_THREADS' to be a non-negative number, got two"),
    ("threads", OV0, {"parameters": {"COMPILATION_NUM_THREADS": {"string_value": "1"}}}, -1, False,
     "configuring openvino core: the parameter 'COMPILATION_NUM_THREADS' is refused with value 1"),
    ("hint", OV0, {"parameters": {"HINT_BF16": {"string_value": "no"}}}, -1, False,
     "expected the parameter 'HINT_BF16' to be YES, got no"),
    # the core
    ("preferred size", ORT8, {"dynamic_batching": {"preferred_batch_size": [16]}}, -1, False,
     "dynamic batching preferred size must be <= max batch size for NAME"),
    ("preferred size", ORT0, {"dynamic_batching": {"preferred_batch_size": [1]}}, -1, False,
     "dynamic batching preferred size must be <= max batch size for NAME"),
    ("gpus on a CPU", ORT8, {"instance_group": [{"kind": "KIND_CPU", "gpus": [0]}]}, -1, False,
     "instance group NAME_0 of model NAME has kind KIND_CPU but specifies one or more GPUs"),
    ("dims 0", ORT8, {"input": [io("x", "FP32", 0)]}, -1, False,
     "model input 'x' dimension must be integer >= 1, or -1 to indicate a variable-size dimension"),
    ("no dims", ORT8, {"input": [io("x", "FP32")]}, -1, False, "model input 'x' must specify 'dims'"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("what", "backend", "changes", "batch", "auto_complete", "reason"),
    ROWS,
    ids=[f"{row[1][0]}-{row[1][1]}-{row[0]}-{'auto' if row[4] else 'strict'}" for row in ROWS],
)
def test_verdict_of_the_native_backend(  # noqa: PLR0917
    what: str, backend: tuple[str, int], changes: Json, batch: int, auto_complete: bool, reason: str | None
) -> None:
    config, ports = make_config(*backend, **changes), make_ports(batch)
    before = copy.deepcopy((config, ports))
    found = refusals(backend[0], config, ports, auto_complete=auto_complete, release="24.10")
    assert (found[0] if found else None) == reason, what
    assert (config, ports) == before, "the arguments must stay as they were"


def test_kind_gpu_with_gpus() -> None:
    group = {"instance_group": [{"kind": "KIND_GPU"}]}
    assert not refusals(
        "onnxruntime", make_config("onnxruntime", 8, **group), make_ports(), auto_complete=False, gpus=1
    )
    found = refusals("openvino", make_config("openvino", 0, **group), make_ports(), auto_complete=False, gpus=1)
    assert found == ["unable to load model 'NAME', Triton openVINO backend supports only CPU device"]


def scalar_model(**io_changes: Any) -> tuple[Json, Json]:
    ports: Json = {
        "inputs": [{"name": "rate", "dtype": "int64", "shape": []}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": [-1]}],
    }
    config = {"name": "m", "max_batch_size": 0, "output": [io("y", "FP32", -1)]}
    return config | {"input": [io("rate", "INT64", 1) | io_changes]}, ports


def test_scalars_load_in_onnxruntime_as_dims_1_and_never_in_openvino() -> None:
    config, ports = scalar_model()
    assert not refusals("onnxruntime", config, ports, auto_complete=False)
    assert refusals("openvino", config, ports, auto_complete=False) == [
        (
            "model 'm', tensor 'rate': the model expects 0 dimensions (shape []) but the model configuration specifies "
            "1 dimensions (shape [1])"
        )
    ]
    config, ports = scalar_model(dims=[2])
    assert (
        "scalar tensor 'rate', should only provide 1" in refusals("onnxruntime", config, ports, auto_complete=False)[0]
    )


def test_empty_reshape_needs_batching() -> None:
    config, ports = scalar_model(reshape={})
    assert refusals("onnxruntime", config, ports, auto_complete=False) == [
        "model input 'rate' cannot have empty reshape for non-batching model as scalar tensors are not supported"
    ]
    ports = {"inputs": [{"name": "x", "dtype": "float32", "shape": [-1]}], "outputs": []}
    config = {"name": "m", "max_batch_size": 4, "input": [io("x", "FP32", 1) | {"reshape": {"shape": []}}]}
    assert not refusals("onnxruntime", config, ports, auto_complete=False)


@pytest.mark.parametrize(
    ("dims", "shape", "problem"),
    [
        ([2, 4, -1, 6], [8, -1, 1, 6], None),
        ([2, 4, -1, 6], [8, -1, 5], "has different size for dims and reshape"),
        ([-1, -1], [-1], "has different number of variable-size dimensions for dims and reshape"),
        ([4], [2, 3], "has different size for dims and reshape"),
        ([4], [0], "reshape dimensions must be integer >= 1, or -1 to indicate a variable-size dimension"),
    ],
)
def test_reshape(dims: list[int], shape: list[int], problem: str | None) -> None:
    config = {"name": "m", "input": [io("x", "FP32", *dims) | {"reshape": {"shape": shape}}]}
    found = refusals("onnxruntime", config, {}, auto_complete=False)
    assert found == ([f"model input 'x' {problem}"] if problem else [])


def test_reshape_is_what_is_compared_with_the_model() -> None:
    config = make_config("onnxruntime", 8, input=[io("x", "FP32", 3, 1024) | {"reshape": {"shape": [3, 32, 32]}}])
    assert not refusals("onnxruntime", config, make_ports(), auto_complete=False)


def test_bfloat16_needs_26_03_in_onnxruntime() -> None:
    ports: Json = {"inputs": [{"name": "x", "dtype": "bfloat16", "shape": [-1, 2]}], "outputs": []}
    config = {"name": "m", "max_batch_size": 8, "input": [io("x", "BF16", 2)]}
    assert not refusals("onnxruntime", config, ports, auto_complete=False, release="26.03")
    found = refusals("onnxruntime", config, ports, auto_complete=False, release="26.02")
    assert found == ["unsupported datatype TYPE_BF16 for input 'x' for model 'm'"]


def test_strings_are_called_bytes_when_provided() -> None:
    ports: Json = {"inputs": [{"name": "x", "dtype": "string", "shape": [-1]}], "outputs": []}
    config = {"name": "m", "max_batch_size": 0, "input": [io("x", "INT32", -1)]}
    assert refusals("onnxruntime", config, ports, auto_complete=False)[0].endswith("model provides TYPE_BYTES")


def test_a_sequence_is_no_tensor() -> None:
    ports: Json = {"inputs": [], "outputs": [{"name": "p", "dtype": "sequence", "shape": []}]}
    found = refusals("onnxruntime", {"name": "m", "output": [io("p", "FP32", 1)]}, ports, auto_complete=False)
    assert found == ["Unsupported ONNX Type 'ONNX_TYPE_SEQUENCE' for I/O 'p', expected 'ONNX_TYPE_TENSOR'."]


def test_unnamed_openvino_outputs() -> None:
    ports = make_ports()
    ports["outputs"][0]["name"] = ""
    found = refusals("openvino", make_config("openvino", 0), ports, auto_complete=False)
    assert "Attempt to get a name for a Tensor without names" in found[0]


def test_optional_inputs_may_override_initializers() -> None:
    extra = io("w", "FP32", 2) | {"optional": True}
    config = make_config("onnxruntime", 0)
    config["input"].append(extra)
    assert not refusals("onnxruntime", config, make_ports() | {"initializers": ["w"]}, auto_complete=False)
    found = refusals("onnxruntime", config, make_ports() | {"initializers": []}, auto_complete=False)
    assert found == ["unexpected inference input 'w', allowed inputs are: x"]


def parameters(**said: object) -> Json:
    return {"parameters": {key: {"string_value": str(value)} for key, value in said.items()}}


PADDING = {"parameters": {"ENABLE_BATCH_PADDING": {"string_value": "YES"}}}


@pytest.mark.parametrize(
    ("backend", "changes", "word"),
    [
        (OV8, {}, "expected requests with batch size '8'"),
        (OV8, {"model_warmup": [{"batch_size": 8}]}, "warm-up"),
        (OV8, {"input": [io("x", "FP32", 3, -1, -1)]}, "fail at inference"),
        (OV8, PADDING, "ENABLE_BATCH_PADDING"),
        (OV0, {"output": [io("y", "INT32", -1, 10)]}, "converts silently"),
        (OV0, {"instance_group": [{"count": 2}]}, "without NUM_STREAMS it runs one request at a time"),
        (OV0, {"instance_group": [{"count": 2}]} | parameters(PERFORMANCE_HINT="LATENCY"), "NUM_STREAMS: 2"),
        (OV0, {"instance_group": [{"count": 2}, {"count": 1}]} | parameters(NUM_STREAMS=2), "2 of 3 instances"),
        (ORT0, {"dynamic_batching": {}}, "does nothing"),
        (("onnxruntime", 1), {"dynamic_batching": {}}, "does nothing"),
        (ORT8, {"dynamic_batching": {"preferred_batch_size": [2, 4]}}, "leaves out max_batch_size 8"),
    ],
)
def test_warnings_of_what_loads(backend: tuple[str, int], changes: Json, word: str) -> None:
    config = make_config(*backend, **changes)
    assert not refusals(backend[0], config, make_ports(), auto_complete=False)
    assert any(word in text for text in warnings(backend[0], config, make_ports()))


@pytest.mark.parametrize("backend", [ORT8, ORT0, OV0, OV1])
def test_a_good_config_has_no_warning(backend: tuple[str, int]) -> None:
    assert warnings(backend[0], make_config(*backend), make_ports()) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"instance_group": [{"count": 1}]},
        {"instance_group": [{"count": 2}]} | parameters(NUM_STREAMS=2),
        {"instance_group": [{"count": 2}]} | parameters(NUM_STREAMS="AUTO"),
        {"instance_group": [{"count": 2}]} | parameters(PERFORMANCE_HINT="throughput"),
        {"instance_group": [{"count": 1}, {"count": 3, "passive": True}]},
    ],
)
def test_openvino_instances_that_run_at_a_time(changes: Json) -> None:
    assert warnings("openvino", make_config(*OV0, **changes), make_ports()) == []


SUM_PORTS: Json = {
    "inputs": [{"name": name, "dtype": "float32", "shape": [-1, 3]} for name in ("x", "s")],
    "outputs": [{"name": name, "dtype": "float32", "shape": [-1, 3]} for name in ("y", "t")],
}


def first(**changes: Any) -> Json:
    return {"name": "zero", "data_type": "TYPE_FP32", "dims": ["3"], "zero_data": True} | changes


def state(**changes: Any) -> Json:
    made: Json = {"input_name": "s", "output_name": "t", "data_type": "TYPE_FP32", "dims": ["3"]}
    return made | {"initial_state": [first()]} | changes


def sequence(*states: Json, **batching: Any) -> Json:
    scheduler = {} if "direct" in batching else {"oldest": {"max_candidate_sequences": 8}}
    return {"sequence_batching": {**scheduler, **batching, "state": list(states)}}


def sequence_config(changes: Json, batch: int = 8) -> Json:
    config = make_config("onnxruntime", batch, input=[io("x", "FP32", 3)], output=[io("y", "FP32", 3)])
    return config | changes


def control(name: str, **item: Any) -> list[Json]:
    return [{"name": name, "control": [item]}]


FALSE_TRUE = {"int32_false_true": [0, 1]}
S, SEQ = "state input 's'", "sequence batching "
SEQUENCE_ROWS: list[tuple[Json, str | None]] = [
    (sequence(state()), None),
    (sequence(state(initial_state=[])), None),
    (sequence(state(), direct={}), None),
    # as the server of 24.10 says it
    (
        sequence(state(initial_state=[first(), first()])),
        f"initial_state field for {S} must contain exactly one or zero element. Found '2' elements.",
    ),
    (
        sequence(state(initial_state=[first(data_type="TYPE_FP16")])),
        "The data type used for 'initial_state' field of state 's' does not match the state data type.",
    ),
    (sequence(state(initial_state=[first(name="")])), f"Field 'name' must be set when using initial_state for {S}."),
    (
        sequence(state(initial_state=[first(dims=["3", "1"])])),
        f"Number of dimensions in 'initial_state' doesn't match the size of 'state' dimensions for {S}. 2 != 1",
    ),
    (
        sequence(state(initial_state=[first(dims=["-1"])])),
        "'initial_state' field for state input name 's' contains variable dimensions.",
    ),
    (
        sequence(state(initial_state=[first(dims=["4"])])),
        "'initial_state' dim for input name 's' doesn't match 'state' dim description. 4 != 3",
    ),
    (sequence(state(initial_state=[first(zero_data=False)])), None),
    (
        sequence(state(initial_state=[{key: value for key, value in first().items() if key != "zero_data"}])),
        "initial_state setting expects state's' to have",
    ),
    (sequence(state(), state(output_name="y")), "State input name 's' specified more than once."),
    (
        sequence(state(), oldest={"preferred_batch_size": [16]}),
        f"{SEQ}preferred batch size must be <= max batch size for NAME",
    ),
    (sequence(state(), oldest={"preferred_batch_size": [0]}), f"{SEQ}preferred batch size must be positive for NAME"),
    (
        sequence(state(), direct={"minimum_slot_utilization": 2.0}),
        f"{SEQ}minimum slot utilization must be in range (0.0, 1.0] for NAME",
    ),
    (
        sequence(state(), control_input=control("START")),
        (
            f"{SEQ}must specify either 'int32_false_true', 'fp32_false_true' or 'bool_false_true' for "
            "CONTROL_SEQUENCE_START for NAME"
        ),
    ),
    (
        sequence(state(), control_input=control("START", int32_false_true=[0, 1, 2])),
        f"{SEQ}control 'int32_false_true' must have exactly 2 entries for CONTROL_SEQUENCE_START for NAME",
    ),
    (
        sequence(state(), control_input=control("A", **FALSE_TRUE) + control("B", **FALSE_TRUE)),
        f"{SEQ}specifies multiple CONTROL_SEQUENCE_START tensors for NAME",
    ),
    (
        sequence(state(), control_input=control("C", kind="CONTROL_SEQUENCE_CORRID", data_type="TYPE_FP32")),
        "unexpected data type for control CONTROL_SEQUENCE_CORRID for NAME. Allowed data types are TYPE_UINT64",
    ),
    (
        sequence(state(), control_input=control("START", **FALSE_TRUE)),
        "configuration specified sequence control 'START', but model does not provide that input",
    ),
    # loads there, and then fails or answers wrongly
    (sequence(state(input_name="q")), "state input 'q' is not among the model's inputs (s, x)"),
    (sequence(state(output_name="q")), "state output 'q' is not among the model's outputs (t, y)"),
    (
        sequence(state(data_type="TYPE_FP16", initial_state=[])),
        f"{S} is TYPE_FP16 in the configuration and TYPE_FP32 in the model: every request would fail",
    ),
    (
        sequence(state(dims=["4"], initial_state=[])),
        f"{S}: the model has shape [-1,3], the configuration [-1,4]: every request would fail",
    ),
    (sequence(state(dims=["-1"])), f"{S}: a sequence begins with size 1 wherever the dims [-1] say -1"),
    (sequence(state(use_growable_memory=True)), f"{S}: 'use_growable_memory' needs"),
    (sequence(state()) | {"model_warmup": [{"name": "w", "batch_size": 1}]}, "model_warmup: a warm-up request belongs"),
    # without the state the model has an input too many
    ({}, "unable to load model 'NAME', configuration expects 1 inputs, model provides 2"),
]


@pytest.mark.parametrize(("changes", "reason"), SEQUENCE_ROWS)
def test_sequences(changes: Json, reason: str | None) -> None:
    found = refusals("onnxruntime", sequence_config(changes), SUM_PORTS, auto_complete=False)
    assert (found[0] if found else "").startswith(reason or "")
    assert bool(found) == bool(reason)


def test_states_that_the_core_pairs_wrongly() -> None:
    names = {"inputs": ("a", "b", "x"), "outputs": ("u", "v", "y")}
    ports = {
        side: [{"name": name, "dtype": "float32", "shape": [-1, 3]} for name in tensors]
        for side, tensors in names.items()
    }
    straight = [state(input_name="a", output_name="u"), state(input_name="b", output_name="v")]
    swapped = [state(input_name="a", output_name="v"), state(input_name="b", output_name="u")]
    assert refusals("onnxruntime", sequence_config(sequence(*straight)), ports, auto_complete=False) == []
    (text,) = refusals("onnxruntime", sequence_config(sequence(*swapped)), ports, auto_complete=False)
    assert "by the alphabetical order of their names" in text


def test_controls_of_another_shape_or_type() -> None:
    ports = copy.deepcopy(SUM_PORTS)
    ports["inputs"].append({"name": "START", "dtype": "float32", "shape": [-1]})
    config = sequence_config(sequence(state(), control_input=control("START", **FALSE_TRUE)))
    assert refusals("onnxruntime", config, ports, auto_complete=False) == [
        "unable to load model 'NAME', sequence control 'START' in model has dims [] but dims [1] is expected",
        (
            "unable to load model 'NAME', sequence control 'START', the model expects data-type FP32 but the model "
            "configuration specifies data-type TYPE_INT32"
        ),
    ]


def test_openvino_keeps_no_state() -> None:
    config = sequence_config(sequence(state())) | {"backend": "openvino", "max_batch_size": 0}
    found = refusals("openvino", config, SUM_PORTS, auto_complete=False)
    assert found[0].startswith("the openvino backend keeps no state")


@pytest.mark.parametrize(
    ("changes", "batch", "word"),
    [
        (sequence(state(initial_state=[])), 8, "whatever lies in memory"),
        (
            sequence(state(dims=["1", "3"], initial_state=[first(dims=["1", "3"])]), direct={}),
            0,
            "one sequence at a time",
        ),
    ],
)
def test_sequences_that_load_and_go_wrong(changes: Json, batch: int, word: str) -> None:
    config = sequence_config(changes, batch)
    config["input"][0]["dims"] = config["output"][0]["dims"] = ["3"] if batch else ["-1", "3"]
    assert refusals("onnxruntime", config, SUM_PORTS, auto_complete=False) == []
    (text,) = warnings("onnxruntime", config, SUM_PORTS)
    assert word in text


def test_dtypes_agree_with_the_table() -> None:
    assert {row.numpy: f"TYPE_{native_rules.TRITON[row.numpy]}" for row in DTYPES} == {
        row.numpy: row.triton for row in DTYPES
    }
    assert {row.triton for row in DTYPES if row.openvino} == {f"TYPE_{name}" for name in native_rules.OPENVINO_TYPES}


def test_imports_only_the_standard_library() -> None:
    tree = ast.parse(Path(native_rules.__file__).read_text(encoding="utf-8"))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)} | {
        name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names
    }
    assert {str(module).split(".")[0] for module in modules} <= sys.stdlib_module_names


# PyTorch


def torch_config(**changes: Any) -> Json:
    config: Json = {
        "name": "NAME",
        "platform": "pytorch_libtorch",
        "max_batch_size": 8,
        "input": [io("a", "FP32", 3), io("b", "INT64", 3)],
        "output": [io("y", "FP32", 3)],
    }
    return config | changes


def torch_ports(**arguments: str) -> Json:
    return {"arguments": [{"name": name, "type": kind} for name, kind in arguments.items()]}


TWO = torch_ports(a="Tensor", b="Tensor")
INDEXED = {"state": [{"input_name": "h__2", "output_name": "hn__1", "data_type": "TYPE_FP32", "dims": [1]}]}


@pytest.mark.parametrize(
    ("changes", "ports", "words"),
    [
        ({}, TWO, None),
        ({}, {}, None),
        ({"input": [io("x__1", "FP32", 3), io("x__0", "FP16", 3)]}, TWO, None),
        ({"input": [io("x", "FP32", 3)]}, torch_ports(inputs="Dict[str, Tensor]"), None),
        ({"input": [io("x", "FP32", 3)]}, TWO, "configuration expects 1 inputs, model provides 2"),
        ({}, torch_ports(a="Tensor", rate="int"), "An input of type 'int' was detected in the model."),
        ({}, torch_ports(a="Tensor", b="Optional[Tensor]"), "An input of type 'Optional[Tensor]' was detected"),
        ({}, torch_ports(a="Tensor", b="Dict[str, Tensor]"), "Multiple inputs of kind DictType were detected."),
        ({"output": [io("y", "UINT32", 3)]}, TWO, "unsupported datatype TYPE_UINT32 for output 'y' for model 'NAME'"),
        ({"output": [io("y", "BF16", 3)]}, TWO, "unsupported datatype TYPE_BF16 for output 'y' for model 'NAME'"),
        ({"output": [io("y", "STRING", 3)]}, TWO, "1 dimensional List of String as output for 'y'"),
        ({"output": [io("y", "STRING", 1) | {"reshape": {"shape": []}}]}, TWO, None),
        ({"output": []}, TWO, "model configuration must contain at least one output, none were specified."),
        ({"parameters": {"INFERENCE_MODE": {"string_value": "maybe"}}}, TWO, "failed to convert 'maybe' to boolean"),
        ({"parameters": {"INTER_OP_THREAD_COUNT": {"string_value": "x"}}}, TWO, "to integral number"),
        ({"sequence_batching": INDEXED}, torch_ports(a="Tensor", b="Tensor", h__2="Tensor"), "state but not all"),
        ({"platform": "torch_aoti", "output": [io("y", "BF16", 3)]}, {}, None),
    ],
)  # fmt: skip
def test_pytorch_takes_what_libtorch_can_carry(changes: Json, ports: Json, words: str | None) -> None:
    found = refusals("pytorch", torch_config(**changes), ports, auto_complete=False, release="26.07")
    if words is None:
        assert found == []
    else:
        assert any(words in text for text in found), found


@pytest.mark.parametrize(
    ("names", "arguments", "places"),
    [
        (["b", "a"], ["a", "b"], [1, 0]),
        (["x__1", "x__0"], ["a", "b"], [1, 0]),
        (["x__", "y__1"], ["a", "b"], [0, 1]),
        (["b", "other"], ["a", "b"], [0, 1]),
        (["b__1", "other"], ["a", "b"], [0, 1]),
        (["y__1", "z__0"], None, [1, 0]),
        (["y__one", "z__0"], None, [0, 1]),
    ],
)
def test_pytorch_goes_by_arguments_then_numbers_then_order(
    names: list[str], arguments: list[str] | None, places: list[int]
) -> None:
    assert native_rules.pytorch_places(names, arguments) == places


def test_pytorch_numbers_beyond_the_arguments_are_a_warning() -> None:
    numbered = torch_config(input=[io("x__0", "FP32", 3), io("x__2", "FP32", 3)])
    assert refusals("pytorch", numbered, TWO, auto_complete=False) == []
    (found,) = (text for text in warnings("pytorch", numbered, TWO) if "arguments" in text)
    assert "'x__2' 2" in found
    assert not [text for text in warnings("pytorch", torch_config(), TWO) if "arguments" in text]


def test_bfloat16_in_a_python_model_is_a_warning() -> None:
    config = {"name": "m", "backend": "python", "input": [io("x", "BF16", 3)], "output": [io("y", "FP32", 3)]}
    assert refusals("python", config, {}, auto_complete=False) == []
    (found,) = warnings("python", config, {})
    assert found.startswith("input 'x': numpy has no bfloat16")


@pytest.mark.parametrize(
    ("more", "gpus", "words"),
    [
        ({"parameters": {"intra_op_thread_count": {"string_value": "two"}}}, 0, "'two' to integral number"),
        ({"parameters": {"intra_op_thread_count": {"string_value": " 2 threads"}}}, 0, ""),
        ({"parameters": {"execution_mode": {"string_value": "2"}}}, 0, "execution_mode are 0 or 1 but got 2"),
        ({"parameters": {"execution_mode": {"string_value": "1"}}}, 0, ""),
        ({"parameters": {"enable_mem_arena": {"string_value": "yes"}}}, 0, "'yes' to boolean"),
        ({"parameters": {"enable_mem_arena": {"string_value": "ON"}}}, 0, ""),
        ({"cpu": "dnnl"}, 0, "unknown Execution Accelerator 'dnnl'"),
        ({"cpu": "openvino"}, 0, ""),
        ({"gpu": ("trt", {})}, 1, "unknown Execution Accelerator 'trt'"),
        ({"gpu": ("trt", {})}, 0, ""),
        ({"gpu": ("cuda", {"anything": "1"})}, 1, ""),
        ({"gpu": ("tensorrt", {"precision_mode": "fp16"})}, 1, "unsupported precision mode 'fp16'"),
        ({"gpu": ("tensorrt", {"precision": "FP16"})}, 1, "unknown parameter 'precision' is provided"),
        ({"gpu": ("tensorrt", {"precision_mode": "FP16", "trt_engine_cache_enable": "true"})}, 1, ""),
    ],
)
def test_options_of_onnxruntime(more: dict[str, Any], gpus: int, words: str) -> None:
    accelerators: dict[str, Any] = {}
    if "cpu" in more:
        accelerators["cpu_execution_accelerator"] = [{"name": more["cpu"]}]
    if "gpu" in more:
        accelerators["gpu_execution_accelerator"] = [{"name": more["gpu"][0], "parameters": more["gpu"][1]}]
    config = {"name": "m", "parameters": more.get("parameters", {})}
    config["optimization"] = {"execution_accelerators": accelerators}
    found = refusals("onnxruntime", config, {}, auto_complete=False, gpus=gpus)
    assert [words in message for message in found] == ([True] if words else [])


RAGGED = {
    "input": [{**io("x", "FP32", -1), "allow_ragged_batch": True}],
    "output": [io("y", "FP32", 3), io("z", "FP32", -1)],
    "batch_input": [
        {"kind": "BATCH_ELEMENT_COUNT", "target_name": ["n"], "data_type": "TYPE_INT32", "source_input": ["x"]}
    ],
    "batch_output": [{"target_name": ["z"], "source_input": ["x"]}],
}
RAGGED_PORTS = {
    "inputs": [{"name": "x", "dtype": "float32", "shape": [-1]}, {"name": "n", "dtype": "int32", "shape": [-1]}],
    "outputs": [{"name": "y", "dtype": "float32", "shape": [-1, 3]}, {"name": "z", "dtype": "float32", "shape": [-1]}],
}


@pytest.mark.parametrize(
    ("field", "changes", "word"),
    [
        (None, {}, None),
        (
            "batch_input",
            {"target_name": ["m"]},
            "batch_input 'm' is not among the model's inputs (n, x): every request",
        ),
        (
            "batch_input",
            {"data_type": "TYPE_FP32"},
            "'n' is TYPE_FP32 in the configuration and TYPE_INT32 in the model",
        ),
        ("batch_output", {"target_name": ["y"]}, "tensor 'z': the model expects 1 dimensions (shape [-1])"),
        ("input", {"allow_ragged_batch": False}, "tensor 'x': the model expects 1 dimensions (shape [-1])"),
    ],
)
def test_requests_of_unequal_sizes(field: str | None, changes: Json, word: str | None) -> None:
    config = make_config("onnxruntime", 8, **copy.deepcopy(RAGGED))
    if field:
        config[field][0] |= changes
    found = refusals("onnxruntime", config, RAGGED_PORTS, auto_complete=False)
    assert not found if word is None else word in found[0]


def test_backends_that_join_no_requests() -> None:
    config = make_config("openvino", 8, **copy.deepcopy(RAGGED))
    said = " ".join(warnings("openvino", config, {}))
    assert "batch_input does nothing: the openvino backend fills no inputs" in said
    assert "allow_ragged_batch of 'x': the openvino backend does not join requests of unequal sizes" in said
    said = " ".join(warnings("python", make_config("python", 8, **copy.deepcopy(RAGGED)), {}))
    assert "the python backend fills no inputs" in said
    assert "allow_ragged_batch" not in said
