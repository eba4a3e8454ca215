"""The spec's words for ONNX Runtime, in a session and in Triton's configuration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_graphs import plain_answers, random_inputs
from tiny_models import LINEAR, linear

from builder.backends import Settings, backend_module
from builder.errors import BuildError
from builder.frameworks.onnxruntime.choices import CPU, CUDA, TENSORRT, Choices, config_of, provider_options
from builder.frameworks.onnxruntime.session import load
from builder.triton_config.text import to_message

GPU = (TENSORRT, CUDA, CPU)
WORDS = {
    "optimization": "extended",
    "intra_op_threads": 2,
    "inter_op_threads": 3,
    "cuda": {"arena": "same_as_requested", "memory_limit_bytes": 1 << 30, "cudnn_search": "heuristic", "tf32": False},
}
CUDA_WORDS = {
    "arena_extend_strategy": "kSameAsRequested",
    "gpu_mem_limit": str(1 << 30),
    "cudnn_conv_algo_search": "HEURISTIC",
    "use_tf32": "0",
}


def test_nothing_said_nothing_written() -> None:
    assert config_of(Choices.of({})) == {}
    assert provider_options(Choices.of({}), GPU) == [CPU]


def test_the_same_choices_reach_the_session_and_the_server() -> None:
    choices = Choices.of(WORDS)
    assert provider_options(choices, GPU) == [(CUDA, CUDA_WORDS), CPU]
    config = config_of(choices)
    assert config == {
        "parameters": {
            "intra_op_thread_count": {"string_value": "2"},
            "inter_op_thread_count": {"string_value": "3"},
            "execution_mode": {"string_value": "1"},
        },
        "optimization": {
            "graph": {"level": 1},
            "execution_accelerators": {"gpu_execution_accelerator": [{"name": "cuda", "parameters": CUDA_WORDS}]},
        },
        "instance_group": [{"kind": "KIND_AUTO"}],
    }
    to_message(config)


def test_without_a_gpu_the_cpu_takes_over_only_where_it_may() -> None:
    assert provider_options(Choices.of({"cuda": {}}), [CPU]) == [CPU]
    strict = Choices.of({"cuda": {"cpu_fallback": False}})
    assert config_of(strict) == {"instance_group": [{"kind": "KIND_GPU"}]}
    with pytest.raises(BuildError, match="the installed onnxruntime has no CUDAExecutionProvider") as error:
        provider_options(strict, [CPU])
    assert "onnxruntime-gpu" in error.value.remedy
    assert "cpu_fallback: true" in error.value.remedy


def test_tensorrt_takes_the_types_of_the_graph_and_keeps_its_engines() -> None:
    options = {"tensorrt": {"engine_cache": "/engines", "workspace_bytes": 1024, "min_subgraph_size": 5}}
    choices = Choices.of(options, tensorrt=True)
    (accelerator,) = config_of(choices)["optimization"]["execution_accelerators"]["gpu_execution_accelerator"]
    assert accelerator == {
        "name": "tensorrt",
        "parameters": {
            "trt_engine_cache_enable": "true",
            "trt_engine_cache_path": "/engines",
            "trt_timing_cache_enable": "true",
            "trt_timing_cache_path": "/engines",
            "max_workspace_size_bytes": "1024",
            "trt_min_subgraph_size": "5",
        },
    }
    to_message(config_of(choices))
    names = [item if isinstance(item, str) else item[0] for item in provider_options(choices, GPU)]
    assert names == [TENSORRT, CUDA, CPU]
    with pytest.raises(BuildError, match="has no TensorrtExecutionProvider"):
        provider_options(choices, [CPU])


def test_a_session_with_choices_answers_the_same(tmp_path: Path) -> None:
    linear(tmp_path / "model.onnx")
    inputs = random_inputs(LINEAR, 3)
    session = backend_module("onnxruntime").open_session(tmp_path, LINEAR, Settings("fp32", WORDS))
    np.testing.assert_allclose(session.run(inputs)["y"], plain_answers(tmp_path, inputs, LINEAR)["y"], rtol=1e-5)
    session.close()


@pytest.mark.parametrize("word", ["all", "extended", "basic", "disabled"])
def test_every_level_is_the_librarys(word: str, tmp_path: Path) -> None:
    session = load(linear(tmp_path / "model.onnx"), Choices(optimization=word))
    assert session.get_session_options().graph_optimization_level.name == Choices(optimization=word).level


def test_tensorrt_8_is_refused() -> None:
    backend = backend_module("onnxruntime+tensorrt")
    assert "24.05 is the first" in (backend.refuses(LINEAR, "24.04") or "")
    assert backend.refuses(LINEAR, "24.05") is None
