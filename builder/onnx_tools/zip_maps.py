"""Take the ZipMap off a classifier's probabilities: a tensor instead of a list of dictionaries."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from builder.onnx_tools.reading import ModelProto, read_onnx

SHOWN: Final = 10
OLDEST_OPSET: Final = 13


def read_served(path: Path) -> tuple[ModelProto, tuple[str, ...]]:
    """The model as it can be served, and what was changed for that.

    Raises:
        SpecError: as `read_onnx`.
    """
    model = read_onnx(path)
    return model, remove_zip_maps(model)


def remove_zip_maps(model: ModelProto) -> tuple[str, ...]:
    """Outputs that a ZipMap makes become its input, in place; returns notes."""
    outputs = {value.name: value for value in model.graph.output}
    found = [node for node in model.graph.node if node.op_type == "ZipMap" and node.output[0] in outputs]
    if found and not any(entry.domain in ("", "ai.onnx") for entry in model.opset_import):
        model.opset_import.add(domain="", version=OLDEST_OPSET)
    return tuple(_unzipped(node, outputs[node.output[0]]) for node in found)


def _unzipped(node: Any, value: Any) -> str:  # noqa: ANN401 - onnx.NodeProto, onnx.ValueInfoProto
    labels = [
        item.decode() if isinstance(item, bytes) else str(item)
        for attribute in node.attribute
        for item in (*attribute.strings, *attribute.ints)
    ]
    node.op_type, node.domain = "Identity", ""
    del node.attribute[:]
    value.type.Clear()
    value.type.tensor_type.elem_type = 1
    shape = value.type.tensor_type.shape
    shape.dim.add()
    shape.dim.add().dim_value = len(labels)
    more = " …" if len(labels) > SHOWN else ""
    return (
        f"output {value.name!r} was a list of dictionaries (ZipMap), now a tensor; its columns are "
        f"{', '.join(labels[:SHOWN])}{more}"
    )
