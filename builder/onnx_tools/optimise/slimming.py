"""onnxslim with only the patterns that one transform is about."""

from __future__ import annotations

from collections.abc import Collection

from builder.onnx_tools.exported import quiet
from builder.onnx_tools.optimise.graph import copy_of, reframe, tie
from builder.onnx_tools.reading import ModelProto

REWRITES = ("constant_folding", "graph_fusion", "dead_node_elimination", "subexpression_elimination", "weight_tying")


def slim(model: ModelProto, *, patterns: Collection[str] = (), rewrites: Collection[str] = REWRITES) -> ModelProto:
    """A changed copy: of onnxslim's `REWRITES` only `rewrites`, of its patterns only `patterns`."""
    with quiet(("onnxslim",)):
        import onnxslim
        from onnxslim.core.pattern.registry import DEFAULT_FUSION_PATTERNS

        unknown = set(patterns) - set(DEFAULT_FUSION_PATTERNS)
        if unknown:
            msg = f"this onnxslim has no pattern {', '.join(sorted(unknown))}"
            raise ValueError(msg)
        after = onnxslim.slim(
            copy_of(model),
            skip_fusion_patterns=sorted(set(DEFAULT_FUSION_PATTERNS) - set(patterns)),
            skip_optimizations=sorted(set(REWRITES) - set(rewrites)),
        )
    tie(after.graph)  # it writes a weight that Identity nodes share once for each of them
    return reframe(model, after)
