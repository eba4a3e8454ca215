"""A setting in the spec's own words, and a model's spec with it."""

from __future__ import annotations

import json
from typing import Any, Final

from builder.spec import ModelSpec, Tuned
from builder.spec_tuning import TunedWords
from builder.tuning_records import Setting
from builder.work import parse_target

Words = dict[str, Any]

THREADS: Final = {"onnxruntime": "intra_op_threads", "pytorch": "intra_op_threads", "openvino": "threads"}
"""The backend's word for threads, in its part of the spec."""


def backend_of(setting: Setting) -> str:
    """`onnxruntime`."""
    return parse_target(setting.target).backend


def backend_words(setting: Setting) -> Words:
    """The backend's own part of the spec.

    Triton's openvino backend compiles a model once for all instances: its threads are shared out to as many streams as
    there are instances. The others have a session for each.
    """
    backend = backend_of(setting)
    if backend == "openvino":
        words: Words = {"hint": setting.hint} if setting.hint else {}
        if setting.threads is not None:
            words |= {"threads": setting.threads * setting.instances, "streams": setting.instances}
        elif setting.instances > 1 and not setting.hint:
            words |= {"streams": setting.instances}
        return words
    return {} if setting.threads is None or backend not in THREADS else {THREADS[backend]: setting.threads}


def way_of(setting: Setting, spec: ModelSpec) -> str:
    """How a process runs one instance of it, as canonical JSON: what is profiled, whatever the number of instances."""
    words = backend_words(setting)
    if backend_of(setting) == "openvino":
        own: Words = {"hint": setting.hint} if setting.hint else {}
        words = own | ({"threads": setting.threads, "streams": 1} if setting.threads is not None else {})
    return json.dumps(words | said_words(spec, backend_of(setting)), sort_keys=True)


def said_words(spec: ModelSpec, part: str) -> Words:
    """What the spec itself says of a part. It stands whole, whatever is tried: a tuning file fills what is left out."""
    value = getattr(spec, part, None)
    if part == "instances":
        return {"groups": len(value)} if value and any(group.model_fields_set for group in value) else {}
    return value.model_dump(exclude_unset=True) if value is not None else {}


def words_of(setting: Setting) -> Words:
    """The setting as a model's part of a spec."""
    batching: Words = {"max_batch_size": setting.max_batch_size}
    if setting.max_batch_size:
        batching["dynamic"] = setting.dynamic
    if setting.dynamic and setting.max_batch_size:
        batching["max_queue_delay_us"] = setting.max_queue_delay_us
        if setting.preferred:
            batching["preferred"] = list(setting.preferred)
    words: Words = {"serve": setting.target, "batching": batching, "instances": {"count": setting.instances}}
    own = backend_words(setting)
    return words | ({backend_of(setting): own} if own else {})


def free_words(spec: ModelSpec, setting: Setting) -> Words:
    """The setting's words without those of which the spec has its own."""
    return {key: value for key, value in words_of(setting).items() if key == "serve" or not said_words(spec, key)}


def with_setting(spec: ModelSpec, setting: Setting, name: str) -> ModelSpec:
    """The model's spec under another name with the setting in it, served from that target.

    The other targets stay, and the words are marked as a tuning file's: what is exported and converted is the same.
    """
    words = free_words(spec, setting)
    read = TunedWords.model_validate(words)
    changed = {key: getattr(read, key) for key in words}
    whole = spec.model_copy(update={**changed, "name": name})
    return whole.with_tuned(Tuned(tuple(key for key in words if key != "serve"), setting.target))


def describe(setting: Setting) -> str:
    """`openvino:int8, 2 instances x 1 thread, no batching`."""
    parts = [setting.target, f"{setting.instances} instance{'' if setting.instances == 1 else 's'}"]
    if setting.threads is not None:
        parts[-1] += f" x {setting.threads} thread{'' if setting.threads == 1 else 's'}"
    if setting.hint:
        parts.append(f"hint {setting.hint}")
    if not setting.max_batch_size:
        parts.append("no batching")
    elif not setting.dynamic:
        parts.append(f"batch {setting.max_batch_size}, no merging")
    else:
        said = f"batch {setting.max_batch_size}"
        said += f", preferred {', '.join(map(str, setting.preferred))}" if setting.preferred else ""
        said += f", delay {setting.max_queue_delay_us} us" if setting.max_queue_delay_us else ""
        parts.append(said)
    return ", ".join(parts)
