"""SavedModels against their configurations, read without TensorFlow."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.findings import Finding
from builder.validate import validate_repository

FLOAT, INT64 = 1, 9


def field(number: int, content: bytes | int) -> bytes:
    if isinstance(content, int):
        return bytes([number << 3, content])
    return bytes([number << 3 | 2, len(content)]) + content


def tensor(name: str, dtype: int) -> bytes:
    dims = field(2, field(1, 3))
    return field(1, name.encode()) + field(2, field(1, b"graph:0") + field(2, dtype) + field(3, dims))


def saved_model(signature: str = "serving_default") -> bytes:
    """`saved_model.pb` with one signature: x FP32, i INT64 → y FP32."""
    body = field(1, tensor("x", FLOAT)) + field(1, tensor("i", INT64)) + field(2, tensor("y", FLOAT))
    graph = field(1, field(4, b"serve")) + field(5, field(1, signature.encode()) + field(2, body))
    return field(2, graph)


CONFIG = """platform: "tensorflow_savedmodel"
input { name: "x" data_type: TYPE_FP32 dims: 3 }
input { name: "i" data_type: TYPE_INT64 dims: 3 }
output { name: "y" data_type: TYPE_FP32 dims: 3 }
"""


def judged(tmp_path: Path, config: str, release: str = "25.02", content: bytes | None = None) -> list[Finding]:
    folder = tmp_path / "m" / "1" / "model.savedmodel"
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(saved_model() if content is None else content)
    (tmp_path / "m" / "config.pbtxt").write_text(config)
    return [item for item in validate_repository(tmp_path, release) if item.check.startswith("saved_models")]


def test_a_signature_that_fits(tmp_path: Path) -> None:
    assert judged(tmp_path, CONFIG) == []


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ('"i"', '"j"', 3, "unexpected inference input 'j', allowed inputs are: i, x"),
        ("INT64", "INT32", 3, "expects datatype TYPE_INT32 for input 'i', model provides TYPE_INT64"),
        ('"y"', '"Identity"', 4, "unexpected inference output 'Identity'"),
    ],
)
def test_names_and_types(tmp_path: Path, old: str, new: str, line: int, words: str) -> None:
    (found,) = judged(tmp_path, CONFIG.replace(old, new))
    assert (found.severity, found.line) == ("error", line)
    assert words in found.message


def test_after_tensorflow_is_gone_it_is_for_the_conversion(tmp_path: Path) -> None:
    (found,) = judged(tmp_path, CONFIG.replace('"y"', '"z"'), "26.07")
    assert found.severity == "warning"
    assert found.remedy == "the signature's outputs are y float32"


@pytest.mark.parametrize("content", [b"", b"junk", saved_model("other")[:-9]])
def test_what_cannot_be_read_is_a_finding(tmp_path: Path, content: bytes) -> None:
    assert [item.check for item in judged(tmp_path, CONFIG, content=content)] == ["saved_models.file"]
