"""Apply the transforms one by one, and keep of each only what is proven to hold and to help."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from builder.compare import Gates, accuracy_findings, compare_outputs
from builder.errors import BuildError
from builder.log import get_logger
from builder.measurement import TransformReport
from builder.onnx_tools.exported import Answered, Limits, reason_of
from builder.onnx_tools.optimise import TRANSFORMS, Transform, speaks
from builder.onnx_tools.optimise.graph import node_count
from builder.onnx_tools.ports import read_ports
from builder.onnx_tools.reading import (
    ModelProto,
    data_pieces,
    external_tensors,
    graphs,
    opset_of,
    read_onnx,
    short,
)
from builder.onnx_tools.writing import EXTERNAL_FROM_BYTES, write_onnx
from builder.tensors import Signature, Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]

MUST_GAIN: Final = 0.95
"""Share of the time before at which a transform that makes nothing smaller is worth keeping."""
MAY_LOSE: Final = 1.10
"""Share of the time before from which on a transform is left out, however small it makes the graph."""
NOTICED_MS: Final = 0.02
"""And less is no loss: two sessions of one small graph differ by that much, and a request costs the server more."""
NOTABLE: Final = 0.01
"""Share of the bytes below which a difference is only one of names and attributes."""
NOTABLE_BYTES: Final = 4096
ROUNDS: Final = 5
"""Timed at a time, before and after in turn."""
MAX_ROUNDS: Final = 40
MAX_SECONDS: Final = 10.0
TIMED_REQUESTS: Final = 2
"""The smallest and the largest request."""
SURE: Final = 1.0
"""Ranks that the interval around a median is widened by: of 5 ratios the smallest and the largest."""


@dataclass(frozen=True, slots=True)
class Timing:
    """One pass over the timed requests before and after; the share of after in before lies between `low` and `high`."""

    before_ms: float
    after_ms: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Bounds:
    """What every transform is judged by."""

    requests: Sequence[Answered]
    gates: Gates
    limits: Limits


@dataclass(slots=True)
class State:
    """The model as it is so far, and its session once one was needed."""

    model: ModelProto
    session: Any = None


def optimise(  # noqa: PLR0913 - the whole question
    path: Path,
    out: Path,
    *,
    dialect: str,
    requests: Sequence[Answered],
    gates: Gates,
    limits: Limits,
    transforms: Mapping[str, Transform] = TRANSFORMS,
) -> tuple[TransformReport, ...]:
    """Write `path`, improved by the transforms that were worth it, to `out`; a report for each that was tried.

    A transform that fails, breaks what it must keep, changes an answer beyond `gates` or makes the model slower is left
    out, and its report says why.

    Raises:
        SpecError: as `read_onnx`.
    """
    model = read_onnx(path)
    wanted = {name: row for name, row in transforms.items() if speaks(row, dialect)}
    bytes_stored = model.ByteSize() + sum(
        piece.length or piece.file.stat().st_size for piece in data_pieces(model, path)
    )
    if bytes_stored >= EXTERNAL_FROM_BYTES:
        write_onnx(model, out, origin=path)
        return tuple(_too_large(name, model, bytes_stored) for name, row in wanted.items() if row.requires(model))
    state, bounds = State(_loaded(model, path)), Bounds(requests, gates, limits)
    reports = [report for name, row in wanted.items() if (report := _tried(name, row, state, bounds)) is not None]
    if any(report.kept for report in reports):
        write_onnx(state.model, out)
    else:
        write_onnx(model, out, origin=path)
    return tuple(reports)


def _loaded(model: ModelProto, path: Path) -> ModelProto:
    """With its weights, and without inferred shapes: exporters' are not always true, and all can be had again."""
    import onnx

    loaded = type(model)()
    loaded.CopyFrom(model)
    if external_tensors(model):
        onnx.load_external_data_for_model(loaded, str(path.parent))
    for graph in graphs(loaded):
        del graph.value_info[:]
    return loaded


def _too_large(name: str, model: ModelProto, stored: int) -> TransformReport:
    nodes = node_count(model)
    reason = f"skipped: {stored / 1e9:.1f} GB of weights do not fit into one ONNX message, which the transform needs"
    return TransformReport(
        name, kept=False, reason=reason, nodes_before=nodes, nodes_after=nodes, bytes_before=stored, bytes_after=stored
    )


def _tried(name: str, row: Transform, state: State, bounds: Bounds) -> TransformReport | None:
    """Judge one transform, None where it does not apply; where it is kept, `state` moves on."""
    before = state.model
    try:
        if not row.requires(before):
            return None
        after = row.apply(before)
        problem = row.ensures(before, after) or _beyond(after, bounds.limits)
    except (Exception, SystemExit) as error:
        get_logger().debug("the transform %s failed", name, exc_info=True)
        return _report(name, before, before, reason=f"it failed: {reason_of(error)}")
    if problem:
        return _report(name, before, after, reason=f"it breaks the model: {problem}")
    if after.graph == before.graph:
        return _report(name, before, after, reason="it found nothing to do")
    if not bounds.requests:
        return _report(name, before, after, reason="there is no request to prove it on")
    return _proven(name, after, state, bounds)


def _proven(name: str, after: ModelProto, state: State, bounds: Bounds) -> TransformReport:
    before = state.model
    try:
        state.session = state.session or _session(before)
        session = _session(after)
        change, problem = _answers(state.session, session, before, bounds)
    except Exception as error:
        return _report(name, before, after, reason=f"it cannot be proven, a run failed: {short(error)}")
    if problem:
        return _report(name, before, after, reason=f"it changes answers: {problem}", change=change)
    smaller = _smaller(before, after)
    timing = _timed(state.session, session, [request.inputs for request in bounds.requests], smaller=bool(smaller))
    kept, reason = verdict(smaller, timing)
    if kept:
        state.model, state.session = after, session
    return _report(name, before, after, kept=kept, reason=reason, change=change, timing=timing)


def _report(  # noqa: PLR0913
    name: str,
    before: ModelProto,
    after: ModelProto,
    *,
    reason: str,
    kept: bool = False,
    change: float | None = None,
    timing: Timing | None = None,
) -> TransformReport:
    return TransformReport(
        name=name,
        kept=kept,
        reason=reason,
        nodes_before=node_count(before),
        nodes_after=node_count(after),
        bytes_before=before.ByteSize(),
        bytes_after=after.ByteSize(),
        median_ms_before=None if timing is None else round(timing.before_ms, 4),
        median_ms_after=None if timing is None else round(timing.after_ms, 4),
        max_relative=change,
    )


def _beyond(model: ModelProto, limits: Limits) -> str | None:
    if opset_of(model) > limits.opset:
        return f"opset {opset_of(model)}, the target release loads {limits.opset} at most"
    if model.ir_version > limits.ir_version:
        return f"IR {model.ir_version}, the target release loads {limits.ir_version} at most"
    return None


def _session(model: ModelProto) -> Any:  # noqa: ANN401 - onnxruntime.InferenceSession
    """With onnxruntime's own optimisations, as the model will be served: what they do anyway is no gain of ours.

    Raises:
        BuildError: onnxruntime refuses the model; its own words.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise BuildError(f"onnxruntime cannot load it: {short(error)}") from error


def _answers(before: Any, after: Any, model: ModelProto, bounds: Bounds) -> tuple[float, str]:  # noqa: ANN401 - sessions
    """The largest change over the largest value of its output, and what the gates say to it (empty: nothing).

    The result is held against the model before it and, where that one passes, against the source's own answers.
    """
    signature, requests, gates = _outputs(model), bounds.requests, bounds.gates
    old, new = (
        [_run(before, request.inputs) for request in requests],
        [_run(after, request.inputs) for request in requests],
    )
    source = [request.outputs for request in requests]
    changes = compare_outputs(signature, old, new)
    change = max((error.max_relative for error in changes), default=0.0)
    findings = accuracy_findings(changes, gates, model=None, target=None)
    if not findings and not accuracy_findings(compare_outputs(signature, source, old), gates, model=None, target=None):
        findings = accuracy_findings(compare_outputs(signature, source, new), gates, model=None, target=None)
    return change, findings[0].message if findings else ""


def _outputs(model: ModelProto) -> Signature:
    """Names and types; the sizes do not matter to a comparison."""
    _, outputs = read_ports(model)
    return Signature((), tuple(Tensor(port.name, port.dtype, ()) for port in outputs))


def _run(session: Any, inputs: Arrays) -> Arrays:  # noqa: ANN401
    import numpy as np

    names = [output.name for output in session.get_outputs()]
    feeds = {name: np.ascontiguousarray(array) if array.ndim else array for name, array in inputs.items()}
    return dict(zip(names, map(np.asarray, session.run(names, feeds)), strict=True))


def _smaller(before: ModelProto, after: ModelProto) -> str:
    """In what the graph became smaller, empty where it did not: folding can make bytes of nodes, and must not."""
    nodes = node_count(before) - node_count(after)
    bytes_fewer = before.ByteSize() - after.ByteSize()
    notable = bytes_fewer >= NOTABLE * before.ByteSize()
    if nodes > 0 and bytes_fewer >= -max(NOTABLE * before.ByteSize(), NOTABLE_BYTES):
        return f"{nodes} nodes fewer"
    return f"{bytes_fewer} bytes fewer" if nodes == 0 and notable else ""


def verdict(smaller: str, timing: Timing) -> tuple[bool, str]:
    """Whether to keep a transform whose answers hold, and why.

    Being smaller is a fact and decides; the clock only objects, when it is sure. So equal builds give equal artefacts.
    """
    share = timing.after_ms / timing.before_ms
    if _loss_known(timing):
        return False, f"slower: {share:.2f} times the time before"
    if timing.high <= MUST_GAIN:
        return True, f"faster: {share:.2f} times the time before" + (f", {smaller}" if smaller else "")
    if smaller:
        return True, smaller
    return False, f"neither smaller nor faster ({share:.2f} times the time before)"


def _timed(before: Any, after: Any, inputs: Sequence[Arrays], *, smaller: bool) -> Timing:  # noqa: ANN401
    """Both in turn, until the verdict is clear or the time is up."""
    chosen = _timed_inputs(inputs)
    for session in (before, after):
        for arrays in chosen:
            _run(session, arrays)
    start = time.perf_counter()
    passes: list[tuple[float, float]] = []
    while True:
        for _ in range(ROUNDS):
            passes.append(_one_round(before, after, chosen, swap=bool(len(passes) % 2)))
        timing = summary(passes)
        known = _loss_known(timing) or (timing.high < MAY_LOSE and (smaller or _gain_known(timing)))
        if known or len(passes) >= MAX_ROUNDS or time.perf_counter() - start > MAX_SECONDS:
            return timing


def _loss_known(timing: Timing) -> bool:
    return timing.low >= MAY_LOSE and timing.after_ms - timing.before_ms >= NOTICED_MS


def _gain_known(timing: Timing) -> bool:
    return timing.high <= MUST_GAIN or timing.low > MUST_GAIN


def _timed_inputs(inputs: Sequence[Arrays]) -> list[Arrays]:
    ordered = sorted(inputs, key=lambda arrays: sum(array.nbytes for array in arrays.values()))
    return ordered if len(ordered) <= TIMED_REQUESTS else [ordered[0], ordered[-1]]


def _one_round(before: Any, after: Any, inputs: Sequence[Arrays], *, swap: bool) -> tuple[float, float]:  # noqa: ANN401
    """Milliseconds before and after; who goes first changes, since the second finds warm caches."""
    spent = [0.0, 0.0]
    for arrays in inputs:
        for place in (1, 0) if swap else (0, 1):
            start = time.perf_counter()
            _run((before, after)[place], arrays)
            spent[place] += 1e3 * (time.perf_counter() - start)
    return spent[0], spent[1]


def summary(passes: Sequence[tuple[float, float]]) -> Timing:
    """Medians, and the interval in which the median of the shares lies (about 94 in 100 or better)."""
    shares = sorted(after / before for before, after in passes)
    count = len(shares)
    margin = math.floor(count / 2 - SURE * math.sqrt(count)) if count > ROUNDS else 0
    return Timing(
        before_ms=statistics.median(before for before, _ in passes),
        after_ms=statistics.median(after for _, after in passes),
        low=shares[margin],
        high=shares[count - 1 - margin],
    )
