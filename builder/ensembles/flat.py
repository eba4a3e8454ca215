"""Ensembles inside ensembles laid out as one list of steps, each a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from builder.ensembles.wiring import WiredStep, Wiring


def flat_steps(name: str, wirings: Mapping[str, Wiring]) -> tuple[WiredStep, ...]:
    """The models of an ensemble in the order of the data; tensors inside an inner one get names of their own."""
    names = {tensor.name: tensor.name for tensor in wirings[name].signature.tensors}
    return tuple(_steps(wirings[name], wirings, names, ""))


def _steps(wiring: Wiring, wirings: Mapping[str, Wiring], names: Mapping[str, str], place: str) -> Iterator[WiredStep]:
    """`names` are those that the tensors at this ensemble's border have outside."""

    def outside(tensor: str) -> str:
        return names.get(tensor, f"{place}/{tensor}")

    for number, step in enumerate(wiring.steps):
        inputs = tuple((port, outside(tensor)) for port, tensor in step.inputs)
        outputs = tuple((port, outside(tensor)) for port, tensor in step.outputs)
        if step.member in wirings:
            yield from _steps(wirings[step.member], wirings, dict((*inputs, *outputs)), f"{place}/{number}")
        else:
            yield WiredStep(step.member, inputs, outputs)
