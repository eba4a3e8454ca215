"""The `parameters` that each backend reads; it ignores all others without a word, so a typo would go unnoticed.

Read from the backends' public documentation and source.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any, Final

Json = dict[str, Any]

KNOWN: Final = {
    "onnxruntime": (
        "intra_op_thread_count", "inter_op_thread_count", "execution_mode", "enable_mem_arena", "enable_mem_pattern",
        "memory.enable_memory_arena_shrinkage", "session.use_device_allocator_for_initializers",
        "cudnn_conv_algo_search", "gpu_mem_limit", "arena_extend_strategy", "do_copy_in_default_stream",
    ),
    "openvino": (
        "CPU_EXTENSION_PATH", "INFERENCE_NUM_THREADS", "COMPILATION_NUM_THREADS", "HINT_BF16", "NUM_STREAMS",
        "PERFORMANCE_HINT", "SKIP_OV_DYNAMIC_BATCHSIZE", "ENABLE_BATCH_PADDING", "RESHAPE_IO_LAYERS", "TARGET_DEVICE",
    ),
    "pytorch": (
        "DISABLE_OPTIMIZED_EXECUTION", "ENABLE_CACHE_CLEANING", "INFERENCE_MODE", "DISABLE_CUDNN",
        "ENABLE_TENSOR_FUSER", "ENABLE_WEIGHT_SHARING", "ENABLE_JIT_PROFILING", "ENABLE_JIT_EXECUTOR",
        "INTRA_OP_THREAD_COUNT", "INTER_OP_THREAD_COUNT",
    ),
    "tensorrt": ("execution_context_allocation_strategy",),
}  # fmt: skip
"""A Python model reads whatever it likes, and so does one with a `runtime` of its own."""
OF_EVERY_BACKEND: Final = ("TRITON_", "session.")
"""Keys that begin so are the core's, or are handed through."""


def unknown_parameters(backend: str, config: Json) -> Iterator[str]:
    """One text for each key that the backend would not read."""
    known = None if config.get("runtime") else KNOWN.get(backend)
    for key in config.get("parameters", {}) if known else ():
        if known and key not in known and not key.startswith(OF_EVERY_BACKEND):
            near = difflib.get_close_matches(key.lower(), [word.lower() for word in known], n=1, cutoff=0.6)
            meant = next((word for word in known if near and word.lower() == near[0]), None)
            hint = f"did you mean '{meant}'?" if meant else f"it reads {', '.join(known)}"
            yield f"parameter '{key}' does nothing: the {backend} backend does not read it; {hint}"
