"""Steps and signatures → every tensor of an ensemble, or everything that is wrong with them.

Steps stand in the order of the data. A step's input is the tensor of that name, unless a wire says another one: one
that a step above gives, else an input of the ensemble. Outputs are what nobody reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches

from builder.ensembles.shapes import Use, border_tensors, difference
from builder.problems import Path, Problem, nearest
from builder.spec_ensembles import ARROW
from builder.tensors import Signature
from builder.work import EnsembleRef, StepRef

SIMILAR = 0.75
Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class WiredStep:
    """A member with (its own name, tensor of the ensemble) of every input and of the outputs that are used."""

    member: str
    inputs: Pairs
    outputs: Pairs


@dataclass(frozen=True, slots=True)
class Wiring:
    """An ensemble whose every tensor is known; `notes` are worth a look, and wrong in themselves never."""

    steps: tuple[WiredStep, ...]
    signature: Signature
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Draft:
    """What is known after some of the steps."""

    ref: EnsembleRef
    steps: list[WiredStep] = field(default_factory=list)
    made: dict[str, int] = field(default_factory=dict)
    entering: dict[str, int] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)
    uses: dict[str, list[Use]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def problem(self, path: Path, message: str, remedy: str = "") -> None:
        self.problems.append(Problem(path, message, remedy))


def wire_all(
    ensembles: Sequence[EnsembleRef], signatures: Mapping[str, Signature]
) -> tuple[dict[str, Wiring], dict[str, tuple[Problem, ...]]]:
    """Ensemble → wiring, and for those that are wrong → problems, at paths inside the ensemble.

    `signatures` are the models'. Ensembles may be members of each other, in any order, but not in a circle.
    """
    known, wired = dict(signatures), dict[str, Wiring]()
    problems: dict[str, tuple[Problem, ...]] = {}
    todo = {ref.name: ref for ref in ensembles}
    while todo:
        ready = [ref for ref in todo.values() if not any(step.member in todo for step in ref.steps)]
        if not ready:
            msg = f"ensembles in a circle: {', '.join(todo)}"
            raise ValueError(msg)
        for ref in ready:
            del todo[ref.name]
            wiring, found = wire(ref, known)
            if found or wiring is None:
                problems[ref.name] = found
            else:
                wired[ref.name] = wiring
                known[ref.name] = wiring.signature
    return wired, problems


def wire(ref: EnsembleRef, signatures: Mapping[str, Signature]) -> tuple[Wiring | None, tuple[Problem, ...]]:
    """The wiring of one ensemble, or all that is wrong with it; members without a signature are passed over."""
    draft = _Draft(ref)
    whole = all(step.member in signatures for step in ref.steps)
    for number, step in enumerate(ref.steps):
        if step.member in signatures:
            _add_step(draft, number, step, signatures[step.member])
    _check_uses(draft)
    if not whole:
        return None, tuple(draft.problems)
    _check_order(draft)
    inputs, outputs = _inputs(draft), _outputs(draft)
    steps = () if draft.problems else _used_steps(draft, outputs)
    if draft.problems:
        return None, tuple(draft.problems)
    names = (*inputs, *outputs)
    tensors = dict(zip(names, border_tensors(draft.uses, names), strict=True))
    signature = Signature(tuple(tensors[name] for name in inputs), tuple(tensors[name] for name in outputs))
    return Wiring(steps, signature, tuple(draft.notes)), ()


# One step


def _add_step(draft: _Draft, number: int, step: StepRef, signature: Signature) -> None:
    here: Path = ("steps", number)
    inputs, outputs = dict(step.inputs), dict(step.outputs)
    _check_names(draft, step, signature, here)
    for wire in step.wires:
        problem = _add_wire(step.member, wire, signature, (inputs, outputs))
        if problem:
            draft.problem(here, *problem)
    named = set(inputs.values())
    for port in signature.inputs:
        tensor = inputs.get(port.name, port.name)
        _take(draft, tensor, Use(number, step.member, "takes", port), here, named=tensor in named)
    for port in signature.outputs:
        _make(draft, outputs.get(port.name, port.name), Use(number, step.member, "gives", port), here)
    draft.steps.append(
        WiredStep(
            step.member,
            tuple((port.name, inputs.get(port.name, port.name)) for port in signature.inputs),
            tuple((port.name, outputs.get(port.name, port.name)) for port in signature.outputs),
        )
    )


def _check_names(draft: _Draft, step: StepRef, signature: Signature, here: Path) -> None:
    for side in ("inputs", "outputs"):
        known = [tensor.name for tensor in getattr(signature, side)]
        for name, _ in getattr(step, side):
            if name not in known:
                text = f"{step.member} has no {side[:-1]} {name!r}{nearest(name, known)}"
                draft.problem((*here, step.member, side, name), text, f"its {side} are {', '.join(known)}")


def _add_wire(
    member: str, wire: str, signature: Signature, maps: tuple[dict[str, str], dict[str, str]]
) -> tuple[str, str] | None:
    """`FROM -> TO` is an input's where TO is one, an output's where FROM is one; both at once is refused."""
    source, target = (part.strip() for part in wire.split(ARROW, 1))
    inputs, outputs = ([tensor.name for tensor in side] for side in (signature.inputs, signature.outputs))
    if target in inputs and source in outputs:
        text = f"{wire!r} has two meanings, since {member} takes {target!r} and gives {source!r}"
        long = f"{member}: {{inputs: {{{target}: {source}}}}} or {member}: {{outputs: {{{source}: {target}}}}}"
        return text, f"write {long}"
    if target not in inputs and source not in outputs:
        text = f"{wire!r}: {member} neither takes {target!r} nor gives {source!r}"
        near = get_close_matches(target, inputs, 1) or get_close_matches(source, outputs, 1)
        text += f"; did you mean {near[0]!r}?" if near else ""
        return text, f"it takes {', '.join(inputs)} and gives {', '.join(outputs)}"
    chosen, port, tensor = (maps[0], target, source) if target in inputs else (maps[1], source, target)
    if chosen.setdefault(port, tensor) != tensor:
        return f"{port!r} of {member} is wired to {chosen[port]!r} and to {tensor!r}", "keep one of the two"
    return None


def _take(draft: _Draft, tensor: str, use: Use, here: Path, *, named: bool) -> None:
    draft.uses.setdefault(tensor, []).append(use)
    draft.read.add(tensor)
    if tensor in draft.made:
        return
    if draft.ref.inputs and tensor not in draft.ref.inputs:
        text = f"nothing feeds {tensor!r}, which {use.describe()}: no step above gives it, and inputs: does not list it"
        above = list(draft.made)
        remedy = f"wire one of {', '.join(above)} to it: {use.member}: [TENSOR -> {use.port.name}]" if above else ""
        draft.problem(here, text, remedy or f"add it to inputs: [{', '.join((*draft.ref.inputs, tensor))}]")
    elif tensor not in draft.entering and named and not draft.ref.inputs:
        near = get_close_matches(tensor, list(draft.made), 1, SIMILAR)
        if near:
            note = f"{tensor!r} is taken as an input of the ensemble; if {near[0]!r} is meant, correct the wire"
            draft.notes.append(f"{note} at {use.member}; else list inputs: to say so")
    draft.entering.setdefault(tensor, use.step)


def _make(draft: _Draft, tensor: str, use: Use, here: Path) -> None:
    draft.uses.setdefault(tensor, []).append(use)
    other = draft.made.get(tensor)
    if other is not None:
        text = f"{tensor!r} is given twice: by step {other + 1} ({draft.ref.steps[other].member}) and by {use.member}"
        draft.problem(here, text, f"give one another name: {use.member}: {{outputs: {{{use.port.name}: OTHER}}}}")
        return
    draft.made[tensor] = use.step


# The ensemble


def _check_order(draft: _Draft) -> None:
    """A tensor that is taken above the step that gives it."""
    for tensor, taker in draft.entering.items():
        maker = draft.made.get(tensor)
        if maker is None:
            continue
        steps, circle = draft.ref.steps, _reaches(draft, taker, maker)
        what = f"step {taker + 1} ({steps[taker].member}) takes {tensor!r}, which step {maker + 1} "
        other = f"or give it another name: {steps[maker].member}: {{outputs: {{{_port(draft, maker, tensor)}: OTHER}}}}"
        if maker == taker:
            text = f"step {taker + 1} ({steps[taker].member}) takes {tensor!r} and gives {tensor!r}"
            draft.problem(("steps", taker), text, other.removeprefix("or "))
        elif circle:
            text = f"{what}({steps[maker].member}) gives only after it: a circle"
            draft.problem(("steps", taker), text, f"take a step out, {other}")
        else:
            text = f"{what}({steps[maker].member}) below gives: steps stand in the order of the data"
            draft.problem(("steps", taker), text, f"move {steps[maker].member} above it, {other}")


def _port(draft: _Draft, step: int, tensor: str) -> str:
    return next(port for port, name in draft.steps[step].outputs if name == tensor)


def _reaches(draft: _Draft, first: int, last: int) -> bool:
    """Whether what `first` gives is, through other steps, taken by `last`."""
    given = {name for _, name in draft.steps[first].outputs}
    for step in draft.steps[first + 1 : last + 1]:
        if any(name in given for _, name in step.inputs):
            given |= {name for _, name in step.outputs}
    return any(name in given for _, name in draft.steps[last].inputs) and first != last


def _check_uses(draft: _Draft) -> None:
    """Each pair of ends of a tensor, the one that gives it first: one dtype, one rank, sizes that go together."""
    for tensor, uses in draft.uses.items():
        ordered = sorted(uses, key=lambda use: use.verb != "gives")
        for place, use in enumerate(ordered):
            other = next((other for other in ordered[:place] if difference(other.port, use.port)), None)
            if other is not None:
                what = difference(other.port, use.port)
                text = f"{tensor!r}: {other.describe()}, {use.describe()}: {what}"
                remedy = "wire another tensor, or put a step between that changes it"
                draft.problem(("steps", max(other.step, use.step)), text, remedy)


def _inputs(draft: _Draft) -> tuple[str, ...]:
    asked = draft.ref.inputs
    for index, name in enumerate(asked):
        if name in draft.made:
            text = f"{name!r} is given by step {draft.made[name] + 1} ({draft.ref.steps[draft.made[name]].member})"
            draft.problem(("inputs", index), text, "leave it out, or give that output another name")
        elif name not in draft.entering:
            draft.problem(("inputs", index), f"no step takes {name!r}{nearest(name, list(draft.entering))}")
    found = asked or tuple(draft.entering)
    if not found:
        draft.problem(("steps",), "the ensemble has no input: each tensor that a step takes is given by another one")
    return found


def _outputs(draft: _Draft) -> tuple[str, ...]:
    for index, name in enumerate(draft.ref.outputs):
        if name not in draft.made:
            draft.problem(("outputs", index), f"no step gives {name!r}{nearest(name, list(draft.made))}")
    return draft.ref.outputs or tuple(name for name in draft.made if name not in draft.read)


def _used_steps(draft: _Draft, outputs: Sequence[str]) -> tuple[WiredStep, ...]:
    """The steps without outputs that nobody wants: Triton refuses those. A step that gives nothing else is an error."""
    wanted = draft.read | set(outputs)
    steps = []
    for number, step in enumerate(draft.steps):
        used = tuple(pair for pair in step.outputs if pair[1] in wanted)
        if not used:
            names = ", ".join(name for _, name in step.outputs)
            text = f"nothing that {step.member} gives is used ({names}): Triton refuses such a step"
            draft.problem(("steps", number), text, "take it out, or list one of its tensors in outputs:")
        steps.append(replace(step, outputs=used))
    return tuple(steps)
