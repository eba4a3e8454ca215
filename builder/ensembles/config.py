"""The ModelConfig of an ensemble, from its wiring and its members' own configurations.

- Types and dims are what the members serve, since Triton compares those: where one end fixes a size, it is fixed.
- `max_batch_size` is the smallest of the members that batch. A member without batching takes and gives full shapes,
  which Triton lets meet a batched tensor, so that it is no hindrance where its rows are known not to mix. Where a
  tensor has no batch axis, or nothing else, the ensemble has `max_batch_size: 0` and full dims.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from builder.ensembles.wiring import WiredStep, Wiring
from builder.errors import SpecError
from builder.native_rules import batch_size, sizes
from builder.spec import EnsembleSpec
from builder.triton_config.overrides import apply_overrides
from builder.triton_config.text import config_to_text

Json = dict[str, Any]
NEWEST: Final = -1
LEAST_RANK: Final = 2
"""A batched tensor has a dimension beside the batch's: Triton's dims are never empty."""


@dataclass(frozen=True, slots=True)
class _Shape:
    """A tensor as its ends serve it: Triton's type and the full shape."""

    kind: str
    full: tuple[int, ...]

    def fits_batches(self) -> bool:
        return len(self.full) >= LEAST_RANK and self.full[0] == -1


def render_ensemble(
    spec: EnsembleSpec, wiring: Wiring, members: Mapping[str, Json], *, mixing: frozenset[str], release: str
) -> tuple[str, int]:
    """The text of `config.pbtxt`, and its `max_batch_size`. `mixing` are members whose rows may depend on each other.

    Raises:
        SpecError: an override does not fit.
    """
    shapes = {tensor.name: _shape(tensor.name, wiring.steps, members) for tensor in wiring.signature.tensors}
    limit = _max_batch_size(spec, [members[step.member] for step in wiring.steps])
    if any(step.member in mixing for step in wiring.steps) or not all(
        shape.fits_batches() for shape in shapes.values()
    ):
        limit = 0
        _refuse_vectors(spec, wiring, shapes)
    scheduling: Json = {"step": [_step(spec, number, step) for number, step in enumerate(wiring.steps)]}
    if spec.max_inflight_requests is not None:
        scheduling["max_inflight_requests"] = spec.max_inflight_requests
    config: Json = {
        "name": spec.name,
        "platform": "ensemble",
        "max_batch_size": limit,
        "input": [_port(tensor.name, shapes[tensor.name], limit) for tensor in wiring.signature.inputs],
        "output": [_port(tensor.name, shapes[tensor.name], limit) for tensor in wiring.signature.outputs],
        "ensemble_scheduling": scheduling,
    }
    config = apply_overrides(config, dict(spec.config), release)
    return config_to_text(config, template="ensemble", release=release), limit


def _refuse_vectors(spec: EnsembleSpec, wiring: Wiring, shapes: Mapping[str, _Shape]) -> None:
    """Without batches the wire is the source's shape, and a member that was told to batch a vector made it [N,1].

    Raises:
        SpecError: such a tensor stands at the border.
    """
    for tensor in wiring.signature.tensors:
        if len(tensor.shape) == 1 and len(shapes[tensor.name].full) > 1:
            raise SpecError(
                f"{spec.name} has no batches as a whole, and its tensor {tensor.describe()} travels as [N,1], since a "
                "member batches it by batching: {max_batch_size: …}",
                remedy="leave max_batch_size out of that member, or let every member of the ensemble batch",
            )


def _max_batch_size(spec: EnsembleSpec, members: Sequence[Json]) -> int:
    largest = min((size for config in members if (size := batch_size(config))), default=0)
    return largest if spec.max_batch_size is None else min(largest, spec.max_batch_size)


def _shape(tensor: str, steps: Sequence[WiredStep], members: Mapping[str, Json]) -> _Shape:
    kind, full = "", list[int]()
    for step in steps:
        config = members[step.member]
        for side, pairs in (("output", step.outputs), ("input", step.inputs)):
            ports = {io["name"]: io for io in config.get(side, ())}
            for port, name in pairs:
                if name == tensor:
                    kind, full = ports[port]["data_type"], _merged(full, _full(ports[port], config))
    return _Shape(kind, tuple(full))


def _full(io: Json, config: Json) -> list[int]:
    dims = list(sizes(io.get("dims")))
    return [-1, *dims] if batch_size(config) > 0 else dims


def _merged(known: list[int], more: list[int]) -> list[int]:
    """A size that one end fixes; ends that do not go together are left to the checks."""
    if len(known) != len(more):
        return known or more
    return [new if old == -1 else old for old, new in zip(known, more, strict=True)]


def _port(name: str, shape: _Shape, limit: int) -> Json:
    return {"name": name, "data_type": shape.kind, "dims": list(shape.full[1:] if limit else shape.full)}


def _step(spec: EnsembleSpec, number: int, step: WiredStep) -> Json:
    return {
        "model_name": step.member,
        "model_version": spec.steps[number].model_version or NEWEST,
        "input_map": dict(step.inputs),
        "output_map": dict(step.outputs),
    }
