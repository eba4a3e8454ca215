"""Sequences in the reference: the source run step by step with its own states fed back."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stateful_models as models
from export_models import work_of
from small_graphs import signature, write_graph

from builder.errors import SpecError
from builder.export import run_export
from builder.measurement import EXPORT_FILE, ONNX_FILE, REFERENCE_FILE, ExportReport, served_signature
from builder.onnx_tools.running import open_plain, run_plain
from builder.records import read_record
from builder.samples import Request, load_requests, sequences_of
from builder.samples.sequences import LENGTHS, set_apart
from builder.samples.stored import _selection
from builder.work import SequenceRef, StateRef

SUM = SequenceRef((StateRef("s", "t"),))


def export(path: Path, out: Path, sequence: SequenceRef, sequence_id: str | None = None, **options: Any) -> Any:
    out.mkdir(exist_ok=True)
    work = work_of(path, **options)
    samples = replace(work.samples, sequence_id=sequence_id)
    run_export(replace(work, sequence=sequence, samples=samples), out)
    report = read_record(ExportReport, out / EXPORT_FILE)
    return report, load_requests(out / REFERENCE_FILE, report.signature)


def refusal(path: Path, out: Path, sequence: SequenceRef, **options: Any) -> str:
    with pytest.raises(SpecError) as caught:
        export(path, out, sequence, **options)
    return f"{caught.value.message} | {caught.value.remedy}"


def assert_fed_back(requests: tuple[Request, ...], state: str, output: str, first: Any = 0) -> None:
    for steps in sequences_of(requests):
        np.testing.assert_array_equal(steps[0].inputs[state], np.broadcast_to(first, steps[0].inputs[state].shape))
        for before, after in pairwise(steps):
            np.testing.assert_array_equal(after.inputs[state], before.outputs[output])


def test_random_sequences_of_several_lengths(tmp_path: Path) -> None:
    report, requests = export(models.gru(tmp_path / "m.onnx"), tmp_path / "out", SequenceRef((StateRef("h", "k"),)))
    assert [len(steps) for steps in sequences_of(requests)] == list(LENGTHS)
    assert_fed_back(requests, "h", "k")
    session = open_plain(tmp_path / "out" / ONNX_FILE)
    for request in requests:
        answer = run_plain(session, ("y", "k"), request.inputs)
        np.testing.assert_array_equal(answer[0], request.outputs["y"])
    assert report.batch.proven
    assert {request.rows for request in requests} == {1}
    assert report.signature.describe() == models.GRU.describe()
    seen = served_signature(report.signature, report.sequence)
    assert seen.describe() == "x float32[n,3] → y float32[n,2]"


def test_steps_of_the_users_samples(tmp_path: Path) -> None:
    rows = np.arange(27, dtype=np.float32).reshape(9, 3)
    ids = np.asarray([7, 5, 7, 7, 5, 1, 7, 5, 1])
    np.savez(tmp_path / "s.npz", x=rows, id=ids, label=np.arange(9) % 3)
    path = models.summing(tmp_path / "m.onnx")
    options = {"samples": tmp_path / "s.npz", "labels": "label"}
    _, requests = export(path, tmp_path / "named", SUM, "id", **options)
    assert [len(steps) for steps in sequences_of(requests)] == [4, 3, 2]
    assert [int(step.labels[0]) for step in sequences_of(requests)[1]] == [1, 1, 1]
    assert [int(step.labels[0]) for step in sequences_of(requests)[0]] == [0, 2, 0, 0]
    np.testing.assert_array_equal(sequences_of(requests)[1][-1].outputs["t"][0], rows[[1, 4, 7]].sum(axis=0))
    np.savez(tmp_path / "s.npz", x=rows)
    _, requests = export(path, tmp_path / "cut", SUM, samples=tmp_path / "s.npz")
    assert [len(steps) for steps in sequences_of(requests)] == [5, 3, 1]
    text = refusal(path, tmp_path / "bad", SUM, sequence_id="id", samples=tmp_path / "s.npz")
    assert "has no array 'id' for the sequence_id" in text


@pytest.mark.parametrize("shape", [(3,), (1, 3)])
def test_a_first_value_from_a_file(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "first.npy", np.full(shape, 2.5, np.float32))
    state = StateRef("s", "t", str(tmp_path / "first.npy"), "digest")
    _, requests = export(models.summing(tmp_path / "m.onnx"), tmp_path / "out", SequenceRef((state,)))
    assert_fed_back(requests, "s", "t", 2.5)


@pytest.mark.parametrize(
    "array", [np.zeros((4,), np.float32), np.zeros((3,), np.float64), np.zeros((2, 3), np.float32)]
)
def test_a_first_value_that_does_not_fit(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "first.npy", array)
    state = StateRef("s", "t", str(tmp_path / "first.npy"), "digest")
    text = refusal(models.summing(tmp_path / "m.onnx"), tmp_path / "out", SequenceRef((state,)))
    assert f"state s float32[n,3]: first.npy holds {array.dtype}" in text


def test_controls_say_where_a_sequence_starts(tmp_path: Path) -> None:
    sequence = SequenceRef((StateRef("s", "t"),), (("corrid", "CORRID"), ("start", "START")))
    report, requests = export(models.controlled(tmp_path / "m.onnx"), tmp_path / "out", sequence)
    for number, steps in enumerate(sequences_of(requests)):
        assert [int(step.inputs["START"].item()) for step in steps] == [1] + [0] * (len(steps) - 1)
        assert {int(step.inputs["CORRID"].item()) for step in steps} == {number + 1}
    assert served_signature(report.signature, report.sequence).describe() == "x float32[n,3] → y float32[n,3]"


def test_a_state_whose_batch_axis_is_not_the_first(tmp_path: Path) -> None:
    ports = signature(["x:float32:n,4", "s:float32:2,n,4"], ["y:float32:n,4", "t:float32:2,n,4"])
    axis = {"axis": np.asarray([0], np.int64)}
    nodes = [models.node("Add", "s x", "t"), models.node("ReduceSum", "t axis", "y", keepdims=0)]
    path = write_graph(tmp_path / "m.onnx", ports, nodes, axis)
    report, requests = export(path, tmp_path / "out", SUM)
    assert report.sequence is not None
    assert report.sequence.sizes == (("n", 1),)
    assert not report.batch.proven
    assert {request.inputs["s"].shape for request in requests} == {(2, 1, 4)}
    assert (tmp_path / "out" / ONNX_FILE).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("make", "sequence", "words"),
    [
        (models.summing, SequenceRef((StateRef("q", "t"),)), "the model has no input 'q' | it has x, s"),
        (models.summing, SequenceRef((StateRef("s", "q"),)), "the model has no output 'q' | it has y, t"),
        (models.growing, SUM, "state output 't' is float32[2, 3], its input 's' float32[1, 3]"),
        (models.crossed, SequenceRef((StateRef("a", "v"), StateRef("b", "u"))), "by the alphabetical order"),
        (models.controlled, SequenceRef((StateRef("s", "t"),), (("start", "CORRID"),)), "of int32, float32, bool"),
    ],
)
def test_refusals(tmp_path: Path, make: Any, sequence: SequenceRef, words: str) -> None:
    assert words in refusal(make(tmp_path / "m.onnx"), tmp_path / "out", sequence)


def test_scalars_and_a_model_of_states_only(tmp_path: Path) -> None:
    ports = signature(["x:float32:2", "s:float32:"], ["y:float32:2", "t:float32:"])
    nodes = [models.node("Add", "x s", "y"), models.node("Add", "s s", "t")]
    assert "'s' is a scalar" in refusal(write_graph(tmp_path / "a.onnx", ports, nodes), tmp_path / "out", SUM)
    ports = signature(["s:float32:2"], ["t:float32:2"])
    path = write_graph(tmp_path / "b.onnx", ports, [models.node("Add", "s s", "t")])
    assert "no input is left" in refusal(path, tmp_path / "out", SUM)


def test_sequences_to_calibrate_on_are_others_than_those_to_judge_on() -> None:
    sequences = sequences_of(models.sum_steps((4, 2, 6, 1)))
    judged, apart = set_apart(sequences, 2)
    assert [[step.sequence for step in part] for part in (judged, apart)] == [[0] * 4 + [2] * 6 + [3], [1] * 2]
    assert [len(part) for part in set_apart(sequences, 0)] == [13, 0]
    with pytest.raises(SpecError, match="the samples are one sequence"):
        set_apart(sequences[:1], 2)


def test_what_travels_with_the_repository_are_whole_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = models.sum_steps((4, 2, 6))
    monkeypatch.setattr("builder.samples.stored.MAX_BYTES", 7 * 4 * 12)
    assert [step.sequence for step in _selection(requests)] == [0] * 4 + [1] * 2
    monkeypatch.setattr("builder.samples.stored.MAX_BYTES", 2 * 4 * 12)
    assert [step.sequence for step in _selection(requests)] == [0] * 2


@pytest.mark.skipif(not find_spec("silero_vad"), reason="needs silero-vad")
def test_silero_with_sound(tmp_path: Path) -> None:
    spec = find_spec("silero_vad")
    assert spec is not None
    path = Path(str(spec.origin)).parent / "data" / "silero_vad.onnx"
    sound = np.random.default_rng(0).standard_normal((6, 1, 576)).astype(np.float32) / 9
    np.savez(tmp_path / "s.npz", input=sound, sr=np.full(6, 16000))
    sequence = SequenceRef((StateRef("state", "stateN"),))
    report, requests = export(path, tmp_path / "out", sequence, samples=tmp_path / "s.npz")
    assert_fed_back(requests, "state", "stateN")
    assert report.sequence is not None
    assert set(dict(report.sequence.sizes).values()) == {1}
    assert requests[0].inputs["state"].shape == (2, 1, 128)
