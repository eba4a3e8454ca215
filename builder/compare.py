"""The one comparison of outputs with the source's, used in process and live, and the verdict on it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from builder import defaults
from builder.deviations import CLASSES, count_deviations, summed
from builder.findings import Finding
from builder.measurement import OutputError, TaskMetric
from builder.spec import AccuracySpec
from builder.tensors import BY_NUMPY, Signature, Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]
    Arrays = Mapping[str, NDArray[np.generic]]

ZERO_TOLERANCE: Final = 1e-6
"""Absolute error allowed where the source's output is zero everywhere, so that nothing can be relative to it."""
NEGLIGIBLE: Final = 1e-3
"""Share of an output's largest magnitude below which a whole request is noise: its direction (cosine) says nothing."""
BLOCK: Final = 1 << 18
"""Elements turned into float64 at a time: a comparison of large outputs must not need several times their memory."""
NEAR: Final = 20.0
"""How many times a gate (the default one, where the user's is tighter) an error may be for loosening to be sensible."""
BEYOND_METRICS: Final = ("shape", "nonfinite")
"""Faults that no metric excuses."""
LIVE_ROOM: Final = 1.5
"""How many times the error in process a live answer may have: rows meet other rows in a batch."""
LIVE_MISMATCHES: Final = 0.05
SATURATED: Final = 6e4
"""A finite value as good as an infinity: nearly the largest float16."""


@dataclass(frozen=True, slots=True)
class Gates:
    """What the served outputs must reach; `metric` and `max_drop` need labelled samples.

    `metric_decides`: where the metric was measured, the bounds on tensors only inform. `max_mismatch_share` is of
    integer and string outputs, which else must be equal.
    """

    max_relative_error: float = defaults.MAX_RELATIVE_ERROR
    min_cosine: float = defaults.MIN_COSINE
    metric: str | None = None
    max_drop: float | None = None
    metric_decides: bool = False
    max_mismatch_share: float = 0.0


def gates_of(accuracy: AccuracySpec | None, precision: str, *, labelled: bool) -> Gates:
    """The gates of a target; `labelled` says that the samples have labels.

    int8 changes every number, and what a user of a classifier asks for is its classes: with labels and without other
    words, the metric decides on it.
    """
    spec = accuracy or AccuracySpec()
    bounds = spec.max_relative_error is not None or spec.min_cosine is not None
    int8 = precision == "int8"
    drop = spec.max_drop
    if drop is None and int8 and labelled and not bounds:
        drop = defaults.INT8_MAX_DROP
    error = defaults.INT8_MAX_RELATIVE_ERROR if int8 else defaults.MAX_RELATIVE_ERROR
    if int8 and spec.min_cosine is not None:
        error = defaults.INT8_ERROR_BESIDE_COSINE
    cosine = defaults.INT8_MIN_COSINE if int8 else defaults.MIN_COSINE
    return Gates(
        max_relative_error=error if spec.max_relative_error is None else spec.max_relative_error,
        min_cosine=cosine if spec.min_cosine is None else spec.min_cosine,
        metric=spec.metric,
        max_drop=drop,
        metric_decides=precision != "fp32" and drop is not None and not bounds,
    )


def live_gates(gates: Gates, errors: Sequence[OutputError], metric: TaskMetric | None) -> Gates:
    """The gates of single answers: where the metric decided, an answer must be as near as it was in process.

    A metric means nothing for one answer, so its place is taken by the errors that were measured with it.
    """
    if not _decides(gates, metric):
        return gates
    error = max((item.max_relative for item in errors), default=0.0)
    distance = max((1 - item.cosine for item in errors), default=0.0)
    share = max((item.mismatches / item.elements for item in errors if item.elements), default=0.0)
    return replace(
        gates,
        max_relative_error=max(gates.max_relative_error, round(LIVE_ROOM * error, 4)),
        min_cosine=min(gates.min_cosine, round(1 - LIVE_ROOM * distance, 6)),
        max_mismatch_share=round(LIVE_ROOM * share + LIVE_MISMATCHES, 4) if share else 0.0,
        metric_decides=False,
    )


def _decides(gates: Gates, metric: TaskMetric | None) -> bool:
    return gates.metric_decides and gates.max_drop is not None and metric is not None


@dataclass(slots=True)
class _Tally:
    """Running totals of one output."""

    max_absolute: float = 0.0
    cosine: float = 1.0
    mismatches: int = 0
    elements: int = 0
    new_nonfinite: int = 0
    rows: int = 0
    agreeing: int = 0
    deviations: NDArray[np.int64] | None = None


def output_scales(signature: Signature, expected: Sequence[Arrays]) -> dict[str, float]:
    """Per floating output the largest finite magnitude over all requests: what errors are relative to."""
    floats = [tensor.name for tensor in signature.outputs if BY_NUMPY[tensor.dtype].is_float]
    return {name: max((_peak(arrays[name]) for arrays in expected), default=0.0) for name in floats}


def compare_outputs(
    signature: Signature,
    expected: Sequence[Arrays],
    got: Sequence[Arrays],
    *,
    scales: Mapping[str, float] | None = None,
    counted: bool = False,
) -> tuple[OutputError, ...]:
    """Compare answers with the source's, request by request; the worst counts.

    `scales` (of `output_scales`) judges a part of the requests by the magnitudes of all of them. `counted` asks for
    `deviations` too, which costs more than the rest.
    """
    if len(expected) != len(got):
        msg = f"{len(got)} answers for {len(expected)} requests"
        raise ValueError(msg)
    known = scales if scales is not None else output_scales(signature, expected)
    return tuple(
        _compare_output(tensor, expected, got, known.get(tensor.name, 0.0), counted=counted)
        for tensor in signature.outputs
    )


def _compare_output(
    tensor: Tensor, expected: Sequence[Arrays], got: Sequence[Arrays], scale: float, *, counted: bool
) -> OutputError:
    import numpy as np

    classes = counted and scale > 0.0 and BY_NUMPY[tensor.dtype].is_float
    tally = _Tally(deviations=np.zeros(CLASSES, np.int64) if classes else None)
    for index, (sources, answers) in enumerate(zip(expected, got, strict=True)):
        source = np.asarray(sources[tensor.name])
        served = np.asarray(answers[tensor.name]) if tensor.name in answers else None
        problem = _form_problem(tensor, source, served)
        if problem or served is None:
            return OutputError(tensor.name, elements=tally.elements, problem=f"request {index}: {problem}")
        tally.elements += source.size
        if BY_NUMPY[tensor.dtype].is_float:
            _tally_floats(tally, source, served, scale)
        elif tensor.dtype == "string":
            pairs = zip(source.ravel().tolist(), served.ravel().tolist(), strict=True)
            tally.mismatches += sum(_text(left) != _text(right) for left, right in pairs)
        else:
            tally.mismatches += int(np.count_nonzero(source != served))
    return OutputError(
        name=tensor.name,
        max_absolute=tally.max_absolute,
        max_relative=_relative(tally.max_absolute, scale),
        cosine=tally.cosine,
        mismatches=tally.mismatches,
        elements=tally.elements,
        new_nonfinite=tally.new_nonfinite,
        top1_agreement=tally.agreeing / tally.rows if tally.rows else None,
        deviations=() if tally.deviations is None else tuple(tally.deviations.tolist()),
    )


def _form_problem(tensor: Tensor, source: Array, served: Array | None) -> str:
    if served is None:
        return "the output is missing in the answer"
    kind = "string" if served.dtype.kind in "OSU" else served.dtype.name
    if kind != tensor.dtype:
        return f"dtype {kind}, the source gives {tensor.dtype}"
    if served.shape != source.shape:
        return f"shape {list(served.shape)}, the source gives {list(source.shape)}"
    return ""


def _text(item: object) -> str:
    return item.decode("utf-8", "surrogateescape") if isinstance(item, bytes) else str(item)


def _relative(absolute: float, scale: float) -> float:
    if scale > 0.0:
        return absolute / scale
    return 0.0 if absolute <= ZERO_TOLERANCE else math.inf


def _blocks(*arrays: Array) -> Iterator[tuple[NDArray[np.float64], ...]]:
    import numpy as np

    flat = [array.reshape(-1) for array in arrays]
    for start in range(0, flat[0].size, BLOCK):
        yield tuple(array[start : start + BLOCK].astype(np.float64) for array in flat)


def _peak(array: Array) -> float:
    """Largest finite magnitude, 0.0 where there is none."""
    import numpy as np

    peak = 0.0
    for (block,) in _blocks(np.asarray(array)):
        magnitudes = np.abs(block)
        peak = max(peak, float(np.max(magnitudes, where=np.isfinite(magnitudes), initial=0.0)))
    return peak


def _tally_floats(tally: _Tally, source: Array, served: Array, scale: float) -> None:
    import numpy as np

    units = (_peak(source) or 1.0, _peak(served) or 1.0) if source.dtype == np.float64 else (1.0, 1.0)
    peak = dot = source_square = served_square = 0.0
    for left, right in _blocks(source, served):
        finite_left, finite_right = np.isfinite(left), np.isfinite(right)
        both = finite_left & finite_right
        if not both.all():
            tally.new_nonfinite += int(np.count_nonzero(~finite_right & (finite_left | ~_same(left, right))))
            tally.mismatches += int(np.count_nonzero(finite_right & np.isinf(left) & ~_saturated(left, right)))
            left[~both] = right[~both] = 0.0
        with np.errstate(over="ignore"):
            absolute = np.abs(right - left)
        tally.max_absolute = max(tally.max_absolute, float(np.max(absolute, initial=0.0)))
        if tally.deviations is not None:
            tally.deviations += count_deviations(absolute[both], scale)
        peak = max(peak, float(np.max(np.abs(left), initial=0.0)), float(np.max(np.abs(right), initial=0.0)))
        if units != (1.0, 1.0):  # the squares of the largest float64 overflow
            left /= units[0]  # noqa: PLW2901
            right /= units[1]  # noqa: PLW2901
        dot += float(left @ right)
        source_square += float(left @ left)
        served_square += float(right @ right)
    if peak > (NEGLIGIBLE * scale if scale > 0.0 else ZERO_TOLERANCE):
        norm = math.sqrt(source_square) * math.sqrt(served_square)
        tally.cosine = min(tally.cosine, max(-1.0, min(1.0, dot / norm)) if norm else 0.0)
    if source.ndim > 1 and source.shape[-1] > 1 and source.size:
        _tally_top1(tally, source, served)


def _same(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.bool_]:
    import numpy as np

    same: NDArray[np.bool_] = (left == right) | (np.isnan(left) & np.isnan(right))
    return same


def _saturated(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.bool_]:
    import numpy as np

    saturated: NDArray[np.bool_] = (np.abs(right) >= SATURATED) & (np.sign(left) == np.sign(right))
    return saturated


def _tally_top1(tally: _Tally, source: Array, served: Array) -> None:
    """A row agrees when the served winner is (one of) the source's largest elements."""
    import numpy as np

    rows, answers = source.reshape(-1, source.shape[-1]), served.reshape(-1, source.shape[-1])
    winners = answers.argmax(axis=-1)
    chosen = np.take_along_axis(rows, winners[:, None], axis=-1)[:, 0]
    best = rows.max(axis=-1)
    tally.rows += rows.shape[0]
    tally.agreeing += int(np.count_nonzero((chosen == best) | ((chosen != chosen) & (best != best))))  # noqa: PLR0124


def merge_errors(parts: Sequence[tuple[OutputError, ...]]) -> tuple[OutputError, ...]:
    """The worst of several comparisons of the same outputs."""
    return tuple(_worst(errors) for errors in zip(*parts, strict=True))


def _worst(errors: tuple[OutputError, ...]) -> OutputError:
    shares = [error.top1_agreement for error in errors if error.top1_agreement is not None]
    return OutputError(
        name=errors[0].name,
        max_absolute=max(error.max_absolute for error in errors),
        max_relative=max(error.max_relative for error in errors),
        cosine=min(error.cosine for error in errors),
        mismatches=sum(error.mismatches for error in errors),
        elements=sum(error.elements for error in errors),
        new_nonfinite=sum(error.new_nonfinite for error in errors),
        top1_agreement=min(shares) if shares else None,
        problem=next((error.problem for error in errors if error.problem), ""),
        deviations=summed(error.deviations for error in errors),
    )


def accuracy_findings(  # noqa: PLR0913 - the gates' whole question
    errors: Sequence[OutputError],
    gates: Gates,
    *,
    model: str | None,
    target: str | None,
    check_prefix: str = "",
    metric: TaskMetric | None = None,
) -> tuple[Finding, ...]:
    """What the gates say to the numbers: one error per output and broken gate."""
    decided = _decides(gates, metric)
    broken = [
        (check, text, cure)
        for error in errors
        for check, text, cure in _broken(error, gates)
        if not decided or check in BEYOND_METRICS
    ]
    broken += _broken_metric(metric, gates)
    return tuple(
        Finding("error", f"{check_prefix}accuracy.{check}", text, remedy=cure, model=model, target=target)
        for check, text, cure in broken
    )


def worst_excess(errors: Sequence[OutputError], gates: Gates, metric: TaskMetric | None = None) -> float:
    """The worst error over its gate: at most 1 where all are met; infinite for NaN, wrong forms, unequal integers."""
    decided = _decides(gates, metric)
    shares = [share for error in errors for share in _excesses(error, gates, decided=decided)]
    if metric is not None and gates.max_drop is not None:
        shares.append(_over(max(0.0, metric.source - metric.target), gates.max_drop))
    return max(shares, default=0.0)


def _excesses(error: OutputError, gates: Gates, *, decided: bool) -> Iterator[float]:
    if error.problem or error.new_nonfinite:
        yield math.inf
        return
    if decided:
        return
    if error.mismatches > gates.max_mismatch_share * error.elements:
        yield math.inf
        return
    yield _over(error.max_relative, gates.max_relative_error)
    yield _over(1 - error.cosine, 1 - gates.min_cosine)


def _over(amount: float, allowed: float) -> float:
    if math.isnan(amount):
        return math.inf
    return amount / allowed if allowed > 0 else (math.inf if amount > 0 else 0.0)


def _broken(error: OutputError, gates: Gates) -> Iterator[tuple[str, str, str]]:
    name = f"output '{error.name}'"
    if error.problem:
        yield (
            "shape",
            f"{name}: {error.problem}",
            "the target does not give what the source gives; choose another target",
        )
        return
    if error.new_nonfinite:
        text = f"{name}: {error.new_nonfinite} of {error.elements} elements are NaN or Inf where the source's are not"
        yield "nonfinite", text, "choose a target of higher precision (fp32) for this model"
    if error.mismatches > gates.max_mismatch_share * error.elements:
        text = f"{name}: {error.mismatches} of {error.elements} elements differ from the source's; they must be equal"
        yield "equal", text, "choose another target, or a higher precision (fp32), for this model"
    if not error.max_relative <= gates.max_relative_error:
        text = f"{name}: largest error {_relative_text(error)}, allowed {gates.max_relative_error:.3g}"
        cure = _cure(
            error.max_relative <= NEAR * max(gates.max_relative_error, defaults.MAX_RELATIVE_ERROR),
            f"max_relative_error: {_roomy(error)}",
        )
        yield "error", text, cure
    if not error.cosine >= gates.min_cosine:
        text = f"{name}: cosine similarity {error.cosine:.6f}, required {gates.min_cosine:g}"
        cure = _cure(
            1 - error.cosine <= NEAR * (1 - min(gates.min_cosine, defaults.MIN_COSINE)),
            f"min_cosine: {_below(error.cosine)}",
        )
        yield "cosine", text, cure


def _broken_metric(metric: TaskMetric | None, gates: Gates) -> list[tuple[str, str, str]]:
    if metric is None or gates.max_drop is None or metric.source - metric.target <= gates.max_drop:
        return []
    drop = metric.source - metric.target
    text = (
        f"{metric.name} falls from {metric.source:.4f} to {metric.target:.4f} on {metric.rows} rows: "
        f"{drop:.4f}, allowed {gates.max_drop:g}"
    )
    cure = f"choose a higher precision, or allow it in the spec: accuracy: {{max_drop: {_above(drop)}}}"
    if metric.rows * gates.max_drop < 1:
        text += f"; one row of {metric.rows} is {1 / metric.rows:.3g}, so no row may change"
        cure = f"give more labelled samples, {_rows_for(gates.max_drop)} or more, {cure}" if gates.max_drop else cure
    return [("metric", text, cure)]


def _above(drop: float) -> str:
    return f"{math.ceil(drop * 1000) / 1000:g}"


def _rows_for(max_drop: float) -> int:
    """So many that one of them is not more than what may be lost."""
    return math.ceil(1 / max_drop)


def _relative_text(error: OutputError) -> str:
    if math.isinf(error.max_relative):
        return f"{error.max_absolute:.3g} where the source gives only zeros"
    return f"{error.max_relative:.3g} of the output's largest magnitude ({error.max_absolute:.3g} absolute)"


def _cure(near: bool, word: str) -> str:
    """A gate is only worth loosening near it; far from it the answer is wrong."""
    if near:
        return f"choose a higher precision, or allow it in the spec: accuracy: {{{word}}}"
    return "the answer is wrong, not imprecise: remove the target, choose a higher precision, or give real samples"


def _roomy(error: OutputError) -> str:
    return "…" if not math.isfinite(error.max_relative) else f"{error.max_relative * 1.2:.2g}"


def _below(cosine: float) -> str:
    return f"{math.floor(cosine * 1000) / 1000:g}"
