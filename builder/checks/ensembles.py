"""Ensembles as a graph: the steps and tensors of each configuration, and every edge against its members.

The rules and words are those of `model_config_utils.cc`, `ensemble_utils.cc` and `model_repository_manager.cc`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.completion import completed_config
from builder.ensemble_flow import Problem, field_problems, flow_problems, steps_of
from builder.findings import Finding
from builder.native_rules import batch_size, sizes
from builder.scan import ModelDir, line_of, scan_repository, served_versions

if TYPE_CHECKING:
    from builder.checks import CheckContext

Json = dict[str, Any]


@dataclass(slots=True)
class _Node:
    """A tensor of the ensemble: what it is, who said so, and what it hangs on."""

    model: str
    kind: str
    dims: list[int]
    full: list[int]
    decoupled: bool = False
    label: int = 0
    ready: bool = False
    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    step: int | None = None


@dataclass(slots=True)
class Members:
    """The models of the repository, completed once each."""

    models: Mapping[str, ModelDir]
    context: CheckContext
    configs: dict[str, Json | None] = field(default_factory=dict)

    def config(self, name: str) -> Json | None:
        """As the server would complete it; None where only the model's own code knows."""
        if name not in self.configs:
            done = completed_config(self.models[name], auto_complete=self.context.auto_complete, gpus=self.context.gpus)
            self.configs[name] = done.config if done.known else None
            if is_ensemble(self.models[name]) and not _problems(self.models[name], self.models):
                # Whether it is decoupled hangs on its members.
                deque(_edges(self.models[name], self), maxlen=0)
        return self.configs[name]


def is_ensemble(model: ModelDir) -> bool:
    """Whether there is anything to follow."""
    config = model.config or {}
    return not model.problem and config.get("platform") == "ensemble" and "ensemble_scheduling" in config


def check(repository: Path, context: CheckContext) -> Iterator[Finding]:
    """What the server refuses of every ensemble."""
    models = {model.name: model for model in scan_repository(repository)}
    members = Members(models, context)
    for model in filter(is_ensemble, models.values()):
        found = _problems(model, models) or list(_edges(model, members))
        for word, message, remedy in found:
            line = line_of(model, word) if word else None
            yield Finding("error", "ensemble", message, remedy, model=model.name, file=model.config_file, line=line)
        if not found:
            yield from _unknown(model, members)


def _problems(model: ModelDir, models: Mapping[str, ModelDir]) -> list[Problem]:
    """What is wrong before any edge is looked at."""
    config = model.config or {}
    found = list(field_problems(config, model.name)) or list(flow_problems(config, model.name))
    return found or list(_dependencies(model, models))


def _dependencies(model: ModelDir, models: Mapping[str, ModelDir]) -> Iterator[Problem]:
    circle = _circle(model.name, models)
    if circle:
        text = f"circular dependency between ensembles: {' -> '.join(circle)}"
        ends = ": the whole server ends" if len(set(circle)) > 2 else ""  # noqa: PLR2004 - as tried
        yield f'"{circle[1]}"', text + ends, "take one of the steps out"
        return
    for step in steps_of(model.config or {}):
        name, version = step["model_name"], int(step.get("model_version", 0))
        if name not in models:
            text = f"ensemble '{model.name}' contains models that are not available or ambiguous: {name}"
            yield f'"{name}"', text, f"put the model folder {name} into the repository, or mend the name"
            continue
        served = served_versions(models[name])
        if version == -1 and not served:
            text = f"ensemble '{model.name}' depends on '{name}' which has no loaded version"
            yield f'"{name}"', text, f"give {name} a version folder"
        elif version != -1 and version not in served:
            text = f"ensemble '{model.name}' depends on '{name}' whose required version {version} is not loaded"
            remedy = "write model_version: -1" if "model_version" not in step else f"served are {list(served)}"
            yield f'"{name}"', text, remedy


def _circle(name: str, models: Mapping[str, ModelDir]) -> list[str]:
    """The way from the ensemble back to itself, if there is one."""
    ways, seen = [[name]], set[str]()
    while ways:
        way = ways.pop()
        for step in steps_of((models[way[-1]].config if way[-1] in models else None) or {}):
            member = step.get("model_name", "")
            if member == name:
                return [*way, member]
            if member not in seen:
                seen.add(member)
                ways.append([*way, member])
    return []


def _edges(model: ModelDir, members: Members) -> Iterator[Problem]:
    config, name = model.config or {}, model.name
    nodes: dict[str, _Node] = {}
    for side in ("input", "output"):
        for io in config.get(side, ()):
            dims = sizes(io["reshape"].get("shape")) if "reshape" in io else sizes(io.get("dims"))
            nodes.setdefault(io.get("name", ""), _node(name, io, dims, config))
    for index, step in enumerate(steps_of(config)):
        member = members.config(step["model_name"])
        if member is None:
            continue
        if batch_size(member) != 0 and batch_size(member) < batch_size(config):
            text = (
                f"ensemble {name} allows maximum batch size {batch_size(config)}, but it contains model "
                f"{step['model_name']} which only allows maximum batch size to be {batch_size(member)}"
            )
            yield "max_batch_size", text, f"write max_batch_size: {batch_size(member)}"
        found = list(_step(name, step, member, nodes, index))
        yield from found
        if found:
            return
    yield from _labels(config, name, nodes, members)


def _node(model: str, io: Json, dims: list[int], config: Json) -> _Node:
    full = [-1, *dims] if batch_size(config) > 0 else dims
    return _Node(model, io.get("data_type", "TYPE_INVALID"), dims, full)


def _step(name: str, step: Json, member: Json, nodes: dict[str, _Node], index: int) -> Iterator[Problem]:
    at = step["model_name"]
    for side in ("input", "output"):
        ports = {io.get("name", ""): io for io in member.get(side, ())}
        mapped = step[f"{side}_map"]
        for port, tensor in mapped.items():
            declared = [io for io in member.get(side, ()) if io.get("name", "") == port]
            for io in declared:
                yield from _edge(name, tensor, nodes, _node(at, io, sizes(io.get("dims")), member))
            if side == "output" and len(declared) > 1:
                text = f"multiple outputs in model {at} are mapped to the same ensemble tensor {tensor}"
                yield (
                    f'"{tensor}"',
                    f"in ensemble {name}, {text}",
                    f"declare '{port}' once in the configuration of {at}",
                )
            if not declared:
                way = "mapping to non-existing input" if side == "input" else "mapped from non-existing output"
                text = f"in ensemble {name}, ensemble tensor {tensor} is {way} {port} in model {at}"
                yield f'"{port}"', text, f"the {side}s of {at} are {', '.join(sorted(ports)) or 'none'}"
        for port, io in ports.items():
            if side == "input" and port not in mapped and not io.get("optional"):
                text = f"in ensemble {name}, input {port} in model {at} is not mapped to any ensemble tensors"
                yield f'"{at}"', text, f'write input_map {{ key: "{port}" value: "…" }} in step {index}'
    _link(step, nodes, index, decoupled=bool(member.get("model_transaction_policy", {}).get("decoupled")))


def _edge(name: str, tensor: str, nodes: dict[str, _Node], node: _Node) -> Iterator[Problem]:
    problem = _inconsistent(nodes.setdefault(tensor, node), node)
    if problem:
        remedy = f"write one type and shape for '{tensor}', or put a step between that changes it"
        yield f'"{tensor}"', f"in ensemble {name}, ensemble tensor {tensor}: {problem}", remedy


def _link(step: Json, nodes: dict[str, _Node], index: int, *, decoupled: bool) -> None:
    maps = (step["input_map"], step["output_map"])
    inputs, outputs = ([tensor for tensor in item.values() if tensor in nodes] for item in maps)
    for tensor in outputs:
        nodes[tensor].decoupled = decoupled
        nodes[tensor].step = index
        nodes[tensor].before += inputs
    for tensor in inputs:
        nodes[tensor].after += outputs


def _inconsistent(known: _Node, node: _Node) -> str:
    if known.kind != node.kind:
        return (
            f"inconsistent data type: {known.kind} is inferred from model {known.model} while {node.kind} is inferred "
            f"from model {node.model}"
        )
    if not _fits(known.dims, node.dims) and not _fits(known.full, node.full):
        return (
            f"inconsistent shape: {_text(known.full)} is inferred from model {known.model} while {_text(node.full)} is "
            f"inferred from model {node.model}"
        )
    return ""


def _fits(left: list[int], right: list[int]) -> bool:
    return len(left) == len(right) and all(-1 in pair or pair[0] == pair[1] for pair in zip(left, right, strict=True))


def _text(shape: list[int]) -> str:
    return f"[{','.join(map(str, shape))}]"


def _labels(config: Json, name: str, nodes: dict[str, _Node], members: Members) -> Iterator[Problem]:
    """Answers of different decoupled members never meet in one step."""
    queue = deque(io.get("name", "") for io in config.get("input", ()))
    for tensor in queue:
        nodes[tensor].ready = True
    last, by_step = 0, dict[int, int]()
    while queue:
        for tensor in nodes[queue.popleft()].after:
            node = nodes[tensor]
            if node.ready or not all(nodes[source].ready for source in node.before):
                continue
            labels = {nodes[source].label for source in node.before}
            if len(labels) > 1:
                text = (
                    f"in ensemble {name}, step of model '{node.model}' receives inputs originated from different "
                    "decoupled models"
                )
                yield f'"{tensor}"', text, "take its inputs from one decoupled member, or from none"
                return
            if node.step in by_step:
                node.label = by_step[node.step]
            else:
                last += node.decoupled
                node.label = last if node.decoupled else labels.pop()
                by_step[node.step if node.step is not None else -1] = node.label
            node.ready = True
            queue.append(tensor)
    if len({nodes[io.get("name", "")].label for io in config.get("output", ())}) > 1:
        text = f"in ensemble {name}, step of model '{name}' receives inputs originated from different decoupled models"
        yield "output", text, "let all outputs come from one decoupled member, or from none"
        return
    # The server overwrites what the configuration says.
    policy = {"decoupled": True} if last else {}
    members.configs[name] = {**(members.configs.get(name) or config), "model_transaction_policy": policy}
    if config.get("response_cache", {}).get("enable") and (
        last or config.get("model_transaction_policy", {}).get("decoupled")
    ):
        head = f"Response Cache does not currently support model {name} with 'decoupled' transaction policy"
        text = f"{head}. Please disable the response cache."
        yield "response_cache", text, "remove response_cache"


def _unknown(model: ModelDir, members: Members) -> Iterator[Finding]:
    for name in sorted({step["model_name"] for step in steps_of(model.config or {})}):
        if name in members.models and members.config(name) is None:
            message = f"the edges to {name} are not judged: its own code or file says what it takes, which was not run"
            remedy = f"write input, output and max_batch_size into {members.models[name].config_file}"
            yield Finding("info", "ensemble", message, remedy, model=model.name, file=model.config_file)
