"""A TensorRT plan against its configuration: what Triton's tensorrt backend refuses, and what it loads in vain.

Pure functions, so that they are tested without a GPU. Read from `instance_state.cc`, `model_state.cc` and
`tensorrt_utils.cc` of the backend. `plan` is the record that `builder.frameworks.tensorrt.plan_file` reads:

    {"inputs": [{"name", "dtype": numpy name or "", "shape": [-1 where any size goes], "values": bool}], "outputs": …,
     "profiles": [{input: [smallest, best, largest]}]}

`values` marks a tensor whose values are sizes (Triton: `is_shape_tensor`); its profiles hold values, not dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator

from builder.native_rules import (
    SIDES,
    TRITON,
    Json,
    batch_size,
    control_parts,
    dims_mismatch,
    find_port,
    sizes,
    unexpected_port,
    wire_dims,
)

PLAN_TYPES = frozenset(("FP32", "FP16", "BF16", "INT8", "UINT8", "INT32", "INT64", "BOOL"))


def plan_refusals(config: Json, plan: Json, *, auto_complete: bool) -> list[str]:
    """Why the tensorrt backend would not load this plan with this configuration; empty: it loads."""
    profiles = _profiles(config, plan, auto_complete=auto_complete)
    if isinstance(profiles, str):
        return [profiles]
    batch = _batch(config, plan, profiles) if auto_complete else batch_size(config)
    if isinstance(batch, str):
        return [batch]
    found = [*_counts(config, plan)]
    for side, _ in SIDES:
        for io in config.get(side, ()):
            problem = _tensor(config, plan, side, io, batch)
            if problem:
                found.append(problem)
            elif side == "input" and not io.get("allow_ragged_batch"):
                found += _within(plan, str(io.get("name", "")), wire_dims(io), profiles, batch)
    return [*found, *_controls(config, plan, batch), *_left_out(config, plan, auto_complete=auto_complete)]


def plan_warnings(config: Json, plan: Json, *, auto_complete: bool) -> list[str]:
    """What loads and is still wrong: batches and profiles that do not meet. Ask `plan_refusals` first."""
    profiles = _profiles(config, plan, auto_complete=auto_complete)
    batch = batch_size(config) if isinstance(profiles, str) or not auto_complete else _batch(config, plan, profiles)
    if isinstance(profiles, str) or isinstance(batch, str):
        return []
    return [*_batches_outside(config, plan, profiles, batch), *_profiles_unused(plan, profiles)]


def _profiles(config: Json, plan: Json, *, auto_complete: bool) -> list[int] | str:
    """The profiles that some instance uses; the first where none is said."""
    name, count, found = config.get("name", ""), max(len(plan["profiles"]), 1), []
    for word in (word for group in config.get("instance_group", ()) for word in group.get("profile", ())):
        if not word.lstrip("+-").isdecimal():
            return f"unable to parse '{word}': stoi" if word else "profile name must not be empty"
        if not 0 <= int(word) < count:
            return (
                f"unable to autofill for '{name}', configuration specified invalid profile {word} . Number of profiles "
                f"supported by TensorRT engine: {count}"
                if auto_complete
                else f"Can not set the specified optimization profile {word}[{int(word)}] for {name}. Expected "
                f"optimization profile index range 0-{count - 1}"
            )
        found.append(int(word))
    return sorted(set(found)) or [0]


def _batch(config: Json, plan: Json, profiles: list[int]) -> int | str:
    """`max_batch_size` as auto-complete leaves it."""
    head, written = f"autofill failed for model '{config.get('name', '')}': ", batch_size(config)
    largest = max((_largest_batch(plan, number) for number in profiles), default=0)
    hints: list[bool] = []
    for side, _ in SIDES:
        for io in config.get(side, ()):
            if any(item.get("allow_ragged_batch") for item in config.get("input", ())):
                hints = [True]
                break
            port, dims = find_port(plan, side, str(io.get("name", ""))), wire_dims(io)
            if port is None:
                return unexpected_port(plan, side, str(io.get("name", "")))
            if dims:
                rank = len(port["shape"]) == len(dims) + 1
                hints.append(port["shape"] == [dims[0] + 1] if port["values"] else rank)
    if any(hints) and not all(hints[hints.index(True) :]):
        return (
            f"unable to autofill for '{config.get('name', '')}', model tensor configurations are contradicting each "
            "other in terms of whether batching is supported"
        )
    if any(hints) and not largest:
        return (
            f"{head}model tensor shape configuration hints for dynamic batching but the underlying engine doesn't "
            "support batching."
        )
    largest = 0 if hints and not any(hints) else largest
    if written > largest:
        return (
            f"{head}configuration specified max-batch {written} but TensorRT engine only supports max-batch {largest}"
        )
    return written or largest


def _largest_batch(plan: Json, number: int) -> int:
    """What every input takes as its first size in this profile; 0 where one has no first size."""
    return min((_range(plan, port, number)[2][:1] or [0] for port in plan["inputs"]), default=[0])[0]


def _range(plan: Json, port: Json, number: int) -> list[list[int]]:
    """Smallest, best and largest; an input of fixed size needs no profile."""
    held = plan["profiles"][number].get(port["name"]) if number < len(plan["profiles"]) else None
    return held or [list(port["shape"])] * 3


def _counts(config: Json, plan: Json) -> Iterator[str]:
    expected, provided = len(config.get("input", ())), len(plan["inputs"])
    if expected > provided:
        yield (
            f"unable to load model '{config.get('name', '')}', configuration expects {expected} inputs, model provides "
            f"at most {provided}"
        )


def _tensor(config: Json, plan: Json, side: str, io: Json, batch: int) -> str | None:
    name, model, wanted = str(io.get("name", "")), config.get("name", ""), str(io.get("data_type", "TYPE_INVALID"))
    port, marked = find_port(plan, side, name), bool(io.get("is_shape_tensor"))
    if port is None:
        return unexpected_port(plan, side, name)
    if wanted.removeprefix("TYPE_") not in PLAN_TYPES:
        return f"unsupported datatype {wanted} for {side} '{name}' for model '{model}'"
    if port["values"] and not marked:
        what = "is a shape tensor but the model configuration doesn't mark it as a shape tensor."
        return f"{side} '{name}' for model '{model}' {what}"
    if marked and not port["values"]:
        return (
            f"{side} '{name}' for model '{model}' is incorrectly marked as a shape tensor in the model configuration."
        )
    return _dtype(model, port, side, wanted) or _dims(model, port, io, wire_dims(io), batch)


def _dtype(model: str, port: Json, side: str, wanted: str) -> str | None:
    given = TRITON.get(port["dtype"], "<invalid>")
    if wanted == f"TYPE_{given}":
        return None
    return f"unexpected datatype TYPE_{given} for inference {side} '{port['name']}', expecting {wanted} for {model}"


def _dims(model: str, port: Json, io: Json, dims: list[int], batch: int) -> str | None:
    name, shape = port["name"], list(port["shape"])
    if port["values"]:
        fits = len(dims) == len(shape) and (len(shape) != 1 or dims[0] + bool(batch) == shape[0])
        return (
            None
            if fits
            else f"unable to load model '{model}', binding '{name}' shape expected by framework {_text(shape)} doesn't "
            f"match model configuration shape {_text(dims)}"
        )
    if io.get("allow_ragged_batch"):
        return (
            None
            if shape == dims[:1]
            else f"model '{model}', tensor '{name}': for the model to support ragged input, the engine shape is: "
            f"{_text(shape)} while the model config shape is: {_text(dims)}"
        )
    full = [-1, *dims] if batch else dims
    if batch and not shape:
        return (
            f"model '{model}', tensor '{name}': for the model to support batching the shape should have at least 1 "
            f"dimension; but shape expected by the model is {_text(shape)}"
        )
    pairs = zip(shape, full, strict=False)
    if len(shape) == len(full) and all(-1 in (ours, theirs) or ours == theirs for ours, theirs in pairs):
        return None
    return dims_mismatch(model, name, shape, full, batch)


def _within(plan: Json, name: str, dims: list[int], profiles: list[int], batch: int) -> Iterator[str]:
    """Sizes that the configuration fixes and a profile does not hold; the instance sets them when it is made."""
    port = find_port(plan, "input", name)
    if port is None or port["values"]:
        return
    for number in profiles:
        low, _, high = (part[1:] if batch else part for part in _range(plan, port, number))
        if any(dim > top for dim, top in zip(dims, high, strict=False)):
            yield (
                f"can not maximize dimension {_text(dims)} to {_text(_range(plan, port, number)[2])} due to "
                f"incompatibility. (input '{name}', profile {number})"
            )
        elif any(-1 != dim < least for dim, least in zip(dims, low, strict=False)):
            yield (
                f"trt failed to set binding dimension to {_text(dims)} for input '{name}': profile {number} begins at "
                f"{_text(low)}"
            )


def _controls(config: Json, plan: Json, batch: int) -> Iterator[str]:
    """Inputs that the server makes for sequences: one number for each row."""
    name = config.get("name", "")
    for io, _ in control_parts(config.get("sequence_batching", {})):
        port = find_port(plan, "input", str(io.get("name", "")))
        if port is None:
            yield f"input '{io.get('name', '')}' not found for {name}"
        elif port["shape"] != [-1 if batch else 1, *[1] * (len(port["shape"]) - 1)] and -1 in port["shape"]:
            yield f"unexpected shape {_text(port['shape'])} for control input '{port['name']}' for model {name}"


def _left_out(config: Json, plan: Json, *, auto_complete: bool) -> Iterator[str]:
    """Tensors of the engine that nothing fills; auto-complete adds a side that is empty, and nothing to another."""
    sequence = config.get("sequence_batching", {})
    states = sequence.get("state", ())
    said = {
        "input": {
            *(io.get("name") for io, _ in control_parts(sequence)),
            *(state.get("input_name") for state in states),
            *(name for item in config.get("batch_input", ()) for name in item.get("target_name", ())),
        },
        "output": {state.get("output_name") for state in states},
    }
    for side, plural in SIDES:
        written = {io.get("name") for io in config.get(side, ())}
        if auto_complete and not written:
            continue
        for port in plan[plural]:
            if not port["values"] and port["name"] not in written | said[side]:
                yield f"expected configuration for {side} '{port['name']}' for {config.get('name', '')}"


def _batches_outside(config: Json, plan: Json, profiles: list[int], batch: int) -> Iterator[str]:
    if not batch:
        return
    ranges = [_batch_range(plan, number) for number in profiles]
    told = ", ".join(f"profile {number}: {low} to {high}" for number, (low, high) in zip(profiles, ranges, strict=True))
    preferred = sizes(config.get("dynamic_batching", {}).get("preferred_batch_size"))
    for what, rows in (("a single request", [1]), ("preferred_batch_size", preferred), ("max_batch_size", [batch])):
        outside = [size for size in rows if not any(low <= size <= high for low, high in ranges)]
        if outside:
            yield (
                f"{what}: no profile of the engine takes {', '.join(map(str, outside))} rows ({told}), so such batches "
                "fail; build the plan with a profile that goes from 1 to max_batch_size"
            )


def _batch_range(plan: Json, number: int) -> tuple[int, int]:
    firsts = [
        [part[0] for part in _range(plan, port, number)]
        for port in plan["inputs"]
        if port["shape"] and not port["values"]
    ]
    low, high = max((first[0] for first in firsts), default=1), min((first[2] for first in firsts), default=1)
    return low, high


def _profiles_unused(plan: Json, profiles: list[int]) -> Iterator[str]:
    count = len(plan["profiles"])
    if len(profiles) < count:
        used, every = ", ".join(map(str, profiles)), ", ".join(f'"{number}"' for number in range(count))
        yield (
            f"the engine has {count} profiles and the instances use {used}: sizes that only the others take fail; "
            f"write profile: [ {every} ] in instance_group"
        )


def _text(shape: list[int]) -> str:
    return f"[{','.join(map(str, shape))}]"
