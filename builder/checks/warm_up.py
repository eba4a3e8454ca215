"""Warm-up requests against the inputs that they are for, in the server's words."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from builder.completion import Completed, completed_config
from builder.findings import Finding
from builder.native_rules import TRITON, batch_size, sizes, warm_ups
from builder.scan import ModelDir, backend_of, joined, line_of, scan_repository

if TYPE_CHECKING:
    from builder.checks import CheckContext

Json = dict[str, Any]
WIRE: Final = {"STRING": "BYTES"}
BATCHES_COUNTED: Final = ("onnxruntime", "openvino", "pytorch", "python", "tensorrt")


def check(repository: Path, context: CheckContext) -> Iterator[Finding]:
    """What the server refuses of the requests that it sends to itself."""
    for model in scan_repository(repository):
        if not model.config or not model.config.get("model_warmup") or "ensemble_scheduling" in model.config:
            continue
        line = line_of(model, "model_warmup")
        completed = completed_config(model, auto_complete=context.auto_complete)
        for message, remedy in (*_batch_sizes(model, completed), *_warm_up(model, completed.config)):
            yield Finding("error", "warm_up", message, remedy, model=model.name, file=model.config_file, line=line)


def _batch_sizes(model: ModelDir, completed: Completed) -> Iterator[tuple[str, str]]:
    """Backends refuse more requests at once than they batch; without batching the whole server may end at it."""
    backend, limit = backend_of(model), batch_size(completed.config)
    if backend not in BATCHES_COUNTED or not (limit or (completed.known and backend != "tensorrt")):
        return
    for request in warm_ups(completed.config):
        size = int(request.get("batch_size", 0))
        if size > max(1, limit):
            head = f"failed to run warmup sample '{request.get('name', '')}': "
            text = f"{head}batch size {size} for '{model.name}', max allowed is {limit}"
            yield text, f"write batch_size: {max(1, limit)}" + (" or less" if limit > 1 else "")


def _warm_up(model: ModelDir, config: Json) -> Iterator[tuple[str, str]]:
    inputs = {io.get("name", ""): io for io in config.get("input", ())}
    if not inputs:
        return
    for request in warm_ups(config):
        given = request.get("inputs", {})
        head = f"warm-up '{request.get('name', '')}': "
        missing = sorted(name for name, io in inputs.items() if name not in given and not io.get("optional"))
        if missing:
            known = sorted(name for name in given if name in inputs)
            text = (
                f"{head}expected {len(inputs)} inputs but got {len(known)} inputs for model '{model.name}'. "
                f"Got input(s) {known}, but missing required input(s) {missing}. "
                "Please provide all required input(s)."
            )
            yield text, f"give it inputs for {', '.join(missing)}"
        for name, item in sorted(given.items()):
            text = _warm_up_input(model, config, inputs.get(name), name, item)
            if text:
                yield head + text, "write it as the input is declared"


def _warm_up_input(model: ModelDir, config: Json, io: Json | None, name: str, item: Json) -> str:
    if not {"zero_data", "random_data", "input_data_file"} & set(item):
        return f"warmup setting expects input '{name}' to have input_data_type set"
    if io is None:
        return ""
    wanted, given = io.get("data_type", "TYPE_INVALID"), item.get("data_type", "TYPE_INVALID")
    if wanted != given:
        head = f"inference input '{name}' data-type is '{_wire(given)}'"
        return f"{head}, but model '{model.name}' expects '{_wire(wanted)}'"
    dims, sent = sizes(io.get("dims")), sizes(item.get("dims"))
    if -1 not in sent and not _takes(dims, sent):
        lead = [-1] if int(config.get("max_batch_size", 0)) > 0 else []
        head = f"unexpected shape for input '{name}' for model '{model.name}'"
        return f"{head}. Expected {lead + dims}, got {[1] * len(lead) + sent}"
    if wanted == "TYPE_STRING" and item.get("input_data_file"):
        return _strings(model, name, item)
    return ""


def _takes(dims: list[int], sent: list[int]) -> bool:
    pairs = zip(dims, sent, strict=False)
    return len(dims) == len(sent) and all(ours == theirs or (ours == -1 and theirs >= 0) for ours, theirs in pairs)


def _strings(model: ModelDir, name: str, item: Json) -> str:
    path = joined(model.path / "warmup", str(item["input_data_file"]))
    data, place = (path.read_bytes() if path.is_file() else b""), 0
    while place < len(data):
        rest = len(data) - place
        if rest < 4:  # noqa: PLR2004 - bytes of the length
            head = f"incomplete string length indicator for inference input '{name}' for model '{model.name}'"
            return f"{head}, expecting 4 bytes but only {rest} bytes available."
        place += 4 + int(struct.unpack_from("<I", data, place)[0])
    return ""


def _wire(word: str) -> str:
    kind = word.removeprefix("TYPE_")
    return WIRE.get(kind, kind) if kind in TRITON.values() else "<invalid>"
