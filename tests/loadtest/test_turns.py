"""Several loads one after the other by one load generator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from served_models import LINEAR, linear_requests, write_linear

from builder.errors import ServeError
from builder.loadtest import LoadOptions, LoadSubject
from builder.loadtest.records import LoadResult, Turn
from builder.loadtest.turns import run_turns
from builder.runtime import Runtime
from builder.samples import Request
from builder.servers import Endpoint, ServeOptions
from builder.servers.embedded import serve

pytestmark = pytest.mark.live


def _on_the_way(result: LoadResult) -> float:
    """Requests on the way at a time, by Little's law: their rate times their time."""
    return result.requests_per_s * result.mean_ms / 1e3


@pytest.fixture(scope="module")
def endpoint(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    repository = tmp_path_factory.mktemp("turns") / "repository"
    for name in ("a", "b"):
        write_linear(repository, name)
    with serve(repository, ServeOptions(release=runtime.record.release, auto_complete=False)) as served:
        yield served


def test_each_turn_has_its_own_figures(endpoint: Endpoint, tmp_path: Path) -> None:
    subjects = [LoadSubject(name, linear_requests(), LINEAR) for name in ("a", "b")]
    turns = [Turn(("a",), 1, 1.0), Turn(("b",), 4, 1.0), Turn(("a",), 1, 1.0), Turn(("a", "b"), 4, 1.0)]
    taken = run_turns(endpoint, subjects, turns, LoadOptions(tmp_path), progress=lambda _: None)
    assert [one.turn for one in taken] == turns
    assert [one.at_s for one in taken] == sorted(one.at_s for one in taken)
    for one in taken:
        assert one.result is not None
        called = {model.name for model in one.result.model_figures if model.requests}
        assert called == set(one.turn.models)
        assert one.result.failures == 0
        assert one.result.requests > 50
        assert one.result.answers.compared > 0
        assert one.result.answers.wrong == 0
        assert one.result.generator_cores > 0
        assert one.result.duration_s == pytest.approx(1.0, abs=0.4)
    alone, crowd = taken[0].result, taken[1].result
    assert alone is not None and crowd is not None
    # One user has one request on the way at a time: the server cannot merge any.
    sizes = dict(next(model for model in alone.model_figures if model.name == "a").batches)
    assert max(sizes) <= max(request.rows for request in linear_requests())
    # Little's law, as below: four users have more requests on the way than one, however fast the machine answers.
    assert _on_the_way(alone) <= 1.05 < _on_the_way(crowd)


def test_turns_there_and_back_keep_their_users(endpoint: Endpoint, tmp_path: Path) -> None:
    """A B B A: with one user on the way the server has one request at a time, with two never more than two."""
    subjects = [LoadSubject(name, linear_requests(), LINEAR) for name in ("a", "b")]
    turns = [Turn((name,), users, 1.0) for users in (1, 2) for name in ("a", "b", "b", "a")]
    taken = run_turns(endpoint, subjects, turns, LoadOptions(tmp_path), progress=lambda _: None)
    assert [one.turn for one in taken] == turns
    for one in taken:
        assert one.result is not None
        assert {model.name for model in one.result.model_figures if model.requests} == set(one.turn.models)
        assert (one.result.failures, one.result.answers.wrong) == (0, 0)
        assert 0 < _on_the_way(one.result) <= 1.05 * one.turn.users


def test_wrong_answers_belong_to_the_model_that_gave_them(endpoint: Endpoint, tmp_path: Path) -> None:
    right = linear_requests()
    wrong = tuple(Request(item.inputs, {"y": item.outputs["y"] + 1}, item.rows) for item in right)
    subjects = [LoadSubject("a", right, LINEAR), LoadSubject("b", wrong, LINEAR)]
    turns = [Turn(("a",), 2, 0.5), Turn(("b",), 2, 0.5)]
    one, other = run_turns(endpoint, subjects, turns, LoadOptions(tmp_path), progress=lambda _: None)
    assert one.result is not None and other.result is not None
    assert one.result.answers.wrong == 0
    assert other.result.answers.wrong == other.result.answers.compared > 0


def test_a_server_that_is_gone_ends_the_turns(endpoint: Endpoint, tmp_path: Path) -> None:
    gone = Endpoint(http=None, grpc="127.0.0.1:1", metrics=None)
    with pytest.raises(ServeError):
        run_turns(
            gone, [LoadSubject("a", linear_requests(), LINEAR)], [Turn(("a",), 1, 0.5)], LoadOptions(tmp_path),
            progress=lambda _: None,
        )  # fmt: skip
