"""Zeros that a Pad adds before a convolution become the convolution's own padding."""

from __future__ import annotations

from typing import Final

from builder.onnx_tools.optimise.graph import broken, has_chain
from builder.onnx_tools.optimise.slimming import slim
from builder.onnx_tools.reading import ModelProto

DIALECT: Final = "onnx"


def requires(model: ModelProto) -> bool:
    return has_chain(model, ("Pad",), ("Conv",))


def apply(model: ModelProto) -> ModelProto:
    return slim(model, patterns=("FusionPadConv",), rewrites=("graph_fusion",))


def ensures(before: ModelProto, after: ModelProto) -> str | None:
    return broken(before, after)
