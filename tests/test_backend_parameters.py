"""Parameters that a backend would ignore in silence."""

from __future__ import annotations

from typing import Any

import pytest

from builder.backend_parameters import KNOWN, unknown_parameters
from builder.native_warnings import warnings


def config(*keys: str, **more: Any) -> dict[str, Any]:
    return {"parameters": {key: {"string_value": "1"} for key in keys}, **more}


@pytest.mark.parametrize(
    ("backend", "key", "hint"),
    [
        ("onnxruntime", "intra_op_threads_count", "did you mean 'intra_op_thread_count'?"),
        ("onnxruntime", "INTRA_OP_THREAD_COUNT", "did you mean 'intra_op_thread_count'?"),
        ("openvino", "NUM_STREAM", "did you mean 'NUM_STREAMS'?"),
        ("openvino", "num_streams", "did you mean 'NUM_STREAMS'?"),
        ("openvino", "CPU_THREADS_NUM", "does nothing"),
        ("openvino", "zzz", "it reads CPU_EXTENSION_PATH, "),
        ("pytorch", "INFERENCE_MOD", "did you mean 'INFERENCE_MODE'?"),
    ],
)
def test_a_key_that_is_not_read(backend: str, key: str, hint: str) -> None:
    (text,) = unknown_parameters(backend, config(key))
    assert f"parameter '{key}' does nothing" in text
    assert hint in text
    assert text in warnings(backend, config(key), {})


def test_keys_that_are_read() -> None:
    for backend, keys in KNOWN.items():
        assert list(unknown_parameters(backend, config(*keys))) == []
    assert list(unknown_parameters("onnxruntime", config("session.use_ort_model_bytes_directly"))) == []
    assert list(unknown_parameters("python", config("whatever"))) == []
    assert list(unknown_parameters("pytorch", config("mine", runtime="model.py"))) == []


@pytest.mark.parametrize(
    ("backend", "optimization", "field"),
    [
        ("openvino", {"graph": {"level": 1}}, "optimization.graph"),
        ("openvino", {"execution_accelerators": {}}, "optimization.execution_accelerators"),
        ("onnxruntime", {"cuda": {"graphs": True}}, "optimization.cuda"),
        ("pytorch", {"priority": "PRIORITY_MAX"}, "optimization.priority"),
    ],
)
def test_a_field_that_the_backend_never_looks_at(backend: str, optimization: dict[str, Any], field: str) -> None:
    assert any(f"{field} does nothing" in text for text in warnings(backend, {"optimization": optimization}, {}))
    assert not any("does nothing" in text for text in warnings("tensorrt", {"optimization": {"cuda": {}}}, {}))
