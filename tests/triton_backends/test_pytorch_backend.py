"""The pytorch backend of the embedded server: names, types and refusals of the native one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from script_models import Adding, Doubling, Minus, Numbered, Taking, Total, Words, save_script
from triton_models import ask, client, config, port, write_config

from builder.errors import ServeError
from builder.runtime import Runtime
from builder.servers import Endpoint, ServeOptions
from builder.servers.embedded import serve

MERGING = "dynamic_batching { max_queue_delay_microseconds: 200000 }"
A = np.arange(6, dtype=np.float32).reshape(2, 3)
B = np.float32(2)
STATE = (
    "sequence_batching { oldest { max_candidate_sequences: 4 } "
    'state [ { input_name: "h__1" output_name: "hn__1" data_type: TYPE_FP32 dims: [ 1 ] '
    'initial_state: { data_type: TYPE_FP32 dims: [ 1 ] zero_data: true name: "zero" } } ] }'
)


def write_model(repository: Path, name: str, network: Any, text: str) -> None:
    save_script(network, repository / name / "1" / "model.pt")
    write_config(repository, name, text)


def two(first: str, second: str) -> str:
    """A configuration of `Minus` with these names."""
    return config(
        "pytorch",
        [port(first, "FP32", [3]), port(second, "FP32", [3])],
        [port("difference", "FP32", [3]), port("larger", "INT64", [3])],
        batch=4,
    )


@pytest.fixture(scope="module")
def endpoint(runtime_with_torch: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """Few models: each has a process that imports torch."""
    repository = tmp_path_factory.mktemp("repository")
    x, y = port("x", "FP32", [4]), port("y", "FP32", [4])
    merged = config("pytorch", [x], [y], batch=8, more=MERGING)
    write_model(repository, "merged", Doubling(), merged.replace('backend: "pytorch"', 'platform: "pytorch_libtorch"'))
    numbered = [port("l__1", "INT64", [3]), port("d__0", "FP32", [3])]
    pair = [port("b", "FP32", [3]), port("a", "FP32", [3])]
    write_model(repository, "by_argument", Minus(), config("pytorch", pair, numbered, batch=4))
    write_model(repository, "by_number", Minus(), two("x__1", "y__0"))
    write_model(repository, "by_order", Minus(), two("b", "x"))
    sides = [port("right", "FP32", [3]), port("left", "FP32", [3])]
    write_model(repository, "dict", Taking(), config("pytorch", sides, [port("y", "FP32", [3])], batch=4))
    text = ([port("x", "STRING", [-1])], [port("y", "STRING", [-1])])
    threads = 'parameters { key: "INTRA_OP_THREAD_COUNT" value { string_value: "1" } }'
    write_model(repository, "words", Words(), config("pytorch", *text, more=threads))
    half = ([port("x", "FP16", [-1])], [port("y", "FP64", [-1])])
    write_model(repository, "wrong_type", Doubling(), config("pytorch", *half))
    scalar = config("pytorch", [port("x", "FP32", [-1])], [port("y", "FP32", [1])])
    write_model(repository, "scalar", Total(), scalar)
    stateful = config("pytorch", [port("x__0", "FP32", [1])], [port("y__0", "FP32", [1])], batch=4, more=STATE)
    write_model(repository, "stateful", Adding(), stateful)
    with serve(repository, ServeOptions(release=runtime_with_torch.release, auto_complete=False)) as found:
        yield found


def grpc_of(endpoint: Endpoint) -> str:
    assert endpoint.grpc is not None
    return endpoint.grpc


def test_a_batch_is_answered(endpoint: Endpoint) -> None:
    assert endpoint.http is not None
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    for address, protocol in ((grpc_of(endpoint), "grpc"), (endpoint.http, "http")):
        np.testing.assert_array_equal(ask(address, "merged", {"x": x}, protocol=protocol)["y"], x * 2)


def test_requests_of_different_users_share_a_run(endpoint: Endpoint) -> None:
    grpc = grpc_of(endpoint)

    def one(rows: int) -> None:
        x = np.full((rows, 4), rows, np.float32)
        np.testing.assert_array_equal(ask(grpc, "merged", {"x": x})["y"], x * 2)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, [1, 2, 3, 1, 1, 2, 1, 3]))
    with client(grpc) as (_, connection):
        counts = connection.get_inference_statistics("merged").model_stats[0]
    assert counts.execution_count < counts.inference_count


@pytest.mark.parametrize(
    ("model", "first", "second", "outputs"),
    [
        ("by_argument", "a", "b", ("d__0", "l__1")),
        ("by_number", "y__0", "x__1", ("difference", "larger")),
        ("by_order", "b", "x", ("difference", "larger")),
        ("dict", "left", "right", ("y", "")),
    ],
)
def test_names_find_their_places(
    endpoint: Endpoint, model: str, first: str, second: str, outputs: tuple[str, str]
) -> None:
    b = np.full((2, 3), B, np.float32)
    answer = ask(grpc_of(endpoint), model, {first: A, second: b})
    np.testing.assert_array_equal(answer[outputs[0]], A - b)
    if outputs[1]:
        np.testing.assert_array_equal(answer[outputs[1]], (b < A).astype(np.int64))


def test_words(endpoint: Endpoint) -> None:
    words = np.array([b"one", "zwölf".encode()], dtype=object)
    answer = ask(grpc_of(endpoint), "words", {"x": words})["y"].tolist()
    assert answer == [b"ONE", "ZWöLF".encode()], "TorchScript's upper() knows ASCII only"


@pytest.mark.parametrize(
    ("model", "x", "words"),
    [
        ("wrong_type", np.zeros(4, np.float16), "expects datatype TYPE_FP64 for output 'y', model provides TYPE_FP16"),
        ("scalar", np.zeros(4, np.float32), "output 'y' is a scalar which is not supported."),
    ],
)
def test_what_only_shows_when_it_runs(endpoint: Endpoint, model: str, x: np.ndarray, words: str) -> None:
    from tritonclient.utils import InferenceServerException

    with pytest.raises(InferenceServerException, match=re.escape(words)):
        ask(grpc_of(endpoint), model, {"x": x})


def test_a_sequence_keeps_its_state(endpoint: Endpoint) -> None:
    with client(grpc_of(endpoint)) as (module, connection):
        seen = []
        for step, value in enumerate((1.0, 2.0, 4.0)):
            tensor = module.InferInput("x__0", [1, 1], "FP32")
            tensor.set_data_from_numpy(np.array([[value]], np.float32))
            result = connection.infer(
                "stateful", [tensor], sequence_id=7, sequence_start=step == 0, sequence_end=step == 2
            )
            seen.append(float(result.as_numpy("y__0")[0, 0]))
    assert seen == [1.0, 3.0, 7.0]


X = [port("x", "FP32", [4])]
Y = [port("y", "FP32", [4])]


REFUSED: dict[str, tuple[Any, str, str]] = {
    "number": (Numbered, config("pytorch", X, Y, batch=4), "An input of type 'int' was detected in the model."),
    "state": (
        Adding,
        config("pytorch", [port("x", "FP32", [1])], [port("y__0", "FP32", [1])], batch=4, more=STATE),
        "is using sequence batching with state but not all inputs and outputs follow the <name>__<index>",
    ),
}


def test_what_the_native_backend_refuses_to_load(runtime_with_torch: Runtime, tmp_path: Path) -> None:
    import torch

    for name, (network, text, _) in REFUSED.items():
        write_model(tmp_path, name, network(), text)
    (tmp_path / "weights" / "1").mkdir(parents=True)
    torch.save({"weight": torch.ones(2)}, tmp_path / "weights" / "1" / "model.pt")
    write_config(tmp_path, "weights", config("pytorch", X, Y, batch=4))
    options = ServeOptions(release=runtime_with_torch.release, auto_complete=False)
    with pytest.raises(ServeError, match=re.escape("3 of 3 models did not load")) as caught, serve(tmp_path, options):
        pass
    reasons = {name: words for name, (_, _, words) in REFUSED.items()}
    reasons |= {"weights": "failed to load model 'weights'"}
    for name, words in reasons.items():
        (said,) = (line for line in caught.value.message.splitlines() if line.startswith(f"  {name}: "))
        assert words in said
