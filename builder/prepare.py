"""`model.onnx` of an export → the same optimised, in the asked precision: made once, taken by every backend."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from builder.cache import Cache
from builder.compare import Gates, accuracy_findings, merge_errors, worst_excess
from builder.digests import file_digest
from builder.errors import BuildError, BuildRepoError
from builder.findings import has_errors
from builder.log import get_logger
from builder.measure import accuracy_of, errors_alone
from builder.measurement import (
    CALIBRATION_FILE,
    EXPORT_FILE,
    ONNX_FILE,
    PREPARE_FILE,
    REFERENCE_FILE,
    ExportReport,
    KeptNode,
    PrepareReport,
    QuantizationReport,
    TransformReport,
)
from builder.onnx_tools.exported import Limits
from builder.onnx_tools.files import link_model
from builder.onnx_tools.precision import CalibrationSet, PrecisionJob, precision_module
from builder.onnx_tools.precision.blocks import BLOCK
from builder.onnx_tools.precision.half import LARGEST, emulate, overflowing_nodes
from builder.onnx_tools.precision.int8 import candidates, is_dynamic
from builder.onnx_tools.precision.lowering import holds_graph, lacking_nodes
from builder.onnx_tools.precision.naming import name_nodes
from builder.onnx_tools.precision.search import Found, Node, Ranking, Verdict, find_kept, nodes_of, rank_nodes
from builder.onnx_tools.reading import ModelProto, read_onnx, short
from builder.onnx_tools.running import open_plain, run_plain
from builder.onnx_tools.writing import write_onnx
from builder.records import read_record, write_record
from builder.samples import Request, load_requests
from builder.tensors import Signature
from builder.work import Prepare, Search

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]

SHOWN_NODES: Final = 8
RANKED_REQUESTS: Final = 4
"""Requests whose inner values are looked at to rank the nodes."""
MEASURED_AS_IT_IS: Final = frozenset({("fp16", "onnxruntime")})
"""Graphs that onnxruntime's CPU provider runs in its own way: it rounds at other places than hardware with the type,
and what it answers is what will be measured."""
FEW_ROWS: Final = 10
"""Fewer rows than that hardly show which values a tensor takes."""
RANKING_SHARE: Final = 1 / 3
"""Share of the search's time that ranking may take."""


def has_nothing_to_do(work: Prepare, cache: Cache) -> bool:
    """True when the exported graph is already what is asked for."""
    if work.precision != "fp32":
        return False
    report = read_record(ExportReport, cache.folder("export", work.export) / EXPORT_FILE)
    return not work.optimize or not _applicable(report, work.dialect)


def _applicable(report: ExportReport, dialect: str) -> tuple[str, ...]:
    from builder.onnx_tools.optimise import TRANSFORMS, speaks

    return tuple(name for name in report.applicable if name in TRANSFORMS and speaks(TRANSFORMS[name], dialect))


def pass_through(work: Prepare, cache: Cache, out: Path) -> None:
    """The exported model itself."""
    link_model(cache.folder("export", work.export) / ONNX_FILE, out / ONNX_FILE)
    write_record(out / PREPARE_FILE, PrepareReport(work.precision, work.dialect))


def run_prepare(work: Prepare, cache: Cache, out: Path) -> None:
    """Write `model.onnx` and `prepare.json` into `out`.

    Raises:
        BuildError: the graph cannot be had in the precision.
    """
    export = cache.folder("export", work.export)
    report = read_record(ExportReport, export / EXPORT_FILE)
    requests = load_requests(export / REFERENCE_FILE, report.signature)
    with TemporaryDirectory(dir=out.parent, prefix=".prepare-") as made:
        scratch = Path(made)
        path, transforms = _optimised(work, export / ONNX_FILE, report, requests, scratch)
        if work.precision == "fp32":
            link_model(path, out / ONNX_FILE)
            prepared = PrepareReport(work.precision, work.dialect, transforms)
        else:
            job = _job(work, cache, export, report.signature)
            named = _named(path, scratch)
            kept, notes = _kept(work, job, named, requests, scratch, apart=report.batch.proven)
            quantization = _convert(named, out / ONNX_FILE, job, frozenset(node.name for node in kept))
            in_blocks = quantization.in_blocks if quantization else ()
            kept = tuple(node for node in kept if node.name not in in_blocks)
            model = read_onnx(named)
            notes = (
                *_inner_notes(model),
                *_lacking_notes(model, job),
                *_row_notes(quantization),
                *_block_notes(in_blocks),
                *notes,
            )
            prepared = PrepareReport(work.precision, work.dialect, transforms, quantization, kept, notes)
    write_record(out / PREPARE_FILE, prepared)


def _optimised(
    work: Prepare, source: Path, report: ExportReport, requests: Sequence[Request], scratch: Path
) -> tuple[Path, tuple[TransformReport, ...]]:
    if not work.optimize or not _applicable(report, work.dialect):
        return source, ()
    from builder.onnx_tools.optimise.judging import optimise

    path = _place(scratch, "optimised")
    limits = Limits(work.opset, work.ir_version)
    return path, optimise(source, path, dialect=work.dialect, requests=requests, gates=Gates(), limits=limits)


def _gates(work: Prepare) -> Gates:
    return Gates(**work.search.gates) if work.search else Gates()


def _inner_notes(model: ModelProto) -> tuple[str, ...]:
    """Graphs inside of nodes are not lowered."""
    shown = _counted(node for node in model.graph.node if holds_graph(node))
    return (f"what is inside {shown} stays in fp32",) if shown else ()


def _lacking_notes(model: ModelProto, job: PrecisionJob) -> tuple[str, ...]:
    """What keeps most of a model out of the precision is seldom the search."""
    shown = _counted(lacking_nodes(model, job.dialect, job.precision))
    return (f"what has no {job.precision} form stays in fp32: {shown}",) if shown else ()


def _counted(nodes: Iterable[Any]) -> str:
    """`2 ConvTranspose, 1 LSTM`."""
    found = Counter(node.op_type for node in nodes)
    return ", ".join(f"{count} {operator}" for operator, count in sorted(found.items()))


def _row_notes(quantization: QuantizationReport | None) -> tuple[str, ...]:
    """Ranges of a handful of rows are hardly those of what the model will be asked."""
    if quantization is None or quantization.calibrator is None or quantization.rows >= FEW_ROWS:
        return ()
    rows = "1 row" if quantization.rows == 1 else f"{quantization.rows} rows"
    return (f"only {rows} of the samples calibrated int8, and other inputs may go beyond; some hundred are usual",)


def _block_notes(names: Sequence[str]) -> tuple[str, ...]:
    """What the search gave finer scales instead of fp32."""
    shown = f"{', '.join(names[:SHOWN_NODES])}{' …' if len(names) > SHOWN_NODES else ''}"
    return (
        (f"{len(names)} products have a scale for every {BLOCK} values, to meet the gates: {shown}",) if names else ()
    )


def _place(scratch: Path, word: str) -> Path:
    """A model of its own folder, without what an earlier one of the same word left there."""
    folder = scratch / word
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder / ONNX_FILE


def _named(path: Path, scratch: Path) -> Path:
    """The model with a name for every node."""
    model = read_onnx(path)
    if not name_nodes(model):
        return path
    named = _place(scratch, "named")
    write_onnx(model, named, origin=path)
    return named


def _job(work: Prepare, cache: Cache, export: Path, signature: Signature) -> PrecisionJob:
    shared = cache.root / "shared"
    shared.mkdir(parents=True, exist_ok=True)
    return PrecisionJob(
        precision=work.precision,
        dialect=work.dialect,
        signature=signature,
        quantization=work.quantization,
        calibration=_calibration(export / CALIBRATION_FILE, signature) if work.precision == "int8" else None,
        shared=shared,
        opset=work.opset,
        ir_version=work.ir_version,
    )


def _calibration(path: Path, signature: Signature) -> CalibrationSet | None:
    """The rows that the export kept apart."""
    if not path.is_file():
        return None
    requests = load_requests(path, replace(signature, outputs=()))
    rows = sum(max(1, request.rows) for request in requests)
    return CalibrationSet(file_digest(path), rows, tuple(request.inputs for request in requests))


def _kept(  # noqa: PLR0913 - what a search is about
    work: Prepare, job: PrecisionJob, model: Path, requests: Sequence[Request], scratch: Path, *, apart: bool
) -> tuple[tuple[KeptNode, ...], tuple[str, ...]]:
    """The nodes that stay in fp32, and what is to be said of the search for them; the source keeps rows `apart`."""
    constants = overflowing_nodes(model, job) if job.precision in LARGEST else ()
    search = work.search
    if search is None or not search.budget_s:
        return tuple(KeptNode(name, operator, math.inf) for name, operator in constants), ()
    always = frozenset(name for name, _ in constants)
    mixes = apart and job.precision == "int8" and is_dynamic(model, job)
    trial = _Trial(job, model, tuple(requests), _gates(work), scratch, always, _searched(model, job), mixes)
    ask, rank = partial(_verdict, trial), partial(_ranking, trial, search.budget_s)
    found = find_kept(trial.nodes, rank, ask, search.budget_s, always)
    return found.kept, tuple(_search_notes(work.precision, search, found))


@dataclass(frozen=True, slots=True)
class _Trial:
    """What the candidates of a search are made from and judged by; the nodes in `always` are kept in each.

    `nodes` are those that the search is about. What `mixes` rows that the source keeps apart is judged
    by rows alone too.
    """

    job: PrecisionJob
    model: Path
    requests: tuple[Request, ...]
    gates: Gates
    scratch: Path
    always: frozenset[str]
    nodes: tuple[Node, ...]
    mixes: bool = False


def _searched(model: Path, job: PrecisionJob) -> tuple[Node, ...]:
    """For int8 only what would be quantised; in 16 bits every operator may compute."""
    if job.precision in LARGEST:
        return nodes_of(model)
    names = candidates(model, job)
    return tuple(node for node in nodes_of(model) if node.name in names)


def _candidate(trial: _Trial, keep: frozenset[str]) -> Path:
    """The graph with these nodes kept, in the form that onnxruntime runs as a device with the precision would."""
    path = _place(trial.scratch, "candidate")
    if trial.job.precision in LARGEST:
        emulate(trial.model, path, trial.job, keep)
    else:
        _convert(trial.model, path, trial.job, keep)
    return path


def _verdict(trial: _Trial, keep: frozenset[str]) -> Verdict:
    """What the gates say; a graph that does not run meets none, and one in which nothing is left to lower meets all."""
    try:
        path = _candidate(trial, keep)
    except BuildError:
        if keep <= trial.always:
            raise
        return Verdict(passes=True, excess=0.0)
    found = _judged(trial, path)
    if found.passes and (trial.job.precision, trial.job.dialect) in MEASURED_AS_IT_IS:
        path = _place(trial.scratch, "candidate")
        _convert(trial.model, path, trial.job, keep)
        real = _judged(trial, path)
        return Verdict(real.passes, max(found.excess, real.excess))
    return found


def _judged(trial: _Trial, path: Path) -> Verdict:
    names = [tensor.name for tensor in trial.job.signature.outputs]
    try:
        session = open_plain(path)
        answers = partial(_answer, session, names)
        errors, metric = accuracy_of(answers, trial.job.signature, trial.requests)
        if trial.mixes:
            errors = merge_errors([errors, *errors_alone(answers, trial.job.signature, trial.requests)])
    except Exception:
        get_logger().debug("a candidate of the search does not run", exc_info=True)
        return Verdict(passes=False, excess=math.inf)
    broken = accuracy_findings(errors, trial.gates, model=None, target=None, metric=metric)
    return Verdict(not has_errors(broken), worst_excess(errors, trial.gates, metric))


def _answer(session: Any, names: Sequence[str], inputs: Arrays) -> Arrays:  # noqa: ANN401 - an onnxruntime session
    return dict(zip(names, run_plain(session, names, inputs), strict=True))


def _ranking(trial: _Trial, budget_s: float) -> Ranking:
    """The nodes by what they do to the answers; in the graph's order where their values cannot be had."""
    step = -(-len(trial.requests) // RANKED_REQUESTS)
    requests = [request.inputs for request in trial.requests[::step]]
    largest = LARGEST.get(trial.job.precision, math.inf)
    try:
        low = _candidate(trial, trial.always)
        ranking = rank_nodes(trial.model, low, requests, largest, RANKING_SHARE * budget_s)
    except BuildError:
        return Ranking(tuple(node.name for node in trial.nodes), 1)
    about = {node.name for node in trial.nodes}
    return Ranking(tuple(name for name in ranking.names if name in about), ranking.first)


def _convert(model: Path, out: Path, job: PrecisionJob, keep: frozenset[str]) -> QuantizationReport | None:
    """Write the graph in the precision.

    Raises:
        BuildError: it cannot be had; also for what a library throws.
    """
    try:
        return precision_module(job.precision).convert(model, out, job, keep)
    except BuildRepoError:
        raise
    except Exception as error:
        raise BuildError(
            f"the model cannot be made {job.precision}: {type(error).__name__}: {short(error)}",
            remedy=f"remove the {job.precision} targets of this model, or try optimize: none",
        ) from error


def _search_notes(precision: str, search: Search, found: Found) -> Iterator[str]:
    budget = f"the {search.budget_s:g} s of accuracy: {{search_budget_s: …}}"
    if not found.verdict.passes:
        excess = found.verdict.excess
        how = f"its worst error is {excess:.3g} times the gate" if math.isfinite(excess) else "answers are wrong"
        tried = "no set of nodes kept in fp32 helps" if found.finished else f"none that does was found within {budget}"
        yield f"{precision} misses the gates: with the best set of nodes in fp32 {how}; {tried}"
    elif found.kept and not found.finished:
        yield f"fewer nodes in fp32 might do for {precision}: to know it would have taken longer than {budget}"
