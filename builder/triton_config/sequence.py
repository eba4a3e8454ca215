"""`sequence_batching` with implicit state: the server keeps each sequence's states and gives them back to the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from builder import defaults
from builder.measurement import Sequencing
from builder.tensors import BY_NUMPY, Signature, Tensor

if TYPE_CHECKING:
    from builder.spec_serving import BatchingSpec, SequenceSpec, StateSpec

Json = dict[str, Any]

FOLDER: Final = "initial_state"
"""Beside `config.pbtxt`; Triton looks nowhere else."""
KINDS: Final = {kind: f"CONTROL_SEQUENCE_{kind.upper()}" for kind in ("start", "end", "ready", "corrid")}
FALSE_TRUE: Final[dict[str, tuple[str, list[Any]]]] = {
    "int32": ("int32_false_true", [0, 1]),
    "float32": ("fp32_false_true", [0, 1]),
    "bool": ("bool_false_true", [False, True]),
}


@dataclass(frozen=True, slots=True)
class SequenceRequest:
    """What the spec says, what the export found, and by state input the values that do not start at zero."""

    spec: SequenceSpec
    sequencing: Sequencing
    initial: Mapping[str, bytes] = field(default_factory=dict)


def sequence_batching(
    request: SequenceRequest, signature: Signature, batching: BatchingSpec, max_batch_size: int
) -> Json:
    """The whole block."""
    spec, known = request.spec, {tensor.name: tensor for tensor in signature.tensors}
    block: Json = {"max_sequence_idle_microseconds": spec.max_idle_us}
    block |= _strategy(spec, batching, max_batch_size)
    controls = [_control(kind, known[name]) for kind, name in request.sequencing.controls]
    if controls:
        block["control_input"] = controls
    files = file_names(request)
    words = {state.input: state for state in spec.states}
    block["state"] = [
        _state(known[name], output, files.get(name), sized(known[name], request.sequencing, max_batch_size))
        | _buffers(words[name])
        for name, output in request.sequencing.states
    ]
    return block


def _buffers(state: StateSpec) -> Json:
    words = {"use_same_buffer_for_input_output": state.same_buffer, "use_growable_memory": state.growable}
    return {field: True for field, asked in words.items() if asked}


def _strategy(spec: SequenceSpec, batching: BatchingSpec, max_batch_size: int) -> Json:
    delay = {"max_queue_delay_microseconds": batching.max_queue_delay_us} if batching.max_queue_delay_us else {}
    if spec.strategy == "direct":
        # The delay means nothing to this scheduler without a share of the slots to wait for.
        share = spec.min_slot_utilization or 1.0
        return {"direct": {**delay, "minimum_slot_utilization": share} if delay and max_batch_size > 1 else {}}
    oldest: Json = {"max_candidate_sequences": spec.max_candidate_sequences or defaults.SEQUENCES}
    if max_batch_size > 1:
        sizes = [size for size in sorted(set(batching.preferred)) if size <= max_batch_size]
        oldest |= {"preferred_batch_size": sizes} if sizes else {}
        oldest |= delay
    if batching.preserve_ordering:
        oldest["preserve_ordering"] = True
    return {"oldest": oldest}


def _control(kind: str, tensor: Tensor) -> Json:
    control: Json = {"kind": KINDS[kind]}
    if kind == "corrid":
        control["data_type"] = BY_NUMPY[tensor.dtype].triton
    else:
        word, values = FALSE_TRUE[tensor.dtype]
        control[word] = values
    return {"name": tensor.name, "control": [control]}


def _state(tensor: Tensor, output: str, file: str | None, dims: list[int]) -> Json:
    data_type = BY_NUMPY[tensor.dtype].triton
    first: Json = {"data_type": data_type, "dims": dims, "name": f"first {tensor.name}"}
    first |= {"data_file": file} if file else {"zero_data": True}
    return {
        "input_name": tensor.name,
        "output_name": output,
        "data_type": data_type,
        "dims": dims,
        "initial_state": [first],
    }


def sized(tensor: Tensor, sequencing: Sequencing, max_batch_size: int) -> list[int]:
    """The dims of a state: always sizes, since where the configuration says -1, Triton starts a sequence with 1."""
    known = dict(sequencing.sizes)
    full = [dim if isinstance(dim, int) else known.get(dim, 1) for dim in tensor.shape]
    return full[1:] if max_batch_size else full


def file_names(request: SequenceRequest) -> dict[str, str]:
    """State input → the file of its first value, where that is not zero."""
    names = [name for name, _ in request.sequencing.states]
    return {name: f"state_{names.index(name)}" for name in names if name in request.initial}


def initial_state_files(request: SequenceRequest) -> dict[str, bytes]:
    """Path relative to the model's folder → content of the files that states start with."""
    return {f"{FOLDER}/{file}": request.initial[name] for name, file in file_names(request).items()}
