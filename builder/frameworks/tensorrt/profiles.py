"""Which sizes an engine takes: optimisation profiles from the axes, the batching, the samples and the spec's words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from builder.errors import BuildError, SpecError
from builder.tensors import Signature, Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Range:
    """The smallest, the best and the largest shape of one input, or values where the input is a shape itself."""

    smallest: tuple[int, ...]
    best: tuple[int, ...]
    largest: tuple[int, ...]


Sizes = tuple[int, int, int]
Profile = dict[str, Range]


@dataclass(frozen=True, slots=True)
class Batching:
    """What the server will send: `best` rows at a time, at most `largest`."""

    best: int
    largest: int


def make_profiles(
    signature: Signature,
    batching: Batching,
    samples: Sequence[Arrays],
    asked: Sequence[Mapping[str, Sequence[int]]] = (),
) -> tuple[Profile, ...]:
    """One profile for each of `asked` (axis → smallest, best, largest), else one; none where every size is fixed.

    The batch axis goes from 1 to the maximum; an axis that `asked` does not name takes the sizes of the samples.

    Raises:
        SpecError: `asked` names an axis that the model does not have, or the batch axis.
    """
    dynamic = [tensor for tensor in signature.inputs if tensor.dynamic_axes]
    known = {str(tensor.shape[axis]) for tensor in dynamic for axis in tensor.dynamic_axes}
    batch = _batch_axis(signature)
    for words in asked:
        _require_axes(words, known, batch)
    if not dynamic:
        return ()
    found = dict(_observed(dynamic, samples))
    if batch is not None:
        found[batch] = (1, batching.best, batching.largest)
    return tuple(
        _profile(dynamic, found | {axis: _triple(sizes) for axis, sizes in words.items()}) for words in asked or ({},)
    )


def _triple(sizes: Sequence[int]) -> Sizes:
    smallest, best, largest = sizes
    return smallest, best, largest


def _batch_axis(signature: Signature) -> str | None:
    return str(signature.inputs[0].shape[0]) if signature.has_batch_axis else None


def _require_axes(words: Mapping[str, Sequence[int]], known: set[str], batch: str | None) -> None:
    if batch is not None and batch in words:
        raise SpecError(
            f"tensorrt.profiles: {batch!r} is the batch axis, whose sizes are the batching's",
            remedy="leave it out, and write batching: {max_batch_size: N, preferred: [N]}",
        )
    strange = sorted(set(words) - known)
    if strange:
        have = ", ".join(sorted(known - {batch})) or "none but the batch axis"
        raise SpecError(
            f"tensorrt.profiles: no input has an axis {strange[0]!r} of any size",
            remedy=f"the model's axes of any size are: {have}",
        )


def _observed(inputs: Sequence[Tensor], samples: Sequence[Arrays]) -> Iterator[tuple[str, Sizes]]:
    """Every axis with the smallest, the middle and the largest size that the samples have."""
    seen: dict[str, list[int]] = {}
    for tensor in inputs:
        for arrays in samples:
            for axis in tensor.dynamic_axes:
                seen.setdefault(str(tensor.shape[axis]), []).append(int(arrays[tensor.name].shape[axis]))
    for name, sizes in seen.items():
        ordered = sorted(sizes)
        yield name, (max(ordered[0], 1), max(ordered[len(ordered) // 2], 1), max(ordered[-1], 1))


def _profile(inputs: Sequence[Tensor], sizes: Mapping[str, Sizes]) -> Profile:
    return {tensor.name: Range(*(_shape(tensor, sizes, place) for place in range(3))) for tensor in inputs}


def _shape(tensor: Tensor, sizes: Mapping[str, Sizes], place: int) -> tuple[int, ...]:
    missing = [dim for dim in tensor.shape if isinstance(dim, str) and dim not in sizes]
    if missing:
        raise BuildError(
            f"no sample says how large the axis {missing[0]!r} of {tensor.describe()} becomes",
            remedy=f"say it in the spec: tensorrt: {{profiles: [{{{missing[0]}: [1, 64, 512]}}]}}",
        )
    return tuple(dim if isinstance(dim, int) else sizes[dim][place] for dim in tensor.shape)


def value_range(name: str, samples: Sequence[Arrays]) -> Range:
    """For an input whose values are a shape: their smallest, middle and largest in the samples, one by one."""
    import numpy as np

    values = np.sort(np.stack([np.asarray(arrays[name]).reshape(-1) for arrays in samples]), axis=0)
    smallest, best, largest = (tuple(int(item) for item in values[place]) for place in (0, len(values) // 2, -1))
    return Range(smallest, best, largest)


def add_profiles(network: Any, config: Any, profiles: Sequence[Profile], samples: Sequence[Arrays]) -> None:  # noqa: ANN401
    """Enter the profiles into the builder's configuration; `network` is `network.Network`.

    Raises:
        BuildError: TensorRT refuses one.
    """
    inputs = [network.definition.get_input(index) for index in range(network.definition.num_inputs)]
    values = [tensor.name for tensor in inputs if tensor.is_shape_tensor]
    for number, ranges in enumerate(profiles or (({},) if values else ())):
        profile = network.builder.create_optimization_profile()
        for name, sizes in ranges.items():
            profile.set_shape(name, sizes.smallest, sizes.best, sizes.largest)
        for name in values:
            held = value_range(name, samples)
            profile.set_shape_input(name, held.smallest, held.best, held.largest)
        if config.add_optimization_profile(profile) < 0:
            said = "; ".join(f"{name} {sizes.smallest} … {sizes.largest}" for name, sizes in ranges.items())
            raise BuildError(
                f"TensorRT refuses the optimisation profile {number}: {said}",
                remedy="give sizes that the model takes: tensorrt: {profiles: [{AXIS: [SMALLEST, BEST, LARGEST]}]}",
            )
