"""Real engines on a real GPU; without one only what is said is checked."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper
from small_graphs import conversion, plain_answers, random_inputs, requests_for, signature, write_export, write_graph
from tiny_models import LINEAR, linear

from builder.backends import Settings, backend_module
from builder.errors import BuildError, MachineError
from builder.frameworks.tensorrt.device_memory import (
    PACKAGES,
    CudaPython,
    DeviceMemory,
    Pycuda,
    available,
    installed,
    open_device,
)
from builder.frameworks.tensorrt.plan_file import read_plan
from builder.machine import gpu, has_nvidia_gpu

gpu_only = pytest.mark.skipif(gpu() is None, reason="this machine has no NVIDIA GPU")
engines = pytest.mark.skipif(
    gpu() is None or find_spec("tensorrt") is None, reason="this machine has no NVIDIA GPU with the package tensorrt"
)


def test_the_package_for_memory_is_found_without_importing_it() -> None:
    assert available() in (*PACKAGES, None)


@pytest.mark.skipif(has_nvidia_gpu(), reason="this machine has an NVIDIA GPU")
@pytest.mark.skipif(available() is None, reason="neither pycuda nor cuda-python is installed")
def test_without_a_gpu_the_drivers_own_words_are_passed_on() -> None:
    with pytest.raises(MachineError, match="the GPU cannot be used: ") as error:
        open_device()
    assert "nvidia-smi" in error.value.remedy


def device_of(package: str) -> DeviceMemory:
    if not installed(package):
        pytest.skip(f"{package} is not installed")
    return Pycuda() if package == "pycuda" else CudaPython()


@pytest.mark.gpu
@gpu_only
@pytest.mark.parametrize("kind", PACKAGES)
def test_memory_goes_to_the_device_and_back(kind: str) -> None:
    device = device_of(kind)
    try:
        sent, back = device.pinned(1000), device.pinned(1000)
        sent[:] = np.arange(1000, dtype=np.uint8)
        address = device.allocate(1000)
        device.to_device(address, sent)
        device.to_host(back, address)
        device.wait()
        np.testing.assert_array_equal(back, sent)
    finally:
        device.close()


@pytest.mark.gpu
@gpu_only
@pytest.mark.parametrize("kind", PACKAGES)
def test_more_memory_than_the_device_has_is_the_builds_error(kind: str) -> None:
    device = device_of(kind)
    try:
        with pytest.raises(BuildError, match="out of memory"):
            device.allocate(1 << 50)
    finally:
        device.close()


def opened(folder: Path, ports: Any, **options: Any) -> Any:
    write_export(folder, ports, requests_for(folder, ports))
    backend = backend_module("tensorrt")
    (folder / "out").mkdir()
    assert backend.convert(conversion(folder, ports, **options), folder / "out") == ports
    return backend.open_session(folder / "out", ports, Settings("fp32", options))


@pytest.mark.gpu
@engines
@pytest.mark.parametrize("rows", [1, 3, 8, 2])
def test_an_engine_answers_like_the_model(rows: int, tmp_path: Path) -> None:
    linear(tmp_path / "model.onnx")
    session = opened(tmp_path, LINEAR, tf32=False)
    try:
        inputs = random_inputs(LINEAR, rows, seed=rows)
        answers = session.run(inputs)
        np.testing.assert_allclose(answers["y"], plain_answers(tmp_path, inputs, LINEAR)["y"], rtol=1e-4, atol=1e-5)
        assert session.compute.startswith("fp32, ")
    finally:
        session.close()


@pytest.mark.gpu
@engines
def test_an_output_whose_size_the_values_decide(tmp_path: Path) -> None:
    ports = signature(["x:float32:batch,4"], ["y:int64:2,found"])
    write_graph(tmp_path / "model.onnx", ports, [helper.make_node("NonZero", ["x"], ["y"])])
    session = opened(tmp_path, ports)
    try:
        for kept in (3, 7):
            array = np.zeros((2, 4), np.float32)
            array.flat[:kept] = 1
            np.testing.assert_array_equal(session.run({"x": array})["y"], np.asarray(np.nonzero(array)))
    finally:
        session.close()


@pytest.mark.gpu
@engines
def test_sizes_outside_every_profile_are_refused(tmp_path: Path) -> None:
    linear(tmp_path / "model.onnx")
    session = opened(tmp_path, LINEAR)
    try:
        with pytest.raises(Exception, match="no optimisation profile of the engine holds x"):
            session.run(random_inputs(LINEAR, 9))
    finally:
        session.close()


@pytest.mark.gpu
@engines
@pytest.mark.skipif(backend_module("onnxruntime+tensorrt").missing() is not None, reason="no onnxruntime with TensorRT")
def test_tensorrt_inside_onnxruntime_answers_like_the_model(tmp_path: Path) -> None:
    linear(tmp_path / "model.onnx")
    session = backend_module("onnxruntime+tensorrt").open_session(tmp_path, LINEAR, Settings("fp32", {}))
    inputs = random_inputs(LINEAR, 3)
    np.testing.assert_allclose(
        session.run(inputs)["y"], plain_answers(tmp_path, inputs, LINEAR)["y"], rtol=1e-2, atol=1e-2
    )
    assert "TensorrtExecutionProvider" in session.compute
    session.close()


@pytest.mark.gpu
@engines
def test_a_plan_says_what_it_takes(tmp_path: Path) -> None:
    linear(tmp_path / "model.onnx")
    opened(tmp_path, LINEAR).close()
    record = read_plan(next((tmp_path / "out").glob("*.plan")))
    assert record["inputs"] == [{"name": "x", "dtype": "float32", "shape": [-1, 4], "values": False}]
    assert [port["name"] for port in record["outputs"]] == ["y"]
    assert record["profiles"][0]["x"][0] == [1, 4]
