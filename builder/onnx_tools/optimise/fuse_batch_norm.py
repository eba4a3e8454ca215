"""Batch normalisation, or a factor per channel, becomes part of the weights of the convolution before it."""

from __future__ import annotations

from typing import Final

from builder.onnx_tools.optimise.graph import adds_constant, broken
from builder.onnx_tools.optimise.slimming import slim
from builder.onnx_tools.reading import ModelProto

DIALECT: Final = "onnx"
PATTERNS: Final = (
    "FusionConvBN",
    "FusionConvTransposeBN",
    "FusionConvMul",
    "FusionConvTransposeMul",
)


def requires(model: ModelProto) -> bool:
    return adds_constant(model, ("Conv", "ConvTranspose"), ("BatchNormalization", "Mul"))


def apply(model: ModelProto) -> ModelProto:
    return slim(model, patterns=PATTERNS, rewrites=("graph_fusion",))


def ensures(before: ModelProto, after: ModelProto) -> str | None:
    return broken(before, after)
