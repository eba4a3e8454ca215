"""`batch_input`, `batch_output` and `allow_ragged_batch`: requests of unequal sizes in one batch."""

from __future__ import annotations

from typing import Any

from builder.measurement import Ragged
from builder.tensors import BY_NUMPY, Signature

Json = dict[str, Any]


def add_ragged(config: Json, ragged: Ragged, signature: Signature) -> None:
    """What one request sends in place of what the model takes, and what Triton fills; `signature` is the model's."""
    sent = {tensor.name: list(tensor.wire_shape[1:]) for tensor in ragged.inputs}
    for io in config["input"]:
        if io["name"] in sent:
            io |= {"dims": sent[io["name"]], "allow_ragged_batch": True}
            io.pop("reshape", None)
    dtypes = {tensor.name: tensor.dtype for tensor in signature.inputs}
    if ragged.filled:
        config["batch_input"] = [
            {
                "kind": item.kind,
                "target_name": [item.name],
                "data_type": BY_NUMPY[dtypes[item.name]].triton,
                "source_input": [item.of],
            }
            for item in ragged.filled
        ]
    cut = dict(ragged.outputs)
    for io, tensor in zip(config["output"], ragged.served(signature).outputs, strict=True):
        if io["name"] in cut:
            io["dims"] = list(tensor.wire_shape[1:])
            io.pop("reshape", None)
    if cut:
        config["batch_output"] = [
            {"target_name": [name], "kind": "BATCH_SCATTER_WITH_INPUT_SHAPE", "source_input": [of]}
            for name, of in cut.items()
        ]
