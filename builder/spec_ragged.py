"""The words of a model that takes requests of unequal sizes in one batch."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from builder.spec_serving import Part

KINDS: Final = {
    "counts": "BATCH_ELEMENT_COUNT",
    "ends": "BATCH_ACCUMULATED_ELEMENT_COUNT",
    "offsets": "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO",
    "longest": "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE",
    "shapes": "BATCH_ITEM_SHAPE",
    "flat_shapes": "BATCH_ITEM_SHAPE_FLATTEN",
}
"""Our words for the kinds of a `batch_input` → Triton's."""
Size = Annotated[int, Field(ge=1, strict=True)] | Annotated[str, Field(min_length=1)]


class FilledSpec(Part):
    """An input of the model that no client sends: Triton fills it for each batch."""

    kind: Literal["counts", "ends", "offsets", "longest", "shapes", "flat_shapes"] = Field(
        description="counts: values of each request; ends: where each ends; offsets: the same with a 0 before; "
        "longest: as many values as the largest has; shapes, flat_shapes: the sizes of each"
    )
    of: str = Field(min_length=1, description="The ragged input that it tells about")


class RaggedSpec(Part):
    """Requests of unequal sizes in one batch: their values one after the other, in inputs of one axis."""

    inputs: dict[str, Annotated[tuple[Size, ...], Field(strict=False, min_length=1)]] = Field(
        min_length=1, description="Input → the shape of what one request sends; the model takes all in one axis"
    )
    filled: dict[str, FilledSpec] = Field(default_factory=dict, description="Inputs that Triton fills for each batch")
    outputs: dict[str, str] = Field(
        default_factory=dict, description="Output → the ragged input whose sizes it is cut by; others have one row each"
    )

    @model_validator(mode="after")
    def _fits(self) -> RaggedSpec:
        for name, source in (*((name, item.of) for name, item in self.filled.items()), *self.outputs.items()):
            if source not in self.inputs:
                msg = f"{name!r} refers to {source!r}, and the ragged inputs are {', '.join(self.inputs)}"
                raise ValueError(msg)
        both = sorted(set(self.inputs) & set(self.filled))
        if both:
            msg = f"input {both[0]!r} is ragged or filled, not both"
            raise ValueError(msg)
        return self
