"""What both Python-based backends share: reading the configuration, batching requests, answering them.

It runs in the embedded server's own environment, beside `model.py`; only numpy and the server's utilities are there.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import native_rules
import numpy as np
import triton_python_backend_utils as pb_utils
from ragged_batches import RaggedBatches
from sequence_states import SequenceStates

Json = dict[str, Any]
Native = Any
"""An object of the server's utilities or of an inference library, which bring no types."""
Array = np.ndarray[Any, Any]
Run = Callable[[dict[str, Array], int, bool], list[Array]]

TRITON_TO_NUMPY = {
    "TYPE_BOOL": "bool",
    "TYPE_UINT8": "uint8",
    "TYPE_UINT16": "uint16",
    "TYPE_UINT32": "uint32",
    "TYPE_UINT64": "uint64",
    "TYPE_INT8": "int8",
    "TYPE_INT16": "int16",
    "TYPE_INT32": "int32",
    "TYPE_INT64": "int64",
    "TYPE_FP16": "float16",
    "TYPE_FP32": "float32",
    "TYPE_FP64": "float64",
    "TYPE_BF16": "bfloat16",
    "TYPE_STRING": "string",
}
NUMPY_TO_TRITON = {name: word for word, name in TRITON_TO_NUMPY.items()}


def refusal(text: str) -> Exception:
    """The exception that fails the load with the text that the repository index then shows."""
    error: Exception = pb_utils.TritonModelException(text)
    return error


def parameter(config: Json, key: str, default: str = "") -> str:
    """A string parameter of the configuration."""
    return str(config.get("parameters", {}).get(key, {}).get("string_value", default))


def whole_number(config: Json, key: str, default: int = 0) -> int:
    """A parameter that must be a whole number, refused as the native backends do."""
    text = parameter(config, key)
    if not text:
        return default
    # What is no number at all was refused by the rules.
    return int(native_rules.leading_number(text))


def flag(config: Json, key: str, *, default: bool) -> bool:
    """A parameter that is true or false; other words were refused by the rules."""
    return parameter(config, key, str(default)).lower() in ("true", "on", "1")


def model_file(version_folder: str, config: Json, default: str) -> str:
    """The artefact's path; a folder of that name holds a file of that name."""
    path = Path(version_folder) / (config.get("default_model_filename") or default)
    if not path.exists():
        raise refusal(f"failed to stat file {path}")
    inner = path / path.name
    return str(inner if path.is_dir() and inner.is_file() else path)


def read_config(args: Json) -> Json:
    """The configuration as the server completed it."""
    config: Json = json.loads(args["model_config"])
    return config


def apply_rules(backend: str, config: Json, ports: Json) -> None:
    """Refuse what the native backend refuses, in its words, and what this server cannot carry."""
    auto_complete = os.environ.get("BUILD_REPO_AUTO_COMPLETE", "1") == "1"
    release = os.environ.get("BUILD_REPO_RELEASE", "")
    for text in native_rules.refusals(backend, config, ports, auto_complete=auto_complete, release=release):
        raise refusal(text)
    states = config.get("sequence_batching", {}).get("state", [])
    for tensor in config.get("input", []) + config.get("output", []) + states:
        if tensor["data_type"] == "TYPE_BF16":
            name = tensor.get("name") or tensor["input_name"]
            raise refusal(f"tensor '{name}': TYPE_BF16 cannot be served by the embedded server")


def complete_io(config: Json, section: str, ports: list[Json], *, every_dim_dynamic: bool) -> None:
    """Fill an empty `input` or `output` from the model, as the native backends do."""
    if config.get(section):
        return
    batched = config.get("max_batch_size", 0) > 0
    config[section] = [_completed(port, batched=batched, every_dim_dynamic=every_dim_dynamic) for port in ports]


def _completed(port: Json, *, batched: bool, every_dim_dynamic: bool) -> Json:
    dims = list(port["shape"][1:] if batched else port["shape"])
    if every_dim_dynamic and -1 in port["shape"]:
        dims = [-1] * len(dims)
    if port["dtype"] not in NUMPY_TO_TRITON:
        raise refusal(f"unsupported datatype {port['dtype']} for I/O '{port['name']}'")
    tensor = {"name": port["name"], "data_type": NUMPY_TO_TRITON[port["dtype"]], "dims": dims or [1]}
    if batched and not dims:
        tensor["reshape"] = {"shape": []}
    return tensor


def complete_dynamic_batching(config: Json) -> None:
    """Turn the dynamic batcher on where the model batches and no scheduler was chosen."""
    if config.get("max_batch_size", 0) > 1 and "sequence_batching" not in config:
        config.setdefault("dynamic_batching", {})


Group = tuple[list[int], list[dict[str, Array]]]
"""Places of requests that can share one run, and their input arrays."""


class Responder:
    """Answers requests with as few runs as their shapes allow.

    `run(arrays, rows, last)` gets full arrays by name and returns the outputs in the order of `results`: those of the
    configuration, then the states. `rows` is 0 without a batch axis, and `last` is False where its results must outlive
    another run.
    """

    def __init__(self, config: Json, ports: Json, run: Run, *, joins_ragged: bool = True) -> None:
        self.batched = config.get("max_batch_size", 0) > 0
        self.run = run
        self.outputs = [tensor["name"] for tensor in config.get("output", [])]
        self.states = SequenceStates(config)
        self.ragged = RaggedBatches(config if joins_ragged else {})
        self.results = list(dict.fromkeys([*self.outputs, *self.states.outputs.values()]))
        self.strings = {tensor["name"] for tensor in config.get("input", []) if tensor["data_type"] == "TYPE_STRING"}
        states = config.get("sequence_batching", {}).get("state", [])
        self.strings |= {state["input_name"] for state in states if state["data_type"] == "TYPE_STRING"}
        self.scalars = {port["name"] for port in ports["inputs"] if not port["shape"]}
        shapes = {port["name"]: port["shape"] for port in ports["outputs"]}
        self.scalar_shapes = {
            tensor["name"]: (tensor.get("reshape", {}).get("shape") or [1] * len(tensor["dims"]))
            for tensor in config.get("output", [])
            if not shapes.get(tensor["name"], [-1])
        }

    def execute(self, requests: list[Native]) -> list[Native]:
        """One response for every request, in order."""
        responses: list[Native] = [None] * len(requests)
        groups = self._groups(requests, responses)
        for group in groups:
            try:
                self._answer(requests, responses, group, last=len(groups) == 1)
            except Exception as error:
                failure = pb_utils.TritonError(str(error))
                for index in group[0]:
                    responses[index] = pb_utils.InferenceResponse(error=failure)
        return responses

    def _groups(self, requests: list[Native], responses: list[Native]) -> list[Group]:
        """(indices, their input arrays) of requests that can share one run."""
        groups: dict[object, Group] = {}
        for index, request in enumerate(requests):
            try:
                arrays = {tensor.name(): self._array(tensor) for tensor in request.inputs()}
                self.states.fill(request, arrays)
            except Exception as error:
                responses[index] = pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))
                continue
            key: object = index
            if self.batched and len(requests) > 1:
                fixed = (item for item in arrays.items() if item[0] not in self.ragged.inputs)
                key = tuple(sorted((name, array.shape[1:]) for name, array in fixed))
            groups.setdefault(key, ([], []))
            groups[key][0].append(index)
            groups[key][1].append(arrays)
        return list(groups.values())

    def _array(self, tensor: Native) -> Array:
        array: Array = tensor.as_numpy()
        name = tensor.name()
        if name in self.strings:
            texts = [item.decode("utf-8") if isinstance(item, bytes) else item for item in array.ravel()]
            array = np.array(texts, dtype=object).reshape(array.shape)
        return array.reshape(()) if name in self.scalars else array

    def _answer(self, requests: list[Native], responses: list[Native], group: Group, *, last: bool) -> None:
        members, arrays = group
        merged = self.ragged.merged(arrays) if self.ragged or len(members) > 1 else arrays[0]
        rows = [len(next(iter(one.values()))) if self.batched and one else 0 for one in arrays]
        total = sum(rows)
        results = self.run(merged, total, last)
        if self.batched:
            for name, result in zip(self.results, results, strict=True):
                if name not in self.ragged.outputs and (not result.ndim or len(result) != total):
                    msg = f"output '{name}' has shape {list(result.shape)} for a batch of {total}"
                    raise ValueError(msg)
        scattered = {
            name: self.ragged.scattered(name, result, arrays)
            for name, result in zip(self.results, results, strict=True)
            if name in self.ragged.outputs
        }
        start = 0
        for place, (index, count) in enumerate(zip(members, rows, strict=True)):
            part = results if len(members) == 1 else [result[start : start + count] for result in results]
            named = dict(zip(self.results, part, strict=True))
            named |= {name: cut[place] for name, cut in scattered.items()}
            self.states.update(requests[index], named)
            responses[index] = self._response(requests[index], named)
            start += count

    def _response(self, request: Native, results: dict[str, Array]) -> Native:
        asked = request.requested_output_names()
        wanted = [name for name in self.outputs if name in asked] if asked else self.outputs
        tensors = [pb_utils.Tensor(name, self._wire(name, results[name])) for name in wanted]
        return pb_utils.InferenceResponse(output_tensors=tensors)

    def _wire(self, name: str, result: Array) -> Array:
        if not result.ndim:
            result = result.reshape(self.scalar_shapes.get(name) or [1])
        return np.ascontiguousarray(result)
