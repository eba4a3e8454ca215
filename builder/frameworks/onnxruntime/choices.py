"""How ONNX Runtime runs a model: the spec's words → a session here, and the same in Triton's configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from builder import defaults
from builder.errors import BuildError

CPU: Final = "CPUExecutionProvider"
CUDA: Final = "CUDAExecutionProvider"
TENSORRT: Final = "TensorrtExecutionProvider"
LEVELS: Final = {
    "all": ("ORT_ENABLE_ALL", None),
    "extended": ("ORT_ENABLE_EXTENDED", 1),
    "basic": ("ORT_ENABLE_BASIC", -1),
    "disabled": ("ORT_DISABLE_ALL", 2),
}
"""The spec's words → onnxruntime's graph optimisation level, and `optimization.graph.level` of Triton's backend."""
ARENA: Final = {"next_power_of_two": "kNextPowerOfTwo", "same_as_requested": "kSameAsRequested"}
CUDNN: Final = {"exhaustive": "EXHAUSTIVE", "heuristic": "HEURISTIC", "default": "DEFAULT"}

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Choices:
    """`cuda` and `tensorrt` are the spec's words for these providers; None where it is not used."""

    optimization: str = "all"
    intra_op_threads: int | None = None
    inter_op_threads: int | None = None
    cuda: Mapping[str, Any] | None = None
    tensorrt: Mapping[str, Any] | None = None

    @staticmethod
    def of(options: Mapping[str, Any], *, tensorrt: bool = False) -> Choices:
        """From the words of `onnxruntime:` in a spec; `tensorrt` says whether that provider is used at all."""
        return Choices(
            optimization=options.get("optimization", "all"),
            intra_op_threads=options.get("intra_op_threads"),
            inter_op_threads=options.get("inter_op_threads"),
            cuda=options.get("cuda"),
            tensorrt=options.get("tensorrt", {}) if tensorrt else None,
        )

    @property
    def level(self) -> str:
        """The name of onnxruntime's graph optimisation level."""
        return LEVELS[self.optimization][0]

    @property
    def parallel(self) -> bool:
        """Several operators at a time need the parallel mode."""
        return (self.inter_op_threads or 1) > 1

    @property
    def required(self) -> str:
        """The provider without which nothing may run; empty where the CPU may take over."""
        if self.tensorrt is not None:
            return TENSORRT
        return CUDA if self.cuda is not None and not self.cuda.get("cpu_fallback", True) else ""


def provider_options(choices: Choices, available: Sequence[str]) -> list[Any]:
    """The providers of a session in their order, each with its options.

    Raises:
        BuildError: the installed onnxruntime lacks one that is required.
    """
    if choices.required and choices.required not in available:
        raise BuildError(
            f"the installed onnxruntime has no {choices.required}; it has {', '.join(available)}",
            remedy="pip install onnxruntime-gpu in place of onnxruntime"
            + ("" if choices.tensorrt is not None else ", or allow onnxruntime: {cuda: {cpu_fallback: true}}"),
        )
    found: list[Any] = []
    if choices.tensorrt is not None:
        found.append((TENSORRT, _tensorrt_session(choices.tensorrt)))
    if CUDA in available and (choices.cuda is not None or choices.tensorrt is not None):
        found.append((CUDA, cuda_words(choices.cuda or {})))
    return [*found, CPU]


def cuda_words(cuda: Mapping[str, Any]) -> dict[str, str]:
    """The spec's words in those of the CUDA provider, which Triton's accelerator `cuda` passes on as they are."""
    words = {
        "arena_extend_strategy": ARENA.get(cuda.get("arena", "")),
        "gpu_mem_limit": cuda.get("memory_limit_bytes"),
        "cudnn_conv_algo_search": CUDNN.get(cuda.get("cudnn_search", "")),
        "use_tf32": None if cuda.get("tf32") is None else int(cuda["tf32"]),
    }
    return {key: str(value) for key, value in words.items() if value is not None}


def _tensorrt_session(tensorrt: Mapping[str, Any]) -> dict[str, str]:
    """Without an engine cache: this session is opened once, and its engine belongs to this machine."""
    words = {
        "trt_max_workspace_size": tensorrt.get("workspace_bytes"),
        "trt_min_subgraph_size": tensorrt.get("min_subgraph_size"),
    }
    return {key: str(value) for key, value in words.items() if value is not None}


def _tensorrt_accelerator(tensorrt: Mapping[str, Any]) -> dict[str, str]:
    """Triton's words; no `precision_mode`, so that TensorRT takes the types of the graph."""
    folder = tensorrt.get("engine_cache", defaults.ENGINE_CACHE)
    words = {
        "trt_engine_cache_enable": "true",
        "trt_engine_cache_path": folder,
        "trt_timing_cache_enable": "true",
        "trt_timing_cache_path": folder,
        "max_workspace_size_bytes": tensorrt.get("workspace_bytes"),
        "trt_min_subgraph_size": tensorrt.get("min_subgraph_size"),
    }
    return {key: str(value) for key, value in words.items() if value is not None}


def config_of(choices: Choices) -> Json:
    """Fields of ModelConfig, empty where the spec chooses nothing."""
    config: Json = {}
    parameters = {
        "intra_op_thread_count": choices.intra_op_threads,
        "inter_op_thread_count": choices.inter_op_threads,
        "execution_mode": 1 if choices.parallel else None,
    }
    said = {key: {"string_value": str(value)} for key, value in parameters.items() if value is not None}
    if said:
        config["parameters"] = said
    optimization: Json = {}
    level = LEVELS[choices.optimization][1]
    if level is not None:
        optimization["graph"] = {"level": level}
    accelerators = list(_accelerators(choices))
    if accelerators:
        optimization["execution_accelerators"] = {"gpu_execution_accelerator": accelerators}
    if optimization:
        config["optimization"] = optimization
    if choices.cuda is not None and choices.tensorrt is None:
        kind = "KIND_AUTO" if choices.cuda.get("cpu_fallback", True) else "KIND_GPU"
        config["instance_group"] = [{"kind": kind}]
    return config


def _accelerators(choices: Choices) -> list[Json]:
    found: list[Json] = []
    if choices.tensorrt is not None:
        found.append({"name": "tensorrt", "parameters": _tensorrt_accelerator(choices.tensorrt)})
    words = cuda_words(choices.cuda or {})
    if words:
        found.append({"name": "cuda", "parameters": words})
    return found
