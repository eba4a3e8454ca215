"""Implicit state in the embedded server: kept by sequence, never mixed, whatever the scheduler does."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import stateful_models as models
from triton_models import client, config, port, write_config

from builder.errors import ServeError
from builder.runtime import Runtime
from builder.servers import Endpoint, ServeOptions
from builder.servers.embedded import serve
from builder.tensors import Signature

IDLE_US = 1_500_000
OLDEST = "oldest { max_candidate_sequences: 64 }"
ZERO = "zero_data: true"
MODELS = {
    "batched_oldest": (8, OLDEST, 1, ZERO),
    "batched_oldest_twice": (8, OLDEST, 2, ZERO),
    "batched_direct": (8, "direct { }", 1, ZERO),
    "batched_direct_twice": (2, "direct { }", 2, ZERO),
    "single_oldest": (0, OLDEST, 1, ZERO),
    "single_oldest_thrice": (0, OLDEST, 3, ZERO),
    "single_direct": (0, "direct { }", 1, ZERO),
    "single_from_file": (0, OLDEST, 1, 'data_file: "first"'),
}
FIRST = {"single_from_file": 2.5}
IDS = itertools.count(1)


def batching(strategy: str, first: str = ZERO, *, name: str = "s", dims: str = "[3]", kind: str = "FP32") -> str:
    initial = f'initial_state {{ name: "first" data_type: TYPE_{kind} dims: {dims} {first} }}'
    state = f'state {{ input_name: "{name}" output_name: "t" data_type: TYPE_{kind} dims: {dims} {initial} }}'
    return f"sequence_batching {{ max_sequence_idle_microseconds: {IDLE_US} {strategy} {state} }}"


def write_model(repository: Path, name: str, signature: Signature, text: str) -> None:
    (repository / name / "1").mkdir(parents=True)
    models.summing(repository / name / "1" / "model.onnx", signature)
    write_config(repository, name, text)


@pytest.fixture(scope="module")
def endpoint(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    repository = tmp_path_factory.mktemp("states") / "repository"
    one = ([port("x", "FP32", [3])], [port("y", "FP32", [3])])
    for name, (batch, strategy, count, first) in MODELS.items():
        text = config("onnxruntime", *one, batch=batch, more=batching(strategy, first))
        signature = models.SUM if batch else models.ROW_SUM
        write_model(repository, name, signature, text.replace("count: 1", f"count: {count}"))
    folder = repository / "single_from_file" / "initial_state"
    folder.mkdir()
    (folder / "first").write_bytes(np.full(3, 2.5, np.float32).tobytes())
    with serve(repository, ServeOptions(release=runtime.release, auto_complete=False)) as served:
        yield served


def send(
    address: str,
    protocol: str,
    model: str,
    sequence: int | str,
    xs: np.ndarray,
    *,
    start: bool = True,
    end: bool = True,
) -> np.ndarray:
    """The answers to the steps of one sequence."""
    answers = []
    with client(address, protocol) as (module, connection):
        for place, x in enumerate(xs):
            sent = x[None] if model.startswith("batched") else x
            tensor = module.InferInput("x", list(sent.shape), "FP32")
            tensor.set_data_from_numpy(sent)
            flags = {"sequence_start": start and place == 0, "sequence_end": end and place == len(xs) - 1}
            result = connection.infer(model, [tensor], sequence_id=sequence, **flags)
            answers.append(result.as_numpy("y").reshape(3))
    return np.asarray(answers)


def right(xs: np.ndarray, first: float = 0.0) -> np.ndarray:
    """y = t + s, t = x + s."""
    after = first + np.cumsum(xs, axis=0)
    return after + np.concatenate([np.full((1, 3), first), after[:-1]])


def steps(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-9, 10, (count, 3)).astype(np.float32)


@pytest.mark.parametrize("model", sorted(MODELS))
def test_states_of_many_sequences_are_never_mixed(endpoint: Endpoint, model: str) -> None:
    assert endpoint.http
    assert endpoint.grpc

    def user(number: int) -> list[bool]:
        address, protocol = ((endpoint.http, "http"), (endpoint.grpc, "grpc"))[number % 2]
        found = []
        for turn in range(3):
            xs = steps(4 + number, 10 * number + turn)
            sequence = f"user {number} {turn}" if turn else next(IDS)
            answer = send(str(address), protocol, model, sequence, xs)
            found.append(np.array_equal(answer, right(xs, FIRST.get(model, 0.0))))
        return found

    with ThreadPoolExecutor(8) as pool:
        assert all(itertools.chain.from_iterable(pool.map(user, range(8))))


def test_sequences_share_runs(endpoint: Endpoint) -> None:
    with client(str(endpoint.grpc)) as (_, connection):
        for model in ("batched_oldest", "batched_direct"):
            seen = connection.get_inference_statistics(model).model_stats[0]
            assert 0 < seen.execution_count < seen.inference_count


def test_a_state_stays_until_the_sequence_ends_or_is_idle(endpoint: Endpoint) -> None:
    address, xs = str(endpoint.grpc), steps(6, 99)
    sequence = next(IDS)
    send(address, "grpc", "single_oldest", sequence, xs[:3], end=False)
    answer = send(address, "grpc", "single_oldest", sequence, xs[3:], start=False)
    np.testing.assert_array_equal(answer, right(xs)[3:])
    with pytest.raises(Exception, match="must specify the START flag"):
        send(address, "grpc", "single_oldest", sequence, xs[:1], start=False)
    send(address, "grpc", "single_oldest", sequence, xs[:1], end=False)
    time.sleep(3 * IDLE_US / 1e6)
    with pytest.raises(Exception, match="must specify the START flag"):
        send(address, "grpc", "single_oldest", sequence, xs[:1], start=False)


def test_a_second_start_begins_anew(endpoint: Endpoint) -> None:
    address, xs = str(endpoint.grpc), steps(4, 7)
    sequence = next(IDS)
    send(address, "grpc", "batched_oldest", sequence, xs, end=False)
    np.testing.assert_array_equal(send(address, "grpc", "batched_oldest", sequence, xs), right(xs))


def test_a_request_of_no_sequence_is_refused(endpoint: Endpoint) -> None:
    with pytest.raises(Exception, match="non-zero or non-empty correlation ID"):
        send(str(endpoint.grpc), "grpc", "batched_oldest", 0, steps(1, 0))


def test_every_model_is_still_alive(endpoint: Endpoint) -> None:
    endpoint.alive()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dims": "[4]"}, "state input 's': the model has shape"),
        ({"kind": "FP16"}, "state input 's' is TYPE_FP16 in the configuration and TYPE_FP32 in the model"),
        ({"name": "q"}, "state input 'q' is not among the model's inputs"),
    ],
)
def test_states_that_would_fail_at_the_first_request_fail_the_load(
    runtime: Runtime, tmp_path: Path, changes: dict[str, str], words: str
) -> None:
    one = ([port("x", "FP32", [3])], [port("y", "FP32", [3])])
    write_model(tmp_path, "wrong", models.SUM, config("onnxruntime", *one, batch=8, more=batching(OLDEST, **changes)))
    options = ServeOptions(release=runtime.release, auto_complete=False)
    with pytest.raises(ServeError, match=words), serve(tmp_path, options):
        pass
