"""ONNX Runtime on a real GPU: the spec's words reach the library, and the answers are the model's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import yaml
from onnx import helper
from small_graphs import plain_answers, random_inputs, signature, write_graph

from builder.backends import Settings, backend_module
from builder.errors import BuildError
from builder.frameworks.onnxruntime.choices import CUDA, Choices
from builder.frameworks.onnxruntime.session import load
from builder.machine import gpu
from builder.onnx_tools.precision import PrecisionJob
from builder.onnx_tools.precision.half import convert

IMAGES = signature(["x:float32:batch,3,32,32"], ["y:float32:batch,16"])
FULL = {"tf32": False, "cpu_fallback": False}


def has_cuda() -> bool:
    """A GPU, and an onnxruntime that was made for it."""
    folder = find_spec("onnxruntime")
    places = (folder and folder.submodule_search_locations) or ()
    return gpu() is not None and any(
        (Path(at) / "capi" / "libonnxruntime_providers_cuda.so").is_file() for at in places
    )


pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not has_cuda(), reason="no NVIDIA GPU with onnxruntime-gpu")]


def convolutions(path: Path) -> Path:
    """Convolution, Relu, mean over the image, product."""
    generator = np.random.default_rng(3)
    weights = {
        "k": generator.standard_normal((32, 3, 3, 3)).astype(np.float32),
        "w": generator.standard_normal((32, 16)).astype(np.float32),
        "shape": np.asarray([0, 32], np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Reshape", ["p", "shape"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"], name="times"),
    ]
    return write_graph(path, IMAGES, nodes, weights)


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_a_model_answers_on_cuda_as_on_the_cpu(rows: int, tmp_path: Path) -> None:
    convolutions(tmp_path / "model.onnx")
    session = backend_module("onnxruntime").open_session(tmp_path, IMAGES, Settings("fp32", {"cuda": FULL}))
    inputs = random_inputs(IMAGES, rows, seed=rows)
    expected = plain_answers(tmp_path, inputs, IMAGES)["y"]
    np.testing.assert_allclose(session.run(inputs)["y"], expected, rtol=1e-4, atol=1e-4)
    assert session.compute == f"fp32, {CUDA}"
    session.close()


def test_every_word_reaches_the_library(tmp_path: Path) -> None:
    words = {"arena": "same_as_requested", "memory_limit_bytes": 1 << 30, "cudnn_search": "heuristic", "tf32": False}
    session = load(convolutions(tmp_path / "model.onnx"), Choices.of({"cuda": words}))
    held = session.get_provider_options()[CUDA]
    assert held["arena_extend_strategy"] == "kSameAsRequested"
    assert held["gpu_mem_limit"] == str(1 << 30)
    assert held["cudnn_conv_algo_search"] == "HEURISTIC"
    assert held["use_tf32"] == "0"


def test_memory_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    convolutions(tmp_path / "model.onnx")
    words = {"cuda": {"memory_limit_bytes": 4 << 20, "arena": "same_as_requested"}}
    session = backend_module("onnxruntime").open_session(tmp_path, IMAGES, Settings("fp32", words))
    with pytest.raises(Exception, match=r"Available memory of|Failed to allocate memory"):
        session.run(random_inputs(IMAGES, 512))
    session.close()


def test_half_precision_is_computed_in_it(tmp_path: Path) -> None:
    full, half = tmp_path / "full", tmp_path / "half"
    full.mkdir()
    half.mkdir()
    job = PrecisionJob("fp16", "onnxruntime", IMAGES, None, None, tmp_path, 22, 10)
    convert(convolutions(full / "model.onnx"), half / "model.onnx", job, frozenset())
    session = backend_module("onnxruntime").open_session(half, IMAGES, Settings("fp16", {"cuda": {}}))
    inputs = random_inputs(IMAGES, 4)
    expected = plain_answers(full, inputs, IMAGES)["y"]
    np.testing.assert_allclose(session.run(inputs)["y"], expected, atol=0.01 * float(np.abs(expected).max()))
    assert dict(session.precision_proof().compute) == {"fp16": 1.0}
    session.close()


def test_without_the_gpu_the_cpu_takes_over_only_where_it_may(tmp_path: Path) -> None:
    path = convolutions(tmp_path / "model.onnx")
    code = (
        "import sys; from pathlib import Path; from builder.frameworks.onnxruntime.choices import Choices;"
        "from builder.frameworks.onnxruntime.session import load;"
        "cuda = {'cpu_fallback': sys.argv[2] == 'yes'};"
        "print(load(Path(sys.argv[1]), Choices.of({'cuda': cuda})).get_providers()[0])"
    )

    def run(fallback: str) -> subprocess.CompletedProcess[str]:
        hidden = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
        return subprocess.run(
            [sys.executable, "-c", code, path, fallback], env=hidden, capture_output=True, text=True, check=False
        )

    assert run("yes").stdout.split()[-1] == "CPUExecutionProvider", "the library prints its own complaint before"
    refused = run("no")
    assert refused.returncode != 0
    assert f"{BuildError.__name__}: onnxruntime" in refused.stderr
    assert f"could not start its {CUDA}" in refused.stderr


def test_a_build_measures_on_the_gpu_what_the_server_will_run_there(tmp_path: Path) -> None:
    convolutions(tmp_path / "net.onnx")
    spec = {
        "models": [
            {
                "name": "net",
                "source": {"path": "net.onnx"},
                "targets": ["onnxruntime:fp32", "onnxruntime:fp16"],
                "serve": "onnxruntime:fp16",
                "onnxruntime": {"cuda": {"cudnn_search": "heuristic", "cpu_fallback": False}},
            }
        ]
    }
    (tmp_path / "models.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    command = [sys.executable, "-m", "builder", "build", tmp_path / "models.yaml", "-o", tmp_path / "repo"]
    done = subprocess.run(
        [*command, "--check", "offline", "--json"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (model,) = json.loads(done.stdout)["models"]
    computed = {item["precision"]: item["measurement"]["compute"] for item in model["targets"]}
    assert computed == {"fp32": f"fp32, {CUDA}", "fp16": f"fp16, {CUDA}"}
    config = (tmp_path / "repo" / "net" / "config.pbtxt").read_text(encoding="utf-8")
    assert "kind: KIND_GPU" in config
    assert 'value: "HEURISTIC"' in config
