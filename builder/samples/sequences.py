"""Sequences for a model that takes its state as an input and gives the next one as an output: run step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from builder import defaults
from builder.errors import SpecError
from builder.native_rules import pairs_swapped
from builder.onnx_tools.reading import short
from builder.samples import Request
from builder.samples.batch_probe import take_rows
from builder.samples.file import SampleRows
from builder.samples.making import RandomRecipe, batch_axes
from builder.tensors import Tensor
from builder.work import SequenceRef, StateRef

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]
    Arrays = Mapping[str, Array]

Steps = tuple["list[Arrays]", "list[Array] | None"]
"""The inputs of one sequence that clients send, and a label for each step."""
Answer = Callable[["Arrays", "Array | None"], Request]

LENGTHS: Final = (5, 3, 7, 1, 4, 6)
"""Steps of the sequences: all different, so that clients that send them are never in step."""
MOST_STEPS: Final = 600
"""Of the user's samples; each step is one run of the source."""
CONTROL_TYPES: Final = {
    "start": ("int32", "float32", "bool"),
    "end": ("int32", "float32", "bool"),
    "ready": ("int32", "float32", "bool"),
    "corrid": ("uint64", "int64", "uint32", "int32", "string"),
}
AGREE: Final = "declare sizes in inputs:, or export the model so that a state goes out as it came in"


@dataclass(frozen=True, slots=True)
class Stream:
    """A model that is asked in sequences.

    `inputs` have the sizes of their states fixed, at `sizes` by the axes' names; `first` holds the states that every
    sequence starts with, for one row. `batched` says that rows of a batch may be steps of different sequences.
    """

    inputs: tuple[Tensor, ...]
    first: dict[str, Array]
    sequence: SequenceRef
    sizes: dict[str, int]
    batched: bool

    @property
    def plain(self) -> tuple[Tensor, ...]:
        """What a client sends."""
        inner = {state.input for state in self.sequence.states} | {name for _, name in self.sequence.controls}
        return tuple(tensor for tensor in self.inputs if tensor.name not in inner)


def open_stream(inputs: tuple[Tensor, ...], outputs: Sequence[str] | None, sequence: SequenceRef) -> Stream:
    """Fix every size of a state but its batch axis: at that of its first value, else at 1.

    Raises:
        SpecError: names, types or shapes do not fit what the spec declares.
    """
    _check_names(inputs, outputs, sequence)
    known = {tensor.name: tensor for tensor in inputs}
    states = [(state, known[state.input]) for state in sequence.states]
    axes = batch_axes(inputs)
    batched = bool(axes) and not any(dim in axes for _, tensor in states for dim in tensor.shape[1:])
    lead = 1 if batched else 0
    values = {state.input: _read_first(state, tensor, lead) for state, tensor in states if state.path}
    fixed: dict[str, int] = {}
    for state, tensor in states:
        value = values.get(state.input)
        sizes = [1] * len(tensor.shape) if value is None else value.shape
        for dim, size in list(zip(tensor.shape, sizes, strict=True))[lead:]:
            if isinstance(dim, str) and fixed.setdefault(dim, int(size)) != size:
                raise SpecError(f"state {state.input!r}: axis {dim!r} has size {size} here and {fixed[dim]} elsewhere")
    shaped = tuple(_fixed(tensor, fixed) for tensor in inputs)
    by_name = {tensor.name: tensor for tensor in shaped}
    for kind, name in sequence.controls:
        _check_control(kind, by_name[name], lead)
    first = {state.input: values.get(state.input, _zeros(by_name[state.input])) for state, _ in states}
    return Stream(shaped, first, sequence, fixed, batched)


def _check_names(inputs: Sequence[Tensor], outputs: Sequence[str] | None, sequence: SequenceRef) -> None:
    names = [tensor.name for tensor in inputs]
    inner = [state.input for state in sequence.states] + [name for _, name in sequence.controls]
    for name in inner:
        if name not in names:
            raise SpecError(f"sequence: the model has no input {name!r}", remedy=f"it has {', '.join(names)}")
    for state in sequence.states:
        if outputs is not None and state.output not in outputs:
            raise SpecError(
                f"sequence: the model has no output {state.output!r}", remedy=f"it has {', '.join(outputs)}"
            )
        if not next(tensor for tensor in inputs if tensor.name == state.input).shape:
            raise SpecError(
                f"state {state.input!r} is a scalar, and Triton gives states at least one axis",
                remedy="give the state the shape [1] in the model",
            )
    if len(inner) == len(names):
        raise SpecError("sequence: no input is left that a client could send")
    pairs = [{"input_name": state.input, "output_name": state.output} for state in sequence.states]
    if pairs_swapped(pairs):
        shown = ", ".join(f"{state.input} ← {state.output}" for state in sequence.states)
        raise SpecError(
            f"the states {shown} would be mixed up: Triton pairs their inputs with their outputs by the alphabetical "
            "order of the names",
            remedy="rename the outputs in the model so that they sort as their inputs do; the inputs of a TorchScript "
            "file have the names that inputs: gives them, so rename those",
        )


def _read_first(state: StateRef, tensor: Tensor, lead: int) -> Array:
    """The value that a sequence starts with, as one row."""
    import numpy as np

    path = Path(state.path or "")
    try:
        value = np.load(path, allow_pickle=False)
    except Exception as error:
        raise SpecError(
            f"state {state.input!r}: {path.name} is no readable .npy: {short(error)}",
            remedy="write it with numpy.save(FILE, ARRAY)",
        ) from error
    row: Array = (
        value[None] if isinstance(value, np.ndarray) and lead and value.ndim == len(tensor.shape) - 1 else value
    )
    fits = isinstance(row, np.ndarray) and row.dtype.name == tensor.dtype and row.ndim == len(tensor.shape)
    wanted = [1, *tensor.shape[1:]] if lead else tensor.shape
    if not fits or any(isinstance(dim, int) and dim != size for dim, size in zip(wanted, row.shape, strict=True)):
        got = f"{row.dtype}{list(row.shape)}" if isinstance(row, np.ndarray) else "several arrays"
        raise SpecError(f"state {tensor.describe()}: {path.name} holds {got}", remedy="write one array of that form")
    return row


def _fixed(tensor: Tensor, sizes: Mapping[str, int]) -> Tensor:
    return replace(tensor, shape=tuple(sizes.get(dim, dim) if isinstance(dim, str) else dim for dim in tensor.shape))


def _check_control(kind: str, tensor: Tensor, lead: int) -> None:
    if tensor.dtype not in CONTROL_TYPES[kind] or tensor.shape[lead:] != (1,):
        types = ", ".join(CONTROL_TYPES[kind])
        raise SpecError(
            f"control {kind}: {tensor.describe()} cannot be set by Triton, which sends "
            f"{'[1] for each row, so [N,1]' if lead else 'the shape [1]'} of {types}",
            remedy="change that input of the model, or leave the control out and let clients send it",
        )


def _zeros(tensor: Tensor) -> Array:
    """Of one row: named axes, which are batch axes here, have size 1."""
    import numpy as np

    shape = tuple(dim if isinstance(dim, int) else 1 for dim in tensor.shape)
    return np.full(shape, "", dtype=object) if tensor.dtype == "string" else np.zeros(shape, _numpy(tensor.dtype))


def _numpy(dtype: str) -> Any:  # noqa: ANN401 - a dtype, or ml_dtypes' own
    if dtype == "bfloat16":
        import ml_dtypes

        return ml_dtypes.bfloat16
    return dtype


def random_steps(stream: Stream, recipe: RandomRecipe) -> Iterator[Steps]:
    """The inputs of each sequence; its sizes stay the same from step to step."""
    names = [tensor.name for tensor in stream.plain]
    for number, length in enumerate(LENGTHS):
        sizes = recipe.sizes[number % len(recipe.sizes)]
        made = (recipe.make(1, sizes, 1 + number * max(LENGTHS) + step) for step in range(length))
        yield [{name: arrays[name] for name in names} for arrays in made], None


def file_steps(stream: Stream, rows: SampleRows) -> Iterator[Steps]:
    """The user's rows as steps: by the sequence that each belongs to, else cut into sequences of several lengths."""
    for group in _groups(rows):
        steps: list[Arrays] = [
            {name: _row(array, row, stream.batched) for name, array in rows.arrays.items()} for row in group
        ]
        labels = None if rows.labels is None else [rows.labels[row : row + 1] for row in group]
        yield steps, labels


def _row(array: Array, row: int, batched: bool) -> Array:
    # Not array[row]: that makes numbers and texts of rank-0 entries.
    one = array[row : row + 1]
    return one if batched else one.reshape(array.shape[1:])


def _groups(rows: SampleRows) -> list[list[int]]:
    count = min(rows.count, MOST_STEPS)
    if rows.sequence is not None:
        groups: dict[object, list[int]] = {}
        for row, number in enumerate(rows.sequence.tolist()[:count]):
            groups.setdefault(number, []).append(row)
        return list(groups.values())
    cut: list[list[int]] = []
    start = 0
    for length in cycle(LENGTHS):
        if start >= count:
            return cut
        cut.append(list(range(start, min(start + length, count))))
        start += length
    return cut


def play(
    stream: Stream, answer: Answer, number: int, steps: Sequence[Arrays], labels: Sequence[Array] | None
) -> tuple[Request, ...]:
    """One sequence: each step gets the states that the one before gave.

    Raises:
        SpecError: the source refuses a step, or a state does not go out as it came in.
    """
    states: dict[str, Array] = dict(stream.first)
    played: list[Request] = []
    for step, plain in enumerate(steps):
        given = {**plain, **states, **_controls(stream, number, step, len(steps))}
        arrays = {tensor.name: given[tensor.name] for tensor in stream.inputs}
        request = answer(arrays, labels[step] if labels is not None else None)
        states = {state.input: _next_state(request, state) for state in stream.sequence.states}
        played.append(replace(request, sequence=number))
    return tuple(played)


def set_apart(
    sequences: Sequence[tuple[Request, ...]], calibration: int
) -> tuple[tuple[Request, ...], tuple[Request, ...]]:
    """Steps to judge on, and about so many to calibrate on: every other sequence, none cut.

    Raises:
        SpecError: there is one sequence only, and it cannot be both.
    """
    judged: list[Request] = []
    apart: list[Request] = []
    for place, steps in enumerate(sequences):
        (apart if place % 2 and len(apart) < calibration else judged).extend(steps)
    if calibration and not apart:
        raise SpecError(
            "the samples are one sequence: int8 calibrates on some sequences and is judged on others",
            remedy="give two at least, told apart by samples: {sequence_id: …}",
        )
    return tuple(judged), tuple(apart)


def _next_state(request: Request, state: StateRef) -> Array:
    if state.output not in request.outputs:
        raise SpecError(
            f"sequence: the model has no output {state.output!r}", remedy=f"it has {', '.join(request.outputs)}"
        )
    before, after = request.inputs[state.input], request.outputs[state.output]
    same_kind = before.dtype == after.dtype or {before.dtype.kind, after.dtype.kind} <= set("OSU")
    if not same_kind or before.shape != after.shape:
        raise SpecError(
            f"state output {state.output!r} is {after.dtype}{list(after.shape)}, its input {state.input!r} "
            f"{before.dtype}{list(before.shape)}: Triton gives the one back as the other, so they must agree",
            remedy=AGREE,
        )
    return after


def _controls(stream: Stream, number: int, step: int, length: int) -> dict[str, Array]:
    import numpy as np

    known = {tensor.name: tensor for tensor in stream.inputs}
    flags = {"start": step == 0, "end": step == length - 1, "ready": True}
    made: dict[str, Array] = {}
    for kind, name in stream.sequence.controls:
        zeros = _zeros(known[name])
        value: Any = flags[kind] if kind in flags else number + 1
        made[name] = np.full(zeros.shape, str(value) if zeros.dtype == object else value, zeros.dtype)
    return made


def step_pool(requests: Sequence[Request]) -> dict[str, Array]:
    """Steps of one form as rows, to try batches with."""
    import numpy as np

    def form(request: Request) -> object:
        return tuple((name, array.shape) for name, array in request.inputs.items())

    wanted = max(2 * defaults.MAX_BATCH_SIZE, defaults.ODD_BATCH)
    alike = [request.inputs for request in requests if form(request) == form(requests[0])][:wanted]
    return {name: np.concatenate([inputs[name] for inputs in alike]) for name in alike[0]}


def batch_answers(names: Sequence[str], pool: Arrays, answers: Mapping[int, tuple[Array, ...]]) -> tuple[Request, ...]:
    """What the source answered to batches of steps: seen, but no step of a sequence."""
    return tuple(
        Request(take_rows(pool, 0, size), dict(zip(names, outputs, strict=True))) for size, outputs in answers.items()
    )


def single_sizes(inputs: tuple[Tensor, ...], seen: Sequence[Request]) -> dict[str, int]:
    """First axes at which only one size ever ran: beside a state of one size they may have no other."""
    sizes: dict[str, set[int]] = {}
    for tensor in inputs:
        if tensor.shape and isinstance(tensor.shape[0], str):
            found = {int(request.inputs[tensor.name].shape[0]) for request in seen}
            sizes.setdefault(tensor.shape[0], set()).update(found)
    return {name: min(found) for name, found in sizes.items() if len(found) == 1}


def first_axes_one(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The inputs with every open first axis at 1."""
    names = {tensor.shape[0]: 1 for tensor in inputs if tensor.shape and isinstance(tensor.shape[0], str)}
    return tuple(_fixed(tensor, {str(name): size for name, size in names.items()}) for tensor in inputs)
