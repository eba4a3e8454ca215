"""LayerNorm with its residual, GELU with its bias, and attention of known forms: onnxruntime's transformer optimiser.

Heads and hidden size are found in the graph. Attention as today's exporters write it is left to `fuse_attention`.
"""

from __future__ import annotations

from typing import Final

from builder.onnx_tools.exported import quiet
from builder.onnx_tools.optimise.graph import RUNTIME_DOMAIN, broken, copy_of, has_chain, has_operators, prune, reframe
from builder.onnx_tools.reading import ModelProto

DIALECT: Final = "onnxruntime"


def requires(model: ModelProto) -> bool:
    if has_operators(model, ("LayerNormalization", "Erf", "Gelu", "FastGelu")):
        return True
    return has_chain(model, ("ReduceMean",), ("Sub",)) and has_chain(model, ("Sqrt",), ("Div",))


def apply(model: ModelProto) -> ModelProto:
    with quiet(("fusion_base", "fusion_skiplayernorm", "onnx_model", "onnxruntime.transformers.optimizer")):
        from onnxruntime.transformers.fusion_options import FusionOptions
        from onnxruntime.transformers.optimizer import optimize_by_fusion

        options = FusionOptions("bert")
        # Its symbolic shape inference fails on graphs of torch's exporter, and SkipLayerNormalization is then left out.
        # What would be wrong for other shapes is found by running the result.
        options.enable_shape_inference = False
        after = optimize_by_fusion(copy_of(model), model_type="bert", optimization_options=options).model
    prune(after.graph)
    return reframe(model, after)


def ensures(before: ModelProto, after: ModelProto) -> str | None:
    return broken(before, after, more_domains=(RUNTIME_DOMAIN,))
