"""Sample inputs: rows read from the user's `.npz`, or seeded random ones that the source accepts, found by trying."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product
from typing import TYPE_CHECKING, Any, Final

from builder import defaults
from builder.errors import BuildRepoError, SpecError
from builder.onnx_tools.reading import short
from builder.tensors import BY_NUMPY, Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]
    Arrays = Mapping[str, Array]

Run = Callable[["Arrays"], "tuple[Array, ...]"]

BATCHES: Final = (1, 2, 4, 8, 16, 32)
"""Batch sizes tried until one runs."""
OTHER_LENGTHS: Final = (64, 8, 4, 128, 2, 1, 32, 16, 256, 224, 320, 512, 1024, 2048, 4096, 16000)
"""Sizes tried on other dynamic axes when none of the usual lengths runs."""
IMAGE_SIZES: Final = ((224, 224), (256, 224), (64, 96), (320, 320), (512, 512), (640, 640), (32, 32), (28, 28))
"""Heights and widths tried on images, before the lengths."""
CHANNELS: Final = (1, 3, 4)
IMAGE_RANK: Final = 4
WIDEST: Final = 1000
"""Integers below this are tried first, then the widest range is found by halving."""
TEXTS: Final = (
    "hello world",
    "a",
    "The quick brown fox jumps over the lazy dog.",
    "42",
    "",
    "naïve café",
    "print('x')",
)
MOST_AXES: Final = 4
"""Up to so many dynamic axes their combinations are tried."""
MOST_REFUSED: Final = 40
"""After so many refusals no further sizes are tried."""
ACCEPTED_SIZES: Final = 3
"""Different sizes of the dynamic axes that are looked for."""


@dataclass(frozen=True, slots=True)
class RandomRecipe:
    """Random requests that the source accepts.

    `sizes` are assignments of the dynamic axes (the batch axis left out), the first being the one to probe with;
    `ranges` the integers below which each integer input is drawn; `batch` a batch size that runs.
    """

    inputs: tuple[Tensor, ...]
    seed: int
    batch: int
    sizes: tuple[dict[str, int], ...]
    ranges: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def make(self, rows: int, sizes: Mapping[str, int], number: int = 0) -> dict[str, Array]:
        """The arrays of request `number`; `rows` is the size of the batch axis where there is one."""
        import numpy as np

        generator = np.random.default_rng((self.seed, number))
        known = {**sizes, **dict.fromkeys(batch_axes(self.inputs), rows)}
        return {
            tensor.name: draw(generator, tensor.dtype, shape_of(tensor, known), self.ranges.get(tensor.name, 2))
            for tensor in self.inputs
        }


def batch_axes(inputs: Sequence[Tensor]) -> tuple[str, ...]:
    """Names of the first axes where every input has a first axis of any size: the batch axis, not yet proven."""
    if not inputs or any(not tensor.shape or isinstance(tensor.shape[0], int) for tensor in inputs):
        return ()
    return tuple(dict.fromkeys(str(tensor.shape[0]) for tensor in inputs))


def free_axes(inputs: Sequence[Tensor]) -> tuple[str, ...]:
    """Names of the other dynamic axes."""
    batch = batch_axes(inputs)
    names = (dim for tensor in inputs for dim in tensor.shape if isinstance(dim, str))
    return tuple(dict.fromkeys(name for name in names if name not in batch))


def shape_of(tensor: Tensor, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The shape with its names replaced."""
    return tuple(dim if isinstance(dim, int) else sizes[dim] for dim in tensor.shape)


def draw(generator: Any, dtype: str, shape: tuple[int, ...], limit: int) -> Array:  # noqa: ANN401 - numpy Generator
    """Random values of a dtype: normal floats, integers below `limit`, any byte, short texts."""
    import numpy as np

    if dtype == "string":
        count = int(np.prod(shape))
        texts = [TEXTS[place] for place in generator.integers(0, len(TEXTS), count)]
        return np.asarray(texts, dtype=object).reshape(shape)
    if dtype == "bool":
        drawn: Array = generator.integers(0, 2, shape).astype(np.bool_)
        return drawn
    if BY_NUMPY[dtype].is_float:
        return _floats(generator.standard_normal(shape), dtype)
    limit = 256 if dtype == "uint8" else min(limit, _top(dtype))
    values = np.asarray(generator.integers(0, limit, shape))
    if values.ndim:
        # The largest value always occurs, so a range is found exactly, and no mask hides a whole row.
        values[..., :1] = limit - 1
    cast: Array = values.astype(dtype)
    return cast


def _top(dtype: str) -> int:
    import numpy as np

    return int(np.iinfo(dtype).max) + 1


def _floats(values: Any, dtype: str) -> Array:  # noqa: ANN401
    import numpy as np

    if dtype == "bfloat16":
        import ml_dtypes

        bits: Array = np.asarray(values).astype(ml_dtypes.bfloat16)
        return bits
    cast: Array = np.asarray(values).astype(dtype)
    return cast


def find_recipe(run: Run, inputs: tuple[Tensor, ...], seed: int) -> RandomRecipe:
    """Try batch sizes, lengths and integer ranges until the source runs, then look for more.

    Raises:
        SpecError: nothing runs; the source's own message.
    """
    base, first_error = _find_base(run, inputs, seed)
    if base is None:
        raise SpecError(
            f"no random inputs were found that the model accepts: {first_error}",
            remedy="give real inputs: samples: {path: samples.npz} in the spec, or --samples FILE; or correct inputs:",
        )
    widened, notes = _widen(run, base)
    sizes, refused = _more_sizes(run, widened)
    if refused:
        notes = (*notes, f"sizes that the model refuses: {'; '.join(refused)}")
    return RandomRecipe(inputs, seed, base.batch, sizes, widened.ranges, notes)


def _find_base(run: Run, inputs: tuple[Tensor, ...], seed: int) -> tuple[RandomRecipe | None, str]:
    integers = [tensor.name for tensor in inputs if _is_counted(tensor)]
    first_error = ""
    for batch in BATCHES if batch_axes(inputs) else BATCHES[:1]:
        for sizes in size_candidates(inputs):
            for limit in (2, 1, 100) if integers else (2,):
                recipe = RandomRecipe(inputs, seed, batch, (sizes,), dict.fromkeys(integers, limit))
                problem = _refusal(run, recipe)
                if problem is None:
                    return recipe, ""
                first_error = first_error or problem
    return None, first_error


def _is_counted(tensor: Tensor) -> bool:
    return not BY_NUMPY[tensor.dtype].is_float and tensor.dtype not in ("bool", "uint8", "string")


def _refusal(run: Run, recipe: RandomRecipe) -> str | None:
    """The source's message when the recipe does not run."""
    try:
        run(recipe.make(recipe.batch, recipe.sizes[0]))
    except BuildRepoError:
        raise
    except Exception as error:
        return short(error)
    return None


def size_candidates(inputs: Sequence[Tensor]) -> list[dict[str, int]]:
    """Assignments of the dynamic axes in the order in which they are tried: all different, all equal, images."""
    names = free_axes(inputs)
    if not names:
        return [{}]
    lengths = defaults.SAMPLE_LENGTHS
    different = [
        {name: lengths[(place + turn) % len(lengths)] for place, name in enumerate(names)} for turn in range(3)
    ]
    equal = [dict.fromkeys(names, length) for length in (*lengths, *OTHER_LENGTHS)]
    images = _image_candidates(inputs, names)
    found = [*images, *different, *equal, *_offset_candidates(names)]
    return [sizes for place, sizes in enumerate(found) if sizes not in found[:place]]


def _image_candidates(inputs: Sequence[Tensor], names: Sequence[str]) -> list[dict[str, int]]:
    """Sizes for the dynamic height and width of an image input, the other axes at the first length."""
    for tensor in inputs:
        pair = _image_axes(tensor)
        dynamic = [dim for dim in pair if isinstance(dim, str) and dim in names]
        if not dynamic:
            continue
        rest = dict.fromkeys(names, defaults.SAMPLE_LENGTHS[0])
        return [
            {**rest, **{dim: size for dim, size in zip(pair, sizes, strict=True) if isinstance(dim, str)}}
            for sizes in IMAGE_SIZES
        ]
    return []


def _image_axes(tensor: Tensor) -> tuple[int | str, ...]:
    if len(tensor.shape) != IMAGE_RANK:
        return ()
    if tensor.shape[1] in CHANNELS:
        return tensor.shape[2:]
    return tensor.shape[1:3] if tensor.shape[3] in CHANNELS else ()


def _offset_candidates(names: Sequence[str]) -> list[dict[str, int]]:
    """Small combinations where axes have to fit each other in some other way."""
    if not 1 < len(names) < 4:  # noqa: PLR2004 - 5³ runs at most
        return []
    small = (1, 2, 4, 8, 16)
    return [dict(zip(names, sizes, strict=True)) for sizes in product(small, repeat=len(names))]


def _neighbours(base: Mapping[str, int]) -> list[dict[str, int]]:
    """Some axes changed and the others kept: finds axes that have to stay equal."""
    names = list(base)
    lengths = [length for length in defaults.SAMPLE_LENGTHS if length not in base.values()] or [
        *defaults.SAMPLE_LENGTHS
    ]
    if len(names) > MOST_AXES:
        names = []
    changed = (chosen for count in range(1, len(names)) for chosen in combinations(names, count))
    return [{**base, **dict.fromkeys(chosen, length)} for chosen in changed for length in lengths]


def _widen(run: Run, base: RandomRecipe) -> tuple[RandomRecipe, tuple[str, ...]]:
    """The widest accepted range of each integer input whose answers stay finite."""
    calm = bool(base.ranges) and _finite(run, base)
    ranges = dict(base.ranges)
    for name in base.ranges:
        low, high = base.ranges[name], WIDEST + 1
        while high - low > 1:
            limit = min(WIDEST, (low + high) // 2) if high <= WIDEST else WIDEST
            tried = RandomRecipe(base.inputs, base.seed, base.batch, base.sizes, {**ranges, name: limit})
            if _refusal(run, tried) is None and (not calm or _finite(run, tried)):
                low = limit
            else:
                high = limit
        ranges[name] = low
    found = RandomRecipe(base.inputs, base.seed, base.batch, base.sizes, ranges)
    notes = tuple(
        f"{name}: integers 0..{limit - 1}, found by trying; give samples for real ones"
        for name, limit in ranges.items()
    )
    return found, notes


def _finite(run: Run, recipe: RandomRecipe) -> bool:
    import numpy as np

    answers = run(recipe.make(recipe.batch, recipe.sizes[0]))
    return all(bool(np.isfinite(value.astype(np.float32)).all()) for value in answers if _is_floating(value))


def _is_floating(value: Array) -> bool:
    return value.dtype.kind == "f" or value.dtype.name == "bfloat16"


def _more_sizes(run: Run, base: RandomRecipe) -> tuple[tuple[dict[str, int], ...], tuple[str, ...]]:
    """Further accepted assignments, so that every dynamic axis varies; and the first refused ones in words."""
    accepted = [base.sizes[0]]
    refused: list[str] = []
    for sizes in (*size_candidates(base.inputs), *_neighbours(base.sizes[0])):
        if len(accepted) >= ACCEPTED_SIZES and all(len({one[name] for one in accepted}) > 1 for name in sizes):
            break
        if sizes in accepted or len(refused) > MOST_REFUSED:
            continue
        tried = RandomRecipe(base.inputs, base.seed, base.batch, (sizes,), base.ranges)
        if _refusal(run, tried) is None:
            accepted.append(sizes)
        else:
            refused.append(", ".join(f"{name}={size}" for name, size in sizes.items()))
    return tuple(accepted), tuple(refused[:3])
