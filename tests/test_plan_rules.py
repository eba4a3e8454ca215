"""A plan's record against configurations, in the words of Triton's tensorrt backend; no GPU needed."""

from __future__ import annotations

from typing import Any

import pytest

from builder.plan_rules import plan_refusals, plan_warnings
from builder.spec_serving import BatchingSpec, InstancesSpec
from builder.tensors import Signature, Tensor
from builder.triton_config import ConfigRequest, parse_config, render_config

Json = dict[str, Any]


def port(name: str, shape: list[int], dtype: str = "float32", *, values: bool = False) -> Json:
    return {"name": name, "dtype": dtype, "shape": shape, "values": values}


def plan(*profiles: tuple[int, int, int], fixed: int | None = None) -> Json:
    """x [rows, any length from 2 to 8] → y [rows, 3]."""
    rows = fixed or -1
    ranges = [{"x": [[low, 2], [best, 4], [high, 8]]} for low, best, high in profiles or [(1, 4, 8)]]
    return {"inputs": [port("x", [rows, -1])], "outputs": [port("y", [rows, 3])], "profiles": ranges}


def config(text: str = "", batch: int = 8, x: str = "-1", y: str = "3", kind: str = "TYPE_FP32") -> Json:
    return parse_config(
        f'name: "m" platform: "tensorrt_plan" max_batch_size: {batch} '
        f'input [ {{ name: "x" data_type: {kind} dims: [ {x} ] }} ] '
        f'output [ {{ name: "y" data_type: TYPE_FP32 dims: [ {y} ] }} ] {text}'
    )


def refused(asked: Json, held: Json, *, auto: bool = True) -> str:
    found = plan_refusals(asked, held, auto_complete=auto)
    return found[0] if found else ""


@pytest.mark.parametrize("auto", [True, False])
def test_a_configuration_that_fits_is_left_alone(auto: bool) -> None:
    assert plan_refusals(config(), plan(), auto_complete=auto) == []
    assert plan_warnings(config(), plan(), auto_complete=auto) == []
    assert plan_refusals(config(x="6"), plan(), auto_complete=auto) == []
    assert plan_refusals(config(batch=0, x="-1, -1", y="-1, 3"), plan(), auto_complete=auto) == []


def test_the_builders_own_configuration_fits_the_plan_of_its_signature() -> None:
    ports = Signature((Tensor("x", "float32", ("batch", "n")),), (Tensor("y", "float32", ("batch", 3)),))
    request = ConfigRequest("m", "tensorrt", "26.07", ports, ports, True, BatchingSpec(), (InstancesSpec(),))
    written = parse_config(render_config(request).text)
    assert int(written["max_batch_size"]) == 8
    assert plan_refusals(written, plan(), auto_complete=False) == []
    assert plan_warnings(written, plan(), auto_complete=False) == []


def test_nothing_said_is_completed_from_the_plan() -> None:
    assert plan_refusals({"name": "m", "backend": "tensorrt"}, plan(), auto_complete=True) == []
    left = plan_refusals({"name": "m", "backend": "tensorrt"}, plan(), auto_complete=False)
    assert left[0] == "expected configuration for input 'x' for m"


@pytest.mark.parametrize(
    ("asked", "held", "words"),
    [
        (
            config(batch=16),
            plan(),
            "configuration specified max-batch 16 but TensorRT engine only supports max-batch 8",
        ),
        (
            config(kind="TYPE_FP16"),
            plan(),
            "unexpected datatype TYPE_FP32 for inference input 'x', expecting TYPE_FP16",
        ),
        (config(kind="TYPE_FP64"), plan(), "unsupported datatype TYPE_FP64 for input 'x'"),
        (config(y="4"), plan(), "tensor 'y': the model expects 2 dimensions (shape [-1,3])"),
        (config(x="9"), plan(), "can not maximize dimension [9] to [8,8]"),
        (config(x="1"), plan(), "trt failed to set binding dimension to [1]"),
        (config(x="-1, -1"), plan(), "tensor 'x': the model expects 2 dimensions"),
        (config(y="-1, 3"), plan(), "contradicting each other"),
        (config('instance_group [ { profile: [ "1" ] } ]'), plan(), "invalid profile 1"),
        (config('instance_group [ { profile: [ "fast" ] } ]'), plan(), "unable to parse 'fast'"),
        (config('output [ { name: "z" data_type: TYPE_FP32 dims: 3 } ]'), plan(), "unexpected inference output 'z'"),
        (config('input [ { name: "z" data_type: TYPE_FP32 dims: 3 } ]'), plan(), "unexpected inference input 'z'"),
        (
            config(
                'sequence_batching { control_input [ { name: "go" control [ { kind: CONTROL_SEQUENCE_START '
                "fp32_false_true: [ 0, 1 ] } ] } ] }"
            ),
            plan(),
            "input 'go' not found for m",
        ),
    ],
)
def test_what_the_backend_refuses(asked: Json, held: Json, words: str) -> None:
    assert words in refused(asked, held)


def test_a_second_output_of_the_plan_has_to_be_said() -> None:
    held = plan()
    held["outputs"].append(port("mask", [-1, 3]))
    assert refused(config(), held) == "expected configuration for output 'mask' for m"


def test_a_tensor_whose_values_are_sizes_has_to_be_marked() -> None:
    held = plan()
    held["inputs"].append(port("size", [2], "int32", values=True))
    held["profiles"][0]["size"] = [[1, 1], [4, 4], [8, 8]]
    said = config('input [ { name: "size" data_type: TYPE_INT32 dims: 1 } ]')
    assert "doesn't mark it as a shape tensor" in refused(said, held)
    said["input"][1]["is_shape_tensor"] = True
    assert refused(said, held) == ""
    said["input"][0]["is_shape_tensor"] = True
    assert "incorrectly marked as a shape tensor" in refused(said, held)


def test_batches_for_which_there_is_no_profile() -> None:
    asked = config("dynamic_batching { preferred_batch_size: [ 4, 8 ] }")
    preferred, largest, unused = plan_warnings(asked, plan((1, 4, 4), (5, 8, 8)), auto_complete=False)
    assert preferred.startswith("preferred_batch_size: no profile of the engine takes 8 rows (profile 0: 1 to 4), so")
    assert largest.startswith("max_batch_size: no profile of the engine takes 8 rows")
    assert unused.startswith("the engine has 2 profiles and the instances use 0")
    assert unused.endswith('profile: [ "0", "1" ] in instance_group')
    every = config('dynamic_batching { preferred_batch_size: [ 4, 8 ] } instance_group [ { profile: [ "0", "1" ] } ]')
    assert plan_warnings(every, plan((1, 4, 4), (5, 8, 8)), auto_complete=False) == []


def test_a_plan_of_one_batch_size_loads_and_fails_at_the_first_single_request() -> None:
    held = plan((8, 8, 8), fixed=8)
    assert plan_refusals(config(), held, auto_complete=True) == []
    found = plan_warnings(config(), held, auto_complete=True)
    assert found[0].startswith("a single request: no profile of the engine takes 1 rows (profile 0: 8 to 8)")
