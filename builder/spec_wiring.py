"""The words of an ensemble: its steps, and how tensors are called between them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from builder.spec_serving import Part


class StepSpec(Part):
    """A step of an ensemble: a member, and the names that its tensors have in the ensemble.

    In the file: `MEMBER`, `MEMBER: [FROM -> TO, …]` in the direction of the data, or `MEMBER: {…}` with these words.
    """

    member: str = Field(min_length=1)
    wires: tuple[str, ...] = Field((), strict=False)
    inputs: dict[str, str] = Field(default_factory=dict, description="The member's input → tensor of the ensemble")
    outputs: dict[str, str] = Field(default_factory=dict, description="The member's output → tensor of the ensemble")
    model_version: int | None = Field(None, ge=1, description="The newest when left out")

    @model_validator(mode="before")
    @classmethod
    def _forms(cls, data: Any) -> Any:  # noqa: ANN401 - whatever the YAML holds
        if isinstance(data, str):
            return {"member": data}
        if isinstance(data, dict) and len(data) == 1:
            member, words = next(iter(data.items()))
            if isinstance(words, dict) and "member" not in words:
                return {"member": member, **words}
            if isinstance(words, (list, tuple)):
                return {"member": member, "wires": words}
        msg = f"{data!r} is no step; write MEMBER, MEMBER: [FROM -> TO], or MEMBER: {{inputs: {{…}}, outputs: {{…}}}}"
        raise ValueError(msg)

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: Any) -> Any:  # noqa: ANN401 - pydantic's own
        schema = handler(core)
        words = handler.resolve_ref_schema(schema)
        words["properties"].pop("member")
        words.pop("required", None)
        long = dict(words)
        wires = {"type": "array", "items": {"type": "string", "pattern": "->"}}
        words.clear()
        text = "MEMBER, MEMBER: [FROM -> TO], or MEMBER: {inputs: {…}, outputs: {…}}"
        forms = {"type": "object", "minProperties": 1, "maxProperties": 1}
        forms["additionalProperties"] = {"anyOf": [wires, long]}
        words.update({"description": text, "anyOf": [{"type": "string"}, forms]})
        return schema


class EnsembleSamplesSpec(Part):
    """Inputs of an ensemble: an `.npz` with one array per input, named like it."""

    path: Path = Field(strict=False)


class EnsembleAccuracySpec(Part):
    """The gates of an ensemble; a bound that is left out is the loosest of its members'."""

    max_relative_error: float | None = Field(None, ge=0)
    min_cosine: float | None = Field(None, ge=-1, le=1)
    max_mismatch_share: float | None = Field(
        None, ge=0, le=1, description="Of the elements of an integer or string output, how many may differ"
    )


class EnsembleWords(Part):
    """What an ensemble says beside its name."""

    steps: tuple[StepSpec, ...] = Field(strict=False, min_length=1, description="In the order of the data")
    inputs: tuple[str, ...] = Field((), strict=False, description="What no step makes, when left out")
    outputs: tuple[str, ...] = Field((), strict=False, description="What no step reads, when left out")
    samples: EnsembleSamplesSpec | None = Field(None, description="Those of the first members, when left out")
    accuracy: EnsembleAccuracySpec = EnsembleAccuracySpec()
    max_batch_size: int | None = Field(None, ge=0, description="At most this; 0: full dims")
    max_inflight_requests: int | None = Field(None, ge=1, description="Requests under way in each step; from 25.11")
    config: dict[str, Any] = Field(default_factory=dict, description="Fields of Triton's ModelConfig, in its names")
