"""Source → `model.onnx`, `model.pt` or `step/`, with `export.json`, `reference.npz`: its framework is done with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from builder.errors import BuildError, BuildRepoError, SpecError
from builder.half_ports import open_source
from builder.measurement import (
    CALIBRATION_FILE,
    EXPORT_FILE,
    FORMAT_FILES,
    ONNX_FILE,
    REFERENCE_FILE,
    SERVED_FILE,
    BatchProof,
    ExportReport,
    Ragged,
    Sequencing,
)
from builder.onnx_tools.exported import NO_OPERATOR
from builder.onnx_tools.first_difference import first_difference
from builder.onnx_tools.optimise import applicable
from builder.onnx_tools.reading import opset_of, read_onnx, short
from builder.onnx_tools.running import open_plain
from builder.records import write_record
from builder.samples import Request, save_requests
from builder.samples.batch_probe import NO_BATCH_AXIS, ROWS_CHANGE, Probe, probe_batches, row_difference, take_rows
from builder.samples.batch_proof import batch_rows, cut
from builder.samples.file import fit_samples, read_samples
from builder.samples.making import RandomRecipe, batch_axes, find_recipe
from builder.samples.observed import fix_declared, fix_first_axis, observe_signature
from builder.samples.ragged import (
    Batcher,
    answered_in_batches,
    batch_run,
    in_batches,
    one_by_one,
    open_ragged,
    with_shorter,
)
from builder.samples.requests import FileSamples, RandomSamples, cropped
from builder.samples.sequences import (
    Steps,
    Stream,
    batch_answers,
    file_steps,
    first_axes_one,
    open_stream,
    play,
    random_steps,
    set_apart,
    single_sizes,
    step_pool,
)
from builder.samples.split import SplitRule
from builder.sources import CodeSource, LoadedSource, OwnSamples, TorchScriptSource
from builder.tensors import Signature, Tensor
from builder.unproven import unproven
from builder.work import Export, RaggedRef, SamplesRef, SequenceRef

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]
    Arrays = Mapping[str, Array]

CODE_RAN: Final = "allow_pickle: the file's own code ran"
SAME_ANSWER: Final = 1e-5
"""Largest relative difference between two answers to one request: threads may add in another order."""


@dataclass(frozen=True, slots=True)
class _Reference:
    """Everything learned by running the source; `extras` are answers that are seen but not kept as samples.

    `calibration` are requests without answers, of other rows.
    """

    signature: Signature
    requests: tuple[Request, ...]
    extras: tuple[Request, ...]
    batch: BatchProof
    notes: tuple[str, ...]
    samples: str
    calibration: tuple[Request, ...] = ()


@dataclass(frozen=True, slots=True)
class _Written:
    """Formats and the routes they were written by, and those that could not be written, with the reason."""

    routes: dict[str, str]
    notes: tuple[str, ...]
    refused: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Probed:
    """Samples that the source takes, and which batch sizes it does; `probe` is None without a batch axis."""

    samples: RandomSamples | FileSamples
    probe: Probe | None
    notes: tuple[str, ...]


def run_export(work: Export, out: Path, *, isolated: bool = False) -> None:
    """Write the export of one source into `out`; `isolated` says that this process has no network.

    Raises:
        SpecError: the spec, the samples or the model's file do not fit together.
        BuildError: the framework could not export or run the model.
    """
    source = open_source(work)
    path = out / ONNX_FILE
    sequence: Sequencing | None = None
    ragged: Ragged | None = None
    if work.ragged is not None:
        reference, ragged = _learn_ragged(source, work.samples, work.ragged, out)
        written = _write_formats(work, source, reference, out)
    elif work.sequence is None:
        reference, written = _export_requests(work, source, out)
    else:
        reference, sizes = _learn_sequences(source, work.samples, work.sequence)
        written = _write_formats(work, source, reference, out)
        states = tuple((state.input, state.output) for state in work.sequence.states)
        sequence = Sequencing(states, work.sequence.controls, sizes)
    vacuous = tuple(unproven(reference.signature, reference.requests))
    parameters = source.parameters
    del source  # its weights need not lie in memory beside those of a session that is opened below
    warnings = _check_onnx(path, written.routes["onnx"]) if "onnx" in written.routes else ()
    _refuse_empty(path, reference)
    model = read_onnx(path) if "onnx" in written.routes else None
    save_requests(out / REFERENCE_FILE, reference.signature, reference.requests)
    if reference.calibration:
        save_requests(out / CALIBRATION_FILE, replace(reference.signature, outputs=()), reference.calibration)
    report = ExportReport(
        signature=reference.signature,
        route=next(iter(written.routes.values())),
        opset=opset_of(model) if model else None,
        ir_version=model.ir_version if model else None,
        batch=_with_node(reference.batch, path, reference.requests),
        samples=reference.samples,
        notes=(*_code_notes(work, isolated=isolated), *written.notes, *warnings, *reference.notes, *vacuous),
        parameters=parameters,
        sequence=sequence,
        refused=written.refused,
        ragged=ragged,
        applicable=applicable(path, "onnxruntime") if model else (),
    )
    write_record(out / EXPORT_FILE, report)


def _export_requests(work: Export, source: LoadedSource, out: Path) -> tuple[_Reference, _Written]:
    """Learn and write a model whose requests know nothing of each other."""
    probed = _probed(source, work.samples)
    reference = _learn(source, probed)
    try:
        return reference, _write_formats(work, source, reference, out)
    except BuildError as error:
        size = _size_to_fix(probed, error)
        if size is None:
            raise
        pieces = _rows_again(source, reference.requests, size)
        reference = _learn(source, _with_fixed_batch(probed, size, error))
        reference = replace(reference, extras=(*reference.extras, *pieces))
        try:
            return reference, _write_formats(work, source, reference, out)
        except BuildError:
            raise error from None


def _write_formats(work: Export, source: LoadedSource, reference: _Reference, out: Path) -> _Written:
    """Every format that is asked for and that the source can be written as.

    Raises:
        BuildError: there is none; all reasons.
    """
    routes: dict[str, str] = {}
    notes: tuple[str, ...] = ()
    errors: dict[str, BuildError] = {}
    for word in work.formats:
        try:
            routes[word], said = _write_format(word, work, source, reference, out / FORMAT_FILES[word])
        except BuildError as error:
            errors[word] = error
        else:
            notes += said
    if not routes:
        raise BuildError(" ".join(error.message for error in errors.values()), remedy=list(errors.values())[-1].remedy)
    return _Written(routes, tuple(dict.fromkeys(notes)), {word: error.message for word, error in errors.items()})


def _write_format(
    word: str, work: Export, source: LoadedSource, reference: _Reference, path: Path
) -> tuple[str, tuple[str, ...]]:
    signature, requests = reference.signature, (*reference.requests, *reference.extras)
    if word == "torchscript":
        return cast("TorchScriptSource", source).to_torchscript(path, signature=signature, requests=requests)
    if word == "python":
        return cast("CodeSource", source).to_python(path, signature=signature)
    return source.to_onnx(path, signature=signature, requests=requests, opset=work.opset, ir_version=work.ir_version)


def _size_to_fix(probed: _Probed, error: BuildError) -> int | None:
    """The batch size to export with after no exporter could keep the axis open; None where that cannot help."""
    if probed.probe is None or probed.probe.fixed is not None or NO_OPERATOR in error.message:
        return None
    return probed.probe.sizes[0]


def _rows_again(source: LoadedSource, requests: Sequence[Request], size: int) -> tuple[Request, ...]:
    """The rows of the requests in batches of `size`: what was wrong for one of them must not pass without it."""
    return tuple(
        _answered(source, take_rows(request.inputs, start, size), None)
        for request in requests
        for start in range(0, len(next(iter(request.inputs.values()))), size)
    )


def _with_fixed_batch(probed: _Probed, size: int, error: BuildError) -> _Probed:
    """The same source with one batch size, as if it took no other."""
    reason = f"the exporters could only write it for a batch of {size}"
    proof = BatchProof(proven=False, sizes=(size,), reason=reason)
    probe = probed.probe and replace(probed.probe, fixed=size, proof=proof)
    note = f"the batch axis is fixed at {size}, because it could not be exported with any size: {error.message}"
    return replace(probed, probe=probe, notes=(*probed.notes, note))


def _refuse_empty(path: Path, reference: _Reference) -> None:
    """Sizes of 0 that vary are served; one that the graph fixes cannot be written into a configuration.

    Raises:
        SpecError: an output never has elements.
    """
    empty = _never_filled(reference)
    if not empty or not path.is_file():
        return
    shapes = {port.name: port.shape for port in open_plain(path).get_outputs()}
    never = [name for name in empty if 0 in shapes[name]]
    if not never:
        return
    others = [tensor.name for tensor in reference.signature.outputs if tensor.name not in never]
    shown = ", ".join(f"{name!r} {list(shapes[name])}" for name in never)
    raise SpecError(
        f"output {shown} has the size 0 in the model itself: it never has elements, and Triton's configuration has no "
        "such size",
        remedy=f"leave it out: outputs: [{', '.join(others)}] in the spec"
        if others
        else "the model has no other output: export one that answers something",
    )


def _never_filled(reference: _Reference) -> tuple[str, ...]:
    """Outputs without elements for every request: none of their values was seen."""
    return tuple(
        tensor.name
        for tensor in reference.signature.outputs
        if all(request.outputs[tensor.name].size == 0 for request in reference.requests)
    )


def _code_notes(work: Export, *, isolated: bool) -> tuple[str, ...]:
    """The opt-in is said again where the file's code could reach the network."""
    if not work.source.allow_pickle:
        return ()
    reach = "without network" if isolated else "WITH the network: this host does not isolate it"
    return (f"{CODE_RAN} when it was opened, {reach}",)


def _check_onnx(path: Path, route: str) -> tuple[str, ...]:
    """onnx.checker's verdict: an error for what we made, a note for a user's file that onnxruntime has already run."""
    import onnx

    try:
        onnx.checker.check_model(str(path))
    except Exception as error:
        if route != "copy":
            raise BuildError(f"onnx.checker refuses the exported model: {short(error)}") from error
        return (f"onnx.checker objects, onnxruntime does not: {short(error)}",)
    return ()


def _with_node(proof: BatchProof, path: Path, requests: Sequence[Request]) -> BatchProof:
    """Where rows change with their batch, the first ONNX node at which they do."""
    rows = batch_rows(requests, 2) if proof.reason.startswith(ROWS_CHANGE) else None
    if rows is None or not path.is_file():
        return proof
    try:
        return replace(
            proof, node=first_difference(path, cut(rows, range(2)), [cut(rows, [place]) for place in range(2)])
        )
    except BuildError:
        return proof


def _probed(source: LoadedSource, ref: SamplesRef) -> _Probed:
    """Find samples and batch sizes that the source accepts."""
    samples = _samples(source, ref)
    if not batch_axes(source.inputs):
        return _Probed(samples, None, samples.notes)
    probe = probe_batches(source.run, samples.pool(), ref.max_batch_size, partial(_output_name, source))
    return _Probed(samples, probe, (*samples.notes, *_axis_notes(source, samples, probe)))


def _axis_notes(source: LoadedSource, samples: RandomSamples | FileSamples, probe: Probe) -> tuple[str, ...]:
    """Triton's one batch axis is narrower than a source whose inputs may differ in their first sizes."""
    names = batch_axes(source.inputs)
    if len(names) == 1 or not probe.proof.proven:
        return ()
    pool = samples.pool()
    mixed = {
        tensor.name: take_rows({tensor.name: pool[tensor.name]}, 0, 1 if tensor.shape[0] == names[0] else 2)[
            tensor.name
        ]
        for tensor in source.inputs
    }
    try:
        source.run(mixed)
    except Exception:
        return ()
    note = (
        f"the first axes {', '.join(names)} may differ in size in the source; as one batch axis Triton refuses a "
        "request in which they do, and batching: {max_batch_size: 0} serves it"
    )
    return (note,)


def _learn(source: LoadedSource, probed: _Probed) -> _Reference:
    """Keep the source's answers to the samples."""
    samples, probe = probed.samples, probed.probe
    inputs = source.inputs
    declared = dict(source.declared_shapes)
    if probe is not None and probe.fixed is not None:
        declared = fix_declared(declared, batch_axes(inputs), probe.fixed)
        inputs = fix_first_axis(inputs, probe.fixed)
        samples = samples.fixed(inputs, probe.fixed)
    sizes = probe.sizes if probe is not None and probe.fixed is None else ()
    samples, kept_apart = samples.split() if isinstance(samples, FileSamples) else (samples, None)
    pieces = samples.requests(sizes)
    requests = tuple(_answered(source, arrays, labels) for arrays, labels in pieces)
    _check_steady(source, requests)
    extras = _extras(source, inputs, samples, probed)
    signature = observe_signature(inputs, (*requests, *extras), declared)
    rows = tuple(replace(request, rows=_rows(request, signature)) for request in requests)
    proof = _proof(probe, signature)
    calibration = _unanswered(kept_apart, sizes, signature)
    found = _Reference(signature, rows, extras, proof, probed.notes, samples.origin, calibration)
    unseen = tuple(
        f"output {name!r} had no elements for any sample, so none of its values was checked; give samples: for which "
        "it has some"
        for name in _never_filled(found)
    )
    return replace(found, notes=(*found.notes, *unseen))


def _unanswered(samples: FileSamples | None, sizes: Sequence[int], signature: Signature) -> tuple[Request, ...]:
    """Requests to calibrate on: nobody asks for the source's answers to them."""
    if samples is None:
        return ()
    requests = (Request(arrays, {}) for arrays, _ in samples.requests(sizes))
    return tuple(replace(request, rows=_rows(request, signature)) for request in requests)


def _learn_sequences(
    source: LoadedSource, ref: SamplesRef, sequence: SequenceRef
) -> tuple[_Reference, tuple[tuple[str, int], ...]]:
    """Run sequences step by step, each step with the states that the one before gave, and keep every answer.

    Also the axes that have one size in them. The model's file keeps them open: onnxruntime 1.27 was seen to refuse a
    file (silero-vad) with its state's size written in, and Triton needs it in the configuration only.
    """
    stream = open_stream(source.inputs, source.output_names, sequence)
    answer = partial(_answered, source)
    steps, notes, origin = _steps(source, ref, stream)
    played = [play(stream, answer, number, arrays, labels) for number, (arrays, labels) in enumerate(steps)]
    requests, apart = set_apart(played, ref.calibration)
    _check_steady(source, requests)
    sizes, probe = dict(stream.sizes), None
    if stream.batched:
        pool = step_pool(requests)
        probe = probe_batches(source.run, pool, ref.max_batch_size, partial(_output_name, source))
        extras = batch_answers(tuple(requests[0].outputs), pool, probe.answers)
    else:
        extras = tuple(cropped(lambda arrays: answer(arrays, None), stream.inputs, requests[0].inputs))
        sizes |= single_sizes(stream.inputs, (*requests, *extras))
    notes += tuple(f"axis {name!r} has size {size} in a sequence" for name, size in sizes.items())
    signature = observe_signature(source.inputs, (*requests, *extras), source.declared_shapes)
    rows = tuple(replace(request, rows=_rows(request, signature)) for request in requests)
    calibration = tuple(Request(request.inputs, {}, rows=_rows(request, signature)) for request in apart)
    found = _Reference(signature, rows, extras, _proof(probe, signature), notes, origin, calibration)
    return found, tuple(sizes.items())


def _learn_ragged(source: LoadedSource, ref: SamplesRef, asked: RaggedRef, out: Path) -> tuple[_Reference, Ragged]:
    """Keep the source's answers to requests alone and to several in one run, and write the former as clients send them.

    Raises:
        SpecError: the spec does not fit the model, or requests change each other's answers.
    """
    batcher = Batcher(source.inputs, open_ragged(source.inputs, source.output_names, asked))
    samples = _ragged_samples(source, batcher, ref)
    notes = samples.notes
    samples, apart = samples.split() if isinstance(samples, FileSamples) else (samples, None)
    pieces = with_shorter(batcher, one_by_one(samples.requests((1,))), source.run)
    alone = tuple(_answered(source, batcher.merged([arrays]), labels) for arrays, labels in pieces)
    _check_steady(source, alone)
    answers = [
        batcher.separated(request.outputs, [arrays])[0] for request, (arrays, _) in zip(alone, pieces, strict=True)
    ]
    together = answered_in_batches(batcher, partial(_answered, source), pieces, answers)
    signature = observe_signature(source.inputs, (*alone, *together), source.declared_shapes)
    sizes = tuple(sorted({1, *(len(places) for places in in_batches(len(pieces)))}))
    calibration = one_by_one(apart.requests((1,))) if apart else []
    found = _Reference(
        signature,
        (*alone, *together),
        (),
        BatchProof(proven=True, sizes=sizes),
        notes,
        samples.origin,
        tuple(Request(batcher.merged([arrays]), {}) for arrays, _ in calibration),
    )
    sent = [Request(arrays, outputs, labels=labels) for (arrays, labels), outputs in zip(pieces, answers, strict=True)]
    save_requests(out / SERVED_FILE, batcher.ragged.served(signature), sent)
    return found, batcher.ragged


def _ragged_samples(source: LoadedSource, batcher: Batcher, ref: SamplesRef) -> RandomSamples | FileSamples:
    """What clients send; the rest is filled in."""
    if ref.path is None:
        recipe = find_recipe(batch_run(batcher, source.run), batcher.client_inputs, ref.seed)
        return RandomSamples(recipe, ref.max_batch_size)
    path = Path(ref.path)
    rule = SplitRule(ref.calibration, ref.seed) if ref.calibration else None
    rows = read_samples(path, ref.labels, batcher.client_inputs)
    return FileSamples(path.name, batcher.client_inputs, rows, rule=rule)


def _steps(source: LoadedSource, ref: SamplesRef, stream: Stream) -> tuple[Iterator[Steps], tuple[str, ...], str]:
    """The inputs of every sequence that clients send, with labels where there are some; notes, and their origin."""
    if ref.path is None:
        recipe = _stream_recipe(source, stream, ref.seed)
        return random_steps(stream, recipe), recipe.notes, f"random sequences, seed {ref.seed}"
    path = Path(ref.path)
    rows = read_samples(path, ref.labels, stream.plain, ref.sequence_id)
    return file_steps(stream, rows), rows.notes, f"{path.name}, {rows.count} steps"


def _stream_recipe(source: LoadedSource, stream: Stream, seed: int) -> RandomRecipe:
    """Beside states of one row other inputs may take one row only, whatever their axes are called."""
    try:
        return find_recipe(source.run, stream.inputs, seed)
    except SpecError:
        if stream.batched:
            raise
        return find_recipe(source.run, first_axes_one(stream.inputs), seed)


def _output_name(source: LoadedSource, place: int) -> str:
    """How reasons speak of an output."""
    names = source.output_names
    return f"output {names[place]!r}" if names else f"output {place}"


def _samples(source: LoadedSource, ref: SamplesRef) -> RandomSamples | FileSamples:
    own = source.sample_rows(ref.seed) if ref.path is None and isinstance(source, OwnSamples) else None
    if own is not None:
        made = f"made by the step, seed {ref.seed}"
        return FileSamples(made, source.inputs, fit_samples(own, Path(made), None, source.inputs))
    if ref.path is None:
        return RandomSamples(find_recipe(source.run, source.inputs, ref.seed), ref.max_batch_size)
    path = Path(ref.path)
    rule = SplitRule(ref.calibration, ref.seed) if ref.calibration else None
    return FileSamples(path.name, source.inputs, read_samples(path, ref.labels, source.inputs), rule=rule)


def _proof(probe: Probe | None, signature: Signature) -> BatchProof:
    if probe is None:
        return BatchProof(proven=False, reason=NO_BATCH_AXIS)
    if probe.proof.proven and not signature.has_batch_axis:
        return replace(probe.proof, proven=False, reason=NO_BATCH_AXIS)
    return probe.proof


def _rows(request: Request, signature: Signature) -> int:
    return int(request.inputs[signature.inputs[0].name].shape[0]) if signature.has_batch_axis else 0


def _answered(source: LoadedSource, arrays: Arrays, labels: Array | None) -> Request:
    """The request with the source's own answer.

    Raises:
        SpecError: the source refuses it; its own words.
    """
    shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
    try:
        outputs = source.run(arrays)
    except BuildRepoError:
        raise
    except Exception as error:
        raise SpecError(
            f"the model refuses the sample inputs ({shapes}): {short(error)}",
            remedy="give samples that the model accepts, or correct inputs:",
        ) from error
    names = source.output_names or tuple(f"output_{place}" for place in range(len(outputs)))
    if len(names) != len(outputs):
        raise BuildError(f"the model returned {len(outputs)} outputs on inputs {shapes}, {len(names)} before")
    return Request(dict(arrays), dict(zip(names, outputs, strict=True)), labels=labels)


def _check_steady(source: LoadedSource, requests: Sequence[Request]) -> None:
    """Ask the first request again, twice in a row.

    Raises:
        SpecError: the answer changed: the model keeps state between calls or draws random numbers.
    """
    first = requests[0]
    for _ in range(2):
        again = source.run(first.inputs)
        for (name, before), after in zip(first.outputs.items(), again, strict=True):
            if before.shape != after.shape or row_difference(before, after) > SAME_ANSWER:
                raise SpecError(
                    f"the model answers the same request differently (output {name!r}): it keeps state between "
                    "calls or draws random numbers, so a served copy cannot be checked and would mix its clients",
                    remedy="make the state an input and an output of the model, and declare them: sequence: {states: "
                    "[{input: …, output: …}]}; or remove the randomness",
                )


def _extras(
    source: LoadedSource,
    inputs: tuple[Tensor, ...],
    samples: RandomSamples | FileSamples,
    probed: _Probed,
) -> tuple[Request, ...]:
    """More answers to the user's samples, so that every dynamic axis is seen with two sizes where the source allows.

    Those of the probe are to the rows of the whole file: `samples` may be the part of it that does not calibrate.
    """
    if isinstance(samples, RandomSamples):
        return ()
    probe, pool = probed.probe, probed.samples.pool()
    sizes: tuple[int, ...] = ()
    extras = []
    if probe is not None and probe.fixed is None:
        sizes = probe.sizes
        names = source.output_names or ()
        for size, outputs in probe.answers.items():
            extras.append(Request(take_rows(pool, 0, size), dict(zip(names, outputs, strict=True))))
    base, _ = samples.requests(sizes)[0]
    return (*extras, *cropped(lambda arrays: _answered(source, arrays, None), inputs, base))
