"""What the server refuses of an ensemble's configuration alone: its fields, and how tensors flow through its steps."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]
Problem = tuple[str, str, str]
"""A word of the line, the server's words, the remedy."""


def steps_of(config: Json) -> list[Json]:
    """The steps in their order."""
    return list(config.get("ensemble_scheduling", {}).get("step", ()))


def field_problems(config: Json, name: str) -> Iterator[Problem]:
    """Fields that an ensemble must not have, and those that each step must."""
    if config.get("instance_group"):
        text = f"instance group should not be specified for ensemble '{name}'"
        yield "instance_group", text, "remove it: the members have instances"
    if "optimization" in config:
        yield "optimization", f"optimization should not be specified for ensemble '{name}'", "remove it"
    if config.get("model_warmup"):
        text = f"model_warmup can not be specified for ensemble '{name}'"
        yield "model_warmup", text, "warm the members up"
    if not steps_of(config):
        yield "ensemble_scheduling", f"must specify 'step' for ensemble '{name}'", "write a step for each member"
    for index, step in enumerate(steps_of(config)):
        for word in ("model_name", "input_map", "output_map"):
            if not step.get(word):
                text = f"must specify '{word}' in step {index} of ensemble '{name}'"
                yield "step", text, f"write {word} in step {index}"


def flow_problems(config: Json, name: str) -> Iterator[Problem]:
    """Tensors that are written twice, never, or for nobody."""
    before: dict[str, list[str]] = {}
    after: dict[str, list[str]] = {}
    written: set[str] = set()
    for index, step in enumerate(steps_of(config)):
        for tensor in step["output_map"].values():
            if tensor in written:
                once = "can appear in an output map only once"
                text = f"ensemble tensor '{tensor}' {once} for ensemble '{name}' step {index}"
                yield f'"{tensor}"', text, "give one of them another name"
            written.add(tensor)
        for tensor in (*step["output_map"].values(), *step["input_map"].values()):
            before.setdefault(tensor, [])
            after.setdefault(tensor, [])
        for source in step["input_map"].values():
            for target in step["output_map"].values():
                before[target].append(source)
                after[source].append(target)
    yield from _unreached(config, name, before, after)


def _unreached(config: Json, name: str, before: dict[str, list[str]], after: dict[str, list[str]]) -> Iterator[Problem]:
    inputs, outputs = ([io.get("name", "") for io in config.get(side, ())] for side in ("input", "output"))
    unused = False
    for side, tensors in (("input", inputs), ("output", outputs)):
        for tensor in tensors:
            if tensor not in before:
                unused = True
                text = f"ensemble {side} '{tensor}' for ensemble {name}' is not used"
                yield f'"{tensor}"', text, f"map it in a step, or take it out of the {side}s"
    if unused:
        return
    ready = _reached(inputs, before, after)
    for tensor in outputs:
        if tensor not in ready:
            last = _source(tensor, before, ready)
            more = f": at least one of its depending tensors, '{last}', is not connected" if last != tensor else ""
            text = f"output '{tensor}' for ensemble '{name}' is not written{more}"
            yield f'"{last}"', text, f"have a step or an input of the ensemble give '{last}', without a circle"
    for tensor in before:
        if tensor not in outputs and (tensor not in ready or not after[tensor]):
            remedy = "take it out of the map, or make it an output of the ensemble"
            yield f'"{tensor}"', f"ensemble tensor '{tensor}' is unused in ensemble '{name}'", remedy


def _reached(inputs: list[str], before: dict[str, list[str]], after: dict[str, list[str]]) -> set[str]:
    ready, queue = set(inputs), deque(inputs)
    while queue:
        for tensor in after[queue.popleft()]:
            if tensor not in ready and all(source in ready for source in before[tensor]):
                ready.add(tensor)
                queue.append(tensor)
    return ready


def _source(tensor: str, before: dict[str, list[str]], ready: set[str]) -> str:
    """Back along tensors that nothing gives, to the first of them."""
    last, seen = tensor, set[str]()
    while True:
        found = next((item for item in before[last] if item not in ready and item not in seen), None)
        if found is None:
            return last
        seen.add(found)
        last = found
