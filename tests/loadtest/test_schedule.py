"""The pure parts of `loadtests/`: arrivals, traces, the search for a rate, the mix, stored requests."""

from __future__ import annotations

import itertools
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from builder.resources import resource
from builder.samples import Request, save_requests
from builder.tensors import Signature, Tensor

NAMES = (
    "schedule",
    "search",
    "mix",
    "stored",
    "payloads",
    "target",
    "request_log",
    "expected",
    "kept_answers",
    "generator",
)


@pytest.fixture(scope="module")
def parts() -> Iterator[dict[str, ModuleType]]:
    """Locust finds these files beside the locustfile; here they are imported and forgotten again."""
    from importlib import import_module

    sys.path.insert(0, str(resource("loadtests")))
    yield {name: import_module(name) for name in NAMES}
    sys.path.pop(0)
    for name in NAMES:
        sys.modules.pop(name, None)


def test_even_arrivals_of_each_shape(parts: dict[str, ModuleType]) -> None:
    times = parts["schedule"].arrival_times
    constant = times("constant", 50.0, 4.0)
    assert len(constant) == 200
    assert np.diff(constant) == pytest.approx(0.02)
    ramp = times("ramp", 100.0, 10.0)
    assert len(ramp) == 500
    assert (ramp < 5.0).sum() == pytest.approx(125, abs=2)
    spike = times("spike", 100.0, 10.0)
    inside = ((spike >= 4.0) & (spike < 6.0)).sum()
    assert (inside, len(spike) - inside) == (pytest.approx(200, abs=2), pytest.approx(160, abs=2))


def test_poisson_arrivals_are_random_and_repeat(parts: dict[str, ModuleType]) -> None:
    times = parts["schedule"].arrival_times
    one = times("constant", 200.0, 20.0, poisson=True, seed=3)
    assert (one == times("constant", 200.0, 20.0, poisson=True, seed=3)).all()
    assert len(one) == pytest.approx(4000, abs=250)
    gaps = np.diff(one)
    assert gaps.std() / gaps.mean() == pytest.approx(1.0, abs=0.1)


def test_workers_share_the_arrivals(parts: dict[str, ModuleType]) -> None:
    planned = parts["schedule"].planned
    phase = {"shape": "constant", "rate": 30.0, "seconds": 2.0, "poisson": False, "seed": 1, "of": 3}
    shares = [list(planned({**phase, "index": index}, [])) for index in range(3)]
    assert [len(share) for share in shares] == [20, 20, 20]
    assert sorted(itertools.chain.from_iterable(shares)) == list(planned({**phase, "index": 0, "of": 1}, []))
    endless = planned({**phase, "seconds": 0.0, "index": 0, "of": 1}, [])
    assert [time for time, _ in itertools.islice(endless, 1799, 1801)] == pytest.approx([59.983, 60.017], abs=0.01)
    trace = [(0.5 * place, "") for place in range(10)]
    assert len(list(planned({**phase, "index": 0, "of": 1}, trace))) == 4


def test_traces(parts: dict[str, ModuleType], tmp_path: Path) -> None:
    read = parts["schedule"].read_trace
    table, plain, listed = tmp_path / "requests.csv", tmp_path / "plain.csv", tmp_path / "list.json"
    table.write_text("arrival_s,model\n3.5,b\n2.0,a\n", encoding="utf-8")
    plain.write_text("1.0\n4.5\n", encoding="utf-8")
    listed.write_text("[10, 10.25, 11]", encoding="utf-8")
    (tmp_path / "result.json").write_text('{"requests": 2}', encoding="utf-8")
    assert read(str(table)) == [(0.0, "a"), (1.5, "b")]
    assert read(str(tmp_path / "result.json")) == read(str(table))
    assert read(str(plain)) == [(0.0, ""), (3.5, "")]
    assert read(str(listed)) == [(0.0, ""), (0.25, ""), (1.0, "")]
    for text in ("when\nnow\n", "", "arrival_s\nsoon\n", "nan\n", "0\ninf\n"):
        plain.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match="arrival"):
            read(str(plain))


def find_rate(search: ModuleType, limit: float, first: float, noise: float, seed: int) -> tuple[float, int]:
    """The rate that the search settles on, and how many levels it took."""
    random = np.random.default_rng(seed)
    levels: list[Any] = []
    while (rate := search.next_rate(levels, first)) is not None and len(levels) < 40:
        threshold = limit * (1 + noise * random.standard_normal())
        levels.append(search.Level(rate, rate <= threshold, clear=rate > 1.3 * threshold))
    return search.held_rate(levels), len(levels)


@pytest.mark.parametrize("first", [40.0, 90.0, 130.0, 600.0])
def test_the_search_finds_the_rate(parts: dict[str, ModuleType], first: float) -> None:
    rate, levels = find_rate(parts["search"], 100.0, first, 0.0, 0)
    assert 95.0 <= rate <= 100.0
    assert levels <= 14


def test_the_search_bears_noise(parts: dict[str, ModuleType]) -> None:
    found = [find_rate(parts["search"], 100.0, 80.0, 0.03, seed)[0] for seed in range(100)]
    assert np.median(found) == pytest.approx(100.0, rel=0.05)
    assert sum(abs(rate - 100) > 12 for rate in found) <= 5


def test_the_search_gives_up(parts: dict[str, ModuleType]) -> None:
    rate, levels = find_rate(parts["search"], 0.0, 100.0, 0.0, 0)
    assert rate == 0.0
    assert levels < 40


def test_a_rate_that_is_too_high_leaves_more_and_more_waiting(parts: dict[str, ModuleType]) -> None:
    """A queue before one server of 40 ms, looked at for two seconds."""
    log = parts["request_log"]
    for rate, behind in ((20.0, False), (24.5, False), (28.0, True), (60.0, True)):
        due = np.arange(0.0, 2.0, 1 / rate)
        ended = np.zeros_like(due)
        free = 0.0
        for place, arrival in enumerate(due):
            free = ended[place] = max(free, arrival) + 0.04
        rows = np.zeros((len(due), len(log.COLUMNS)))
        rows[:, log.COLUMNS.index("due_s")], rows[:, log.COLUMNS.index("ended_s")] = due, ended
        assert log.falls_behind(rows, 2.0) == behind, rate


def test_what_holds(parts: dict[str, ModuleType]) -> None:
    holds = parts["search"].holds
    figures = {"p50": 5.0, "p99": 20.0, "errors": 0.5}
    assert holds({"p99": 20.0, "errors": 1.0}, figures)
    assert not holds({"p99": 20.0}, figures)
    assert not holds({"p99": 19.0, "errors": 1.0}, figures)


def test_the_mix(parts: dict[str, ModuleType]) -> None:
    mix = parts["mix"]
    assert [mix.parse_part(text) for text in ("a", "a=3", "a@8=0.5")] == [
        mix.Part("a", 0, 1.0),
        mix.Part("a", 0, 3.0),
        mix.Part("a", 8, 0.5),
    ]
    for text in ("", "a=x", "a@x", "a=0", "a@0", "=3"):
        with pytest.raises(ValueError, match="mix"):
            mix.parse_part(text)
    assert list(itertools.islice(mix.woven([2.0, 1.0]), 6)) == [0, 1, 0, 0, 1, 0]
    chosen = [mix.parse_part(text) for text in ("a=3", "b@2=1")]
    prepared = {"a@0": [("a", [], 1), ("a", [], 2)], "b@2": [("b", [], 3)]}
    turns = mix.Turns(chosen, prepared, 5)
    assert Counter(turns.next("")[0] for _ in range(40)) == {"a": 30, "b": 10}
    assert {turns.next("b")[0] for _ in range(3)} == {"b"}


def test_stored_requests(parts: dict[str, ModuleType], tmp_path: Path) -> None:
    """Cut to what the server takes, or made of as many rows as the mix asks for; strings of any bytes."""
    payloads, stored = parts["payloads"], parts["stored"]
    served = payloads.Served("m", [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}], ("y",), ("FP32",), 4, False)
    rows = np.arange(12, dtype=np.float32).reshape(6, 2)
    cut = stored.stored_requests(served, {"0/x": rows, "rows": np.asarray([6])})
    assert [(item.rows, item.source, item.first_row) for item in cut] == [(4, 0, 0), (2, 0, 4)]
    (wide,) = stored.stored_requests(served, {"0/x": rows[:3], "rows": np.asarray([3])}, rows=4)
    assert wide.tensors[0].array.tolist() == [[0, 1], [2, 3], [4, 5], [0, 1]]
    with pytest.raises(ValueError, match="at most 4 rows"):
        stored.stored_requests(served, {"0/x": rows, "rows": np.asarray([6])}, rows=5)
    with pytest.raises(ValueError, match="inputs are"):
        stored.stored_requests(served, {"0/z": rows})


def test_rows_of_a_model_that_the_server_does_not_batch(parts: dict[str, ModuleType]) -> None:
    """Those that are stored; others only where rows are known to be independent, and where they are."""
    payloads, stored = parts["payloads"], parts["stored"]
    port = {"name": "x", "datatype": "FP32", "shape": [-1, 2]}
    served = payloads.Served("m", [port], ("y",), ("FP32",), 0, False)
    both = {"0/x": np.zeros((1, 2), np.float32), "1/x": np.ones((3, 2), np.float32), "rows": np.asarray([1, 3])}
    (same,) = stored.stored_requests(served, both, rows=3)
    assert (same.rows, same.source, same.tensors[0].array.tolist()) == (3, 1, [[1, 1]] * 3)
    proven = both | {"rows_proven": np.asarray(True)}
    assert [item.tensors[0].array.shape for item in stored.stored_requests(served, proven, rows=4)] == [(4, 2)] * 2
    fixed = payloads.Served("m", [{**port, "shape": [3, 2]}], ("y",), ("FP32",), 0, False)
    for model, arrays, words in (
        (served, both, "nothing proves that rows .* write m alone, or one of the sizes that are stored: m@1 or m@3"),
        (served, {"x": np.ones((3, 2), np.float32)}, "nothing says which axis of them is the rows; write m alone"),
        (served, {**proven, "rows": np.asarray([1, 2])}, "input x of stored request 1 has not its 2 rows on the first"),
        (fixed, proven, r"the server takes input x as \[3, 2\]"),
    ):
        with pytest.raises(ValueError, match=words):
            stored.stored_requests(model, arrays, rows=4)


def test_steps_of_sequences_keep_their_flags_whatever_the_mix_asks(parts: dict[str, ModuleType]) -> None:
    payloads, stored = parts["payloads"], parts["stored"]
    served = payloads.Served("m", [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}], ("y",), ("FP32",), 1, True)
    step = np.ones((1, 2), np.float32)
    arrays = {"0/x": step, "1/x": step, "rows": np.asarray([1, 1]), "sequence": np.asarray([0, 0])}
    found = stored.stored_requests(served, arrays, rows=1)
    assert [(item.start, item.end) for item in found] == [(True, False), (False, True)]


def test_stored_requests_of_a_model_that_the_server_reshapes(parts: dict[str, ModuleType]) -> None:
    """Requests and right answers take the form of the wire; open sizes keep their order."""
    payloads, stored = parts["payloads"], parts["stored"]
    port = {"name": "x", "datatype": "FP32", "shape": [-1, -1, 2, 2]}
    reshapes = {"x": ([4, -1], [-1, 2, 2]), "y": ([4], [2, 2])}
    served = payloads.Served("m", [port], ("y",), ("FP32",), 4, False, reshapes)
    arrays = {"0/x": np.arange(24, dtype=np.float32).reshape(2, 4, 3), "rows": np.asarray([2])}
    (request,) = stored.stored_requests(served, arrays)
    assert request.tensors[0].array.shape == (2, 3, 2, 2)
    right = parts["expected"].expected_answers(served, {0: {"y": np.ones((2, 4))}}, {0: 2}, parts["expected"].Bounds())
    assert right.of(request)["y"].shape == (2, 2, 2)


def test_the_samples_of_a_repository(parts: dict[str, ModuleType], tmp_path: Path) -> None:
    signature = Signature((Tensor("s", "string", ("n",)), Tensor("v", "float32", ())), (Tensor("t", "string", ("n",)),))
    texts = np.asarray(["Käse", b"\xff\x00"], dtype=object)
    request = Request({"s": texts, "v": np.asarray(2.5, np.float32)}, {"t": texts})
    (tmp_path / "model").mkdir()
    save_requests(tmp_path / "model" / "reference.npz", signature, (request,))
    record = {
        "served": [{"folder": "model", "target": "int8"}],
        "signature": {"inputs": [{"name": "s"}, {"name": "v"}], "outputs": [{"name": "t"}]},
        "targets": [{"target": "fp32", "gates": {}}, {"target": "int8", "gates": {"max_mismatch_share": 0.5}}],
        "gates": {},
    }
    (tmp_path / "build-repo.json").write_text(json.dumps({"models": {"model": record}}), encoding="utf-8")
    arrays = parts["stored"].read_payload("model", [], str(tmp_path))
    inputs = [{"name": "s", "datatype": "BYTES", "shape": [-1]}, {"name": "v", "datatype": "FP32", "shape": [1]}]
    served = parts["payloads"].Served("model", inputs, ("t",), ("BYTES",), 0, False)
    (only,) = parts["stored"].stored_requests(served, arrays)
    assert only.tensors[0].array.tolist() == ["Käse".encode(), b"\xff\x00"]
    assert only.tensors[1].array.tolist() == [2.5]
    assert parts["stored"].read_payload("other", [], str(tmp_path)) is None
    with pytest.raises(ValueError, match="no such folder"):
        parts["stored"].read_payload("model", [], str(tmp_path / "absent"))
    bounds = parts["stored"].bounds_of("model", str(tmp_path), None)
    assert (bounds.max_relative_error, bounds.max_mismatch_share) == (0.01, 0.5)
    right = parts["stored"].stored_answers(served, arrays, bounds)
    assert right.of(only)["t"].tolist() == ["Käse".encode(), b"\xff\x00"]


def test_what_is_right_and_what_is_not(parts: dict[str, ModuleType]) -> None:
    """Half precision of both kinds, pieces of requests, and each way to be wrong."""
    expected, payloads = parts["expected"], parts["payloads"]
    served = payloads.Served("m", [], ("y", "z"), ("BF16", "FP16"), 4, False)
    bits = np.asarray([[0x3F80], [0xC000], [0x7F80]], np.uint16)
    known = expected.expected_answers(served, {0: {"y": bits}}, {0: 3}, expected.Bounds())
    assert known.scales == {"y": 2.0}
    piece = payloads.PreparedRequest((), 4, source=0, first_row=1)
    assert known.of(piece)["y"].ravel().tolist() == [-2.0, np.inf, 1.0, -2.0]
    assert known.of(payloads.PreparedRequest((), 1, source=1)) is None
    with pytest.raises(ValueError, match=r"expected answers \['x'\]; the outputs of model m are \['y', 'z'\]"):
        expected.expected_answers(served, {0: {"x": bits}}, {0: 3}, expected.Bounds())
    right, bounds = np.asarray([1.0, 2.0, np.nan], np.float16), expected.Bounds(0.01, 0.4)

    def said(got: Any, expected_array: Any = right) -> str:
        return " ".join(expected.difference(expected_array, got, 2.0, bounds))

    assert said(np.asarray([[1.0], [2.015], [5.0]])).strip() == ""
    assert said(np.asarray([1.0, 2.1, 5.0])) == "is too far off 0.05 of its scale, allowed 0.01"
    assert said(np.asarray([1.0, np.nan, 5.0])) == "has NaN or infinity 1 of 3 elements"
    assert said(np.ones((3, 2))) == "has a wrong shape got [3, 2], expected [3]"
    assert said(None).startswith("is missing")
    assert said(np.asarray([1, 2, 9]), np.asarray([1, 2, 3])).strip() == ""
    assert said(np.asarray([1, 0, 9]), np.asarray([1, 2, 3])) == "is not as expected 66.7% of its elements differ"


def test_locusts_page_shows_what_the_client_said(parts: dict[str, ModuleType]) -> None:
    """It prints the representation, which tritonclient's exceptions leave empty."""
    from tritonclient.utils import InferenceServerException

    generator = parts["generator"].Generator(["m"], [], 1.0, lambda *_: None)
    flight = generator.take_off(0, parts["generator"].Arrival(0.0, 0.0), "m", parts["payloads"].PreparedRequest((), 1))
    landing = generator.land(0, flight, InferenceServerException("connection refused", status="UNAVAILABLE"), None)
    assert repr(landing.error) == "NoAnswer('[UNAVAILABLE] connection refused')"
    assert generator.failures == {"[UNAVAILABLE] connection refused": 1}


def test_an_input_of_another_rank_is_named_with_both_shapes(parts: dict[str, ModuleType]) -> None:
    fitted, port = parts["stored"].fitted, {"name": "x", "shape": [-1, 3]}
    with pytest.raises(ValueError, match=r"input x has the shape \[2, 3, 1\]; the server takes \[-1, 3\]"):
        fitted({"x": np.ones((2, 3, 1))}, port)
    assert fitted({"x": np.ones((2, 3))}, port).shape == (2, 3)
    assert fitted({"x": np.ones(5)}, {"name": "x", "shape": [-1, 1]}).shape == (5, 1)
    assert fitted({"x": np.float32(1)}, {"name": "x", "shape": [1]}).shape == ()


class Answered:
    """An answer as a client has it."""

    def __init__(self, **outputs: np.ndarray) -> None:
        self.outputs = outputs

    def as_numpy(self, name: str) -> np.ndarray | None:
        return self.outputs.get(name)


def test_one_wrong_answer_of_thousands_is_kept(parts: dict[str, ModuleType], tmp_path: Path) -> None:
    answers, piece = parts["kept_answers"].Answers(), parts["payloads"].PreparedRequest((), 1, source=2, first_row=1)
    answers.outputs = {"m": ["y", "s", "e"]}
    right = {"y": np.ones((1, 3), np.float32), "s": np.asarray([[b"cat"]], np.object_), "e": np.ones((0, 2), np.int64)}
    wrong = [right | {"y": np.zeros((1, 3), np.float32)}, right | {"y": np.ones((3, 1), np.float32)}, {"y": right["y"]}]
    for number in range(10_000):
        answers.offer("m", piece, Answered(**right))
        if number % 5_000 == 123:
            for outputs in wrong:
                answers.offer("m", piece, Answered(**outputs))
    answers.offer("unknown", piece, Answered(**right))
    answers.write(tmp_path / "answers.npz")
    with np.load(tmp_path / "answers.npz") as kept:
        assert kept["counts"].tolist() == [10_000, 2, 2, 2]
        assert kept["pieces"].tolist() == [[2, 1, 1]] * 4
        assert int(kept["seen/m"]) == 10_006
        assert (kept["0/s"].tobytes(), kept["lengths/0/s"].tolist(), kept["0/e"].shape) == (b"cat", [[3]], (0, 2))
        assert [kept[f"{index}/y"].tolist() for index in (1, 2)] == [[[0, 0, 0]], [[1], [1], [1]]]
        assert "3/s" not in kept


def test_large_answers_and_answers_that_all_differ_are_sampled(parts: dict[str, ModuleType]) -> None:
    module, piece, now = parts["kept_answers"], parts["payloads"].PreparedRequest((), 1, source=0), [0.0]
    answers = module.Answers(lambda: now[0])
    answers.outputs = {"m": ["y"]}
    large = np.zeros(module.BYTES_PER_S // 4, np.uint8)
    for _ in range(100):
        answers.offer("m", piece, Answered(y=large))
        now[0] += 0.05
    assert answers.seen["m"] == 100
    assert sum(answers.counts.values()) == pytest.approx(24, abs=1)  # four at once, then four a second
    answers = module.Answers()
    answers.outputs = {"m": ["y"]}
    for number in range(3 * module.KEPT):
        answers.offer("m", piece, Answered(y=np.asarray([number])))
    assert len(answers.keys) == len(answers.counts) == module.KEPT
    assert answers.size == 8 * module.KEPT
    late = sum(module.array_of(key[-1][0])[0] >= module.KEPT for key in answers.keys)
    assert late == pytest.approx(module.KEPT * 2 / 3, rel=0.1)
