"""Products of 8-bit integers with one scale for every block of a row, for those that one scale for a tensor spoils.

onnxruntime's MatMulNBits: weights and activations are rounded block by block, so that one large value costs the
precision of its own block alone. It is slower than MatMulInteger on large batches, and far faster than fp32 on small.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from builder.onnx_tools.exported import quiet
from builder.onnx_tools.reading import ModelProto

OPERATOR: Final = "MatMulNBits"
BLOCK: Final = 128
"""Values that share a scale."""
IN_INTEGERS: Final = 4
"""`accuracy_level` of the operator: activations are rounded to 8 bits too."""
SINCE_OPSET: Final = 23
"""Releases whose onnxruntime takes this opset (1.23 and newer) have the operator's 8 bits on every CPU."""


def eligible(node: Any, opset: int) -> bool:  # noqa: ANN401 - onnx.NodeProto
    """Whether a product with constant weights may have scales by block where the release takes `opset`."""
    return bool(node.op_type == "MatMul") and opset >= SINCE_OPSET


def in_blocks(model: ModelProto, names: Collection[str]) -> ModelProto:
    """The products of these names with scales by block; the model is changed in place where it can be."""
    if not names:
        return model
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    with quiet():
        quantizer = MatMulNBitsQuantizer(
            model,
            bits=8,
            block_size=BLOCK,
            is_symmetric=True,
            accuracy_level=IN_INTEGERS,
            nodes_to_include=sorted(names),
            op_types_to_quantize=("MatMul",),
        )
        quantizer.process()
    made: ModelProto = quantizer.model.model
    return made


def computes_in_integers(node: Any) -> bool:  # noqa: ANN401 - onnx.NodeProto
    """Whether such a product rounds its activations too, rather than multiply in fp32."""
    levels = (attribute.i for attribute in node.attribute if attribute.name == "accuracy_level")
    return bool(node.op_type == OPERATOR) and IN_INTEGERS in levels
