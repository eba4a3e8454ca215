"""The Python-based backends inside the embedded server, asked through tritonclient."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from triton_models import (
    FLOAT,
    ask,
    client,
    config,
    doubling,
    doubling_config,
    onnx_bytes,
    port,
    write_onnx,
    write_openvino,
)

from builder.errors import ServeError
from builder.runtime import Runtime
from builder.servers import Endpoint, ServeOptions
from builder.servers.embedded import serve

STRING = TensorProto.STRING
MERGING = "dynamic_batching { max_queue_delay_microseconds: 200000 }"
PROTOCOLS = ("http", "grpc")


def two_by_two() -> object:
    """Two inputs, three outputs of different types."""
    nodes = [
        helper.make_node("Add", ["a", "b"], ["total"]),
        helper.make_node("Sub", ["a", "b"], ["difference"]),
        helper.make_node("Greater", ["a", "b"], ["larger"]),
    ]
    rows: list[int | str] = ["n", 3]
    outputs = [("total", FLOAT, rows), ("difference", FLOAT, rows), ("larger", TensorProto.BOOL, rows)]
    return onnx_bytes(nodes, [("a", FLOAT, rows), ("b", FLOAT, rows)], outputs)


def identity(kind: int, shape: list[int | str]) -> object:
    """y = x."""
    return onnx_bytes([helper.make_node("Identity", ["x"], ["y"])], [("x", kind, shape)], [("y", kind, shape)])


def write_repository(repository: Path) -> None:
    """Every kind of model that must be served, full configurations."""
    one = ([port("x", "FP32", [1])], [port("y", "FP32", [1])])
    write_onnx(repository, "merged", doubling(), doubling_config("onnxruntime", more=MERGING))
    pair = [port("a", "FP32", [3]), port("b", "FP32", [3])]
    three = [port("larger", "BOOL", [3]), port("total", "FP32", [3]), port("difference", "FP32", [3])]
    write_onnx(repository, "pair", two_by_two(), config("onnxruntime", pair, three, batch=4))
    text = ([port("x", "STRING", [2])], [port("y", "STRING", [2])])
    write_onnx(repository, "text", identity(STRING, ["n", 2]), config("onnxruntime", *text, batch=4))
    whole = ([port("x", "STRING", [-1])], [port("y", "STRING", [-1])])
    write_onnx(repository, "text_whole", identity(STRING, ["n"]), config("onnxruntime", *whole))
    write_onnx(
        repository,
        "no_batch",
        doubling(3),
        config("onnxruntime", [port("x", "FP32", [3, 4])], [port("y", "FP32", [3, 4])]),
    )
    write_onnx(repository, "rank_0", identity(FLOAT, []), config("onnxruntime", *one))
    scalars = [port(name, "FP32", [1], "reshape { shape: [] }") for name in "xy"]
    write_onnx(
        repository, "row_scalars", identity(FLOAT, ["n"]), config("onnxruntime", *[[p] for p in scalars], batch=4)
    )
    squares = [port(name, "FP32", [4], "reshape { shape: [2, 2] }") for name in "xy"]
    write_onnx(
        repository, "reshaped", identity(FLOAT, ["n", 2, 2]), config("onnxruntime", *[[p] for p in squares], batch=4)
    )
    halves = ([port("x", "FP16", [-1])], [port("y", "FP16", [-1])])
    write_onnx(repository, "half", identity(TensorProto.FLOAT16, ["n"]), config("onnxruntime", *halves))
    write_onnx(repository, "folder", doubling(), doubling_config("onnxruntime"), file="model.onnx/model.onnx")
    other = doubling_config("onnxruntime", more='default_model_filename: "net.onnx"')
    write_onnx(repository, "other_file", doubling(), other, file="net.onnx")
    tuned = "".join(
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
        for key, value in (("intra_op_thread_count", "1"), ("inter_op_thread_count", "1"), ("execution_mode", "1"))
    )
    write_onnx(
        repository,
        "tuned",
        doubling(),
        doubling_config("onnxruntime", more=tuned + "optimization { graph { level: 1 } }"),
    )
    by_platform = doubling_config("onnxruntime").replace('backend: "onnxruntime"', 'platform: "onnxruntime_onnx"')
    write_onnx(repository, "by_platform", doubling(), by_platform)
    padded = 'parameters { key: "ENABLE_BATCH_PADDING" value { string_value: "YES" } }'
    write_openvino(repository, "ov_padded", doubling(), doubling_config("openvino", batch=4, more=padded))
    write_openvino(repository, "ov", doubling(), doubling_config("openvino", batch=0))
    write_openvino(repository, "ov_one", doubling(), doubling_config("openvino", batch=1))
    write_openvino(repository, "ov_four", doubling(), doubling_config("openvino", batch=4))
    write_openvino(
        repository,
        "ov_pair",
        two_by_two(),
        config(
            "openvino",
            [port("b", "FP32", [-1, 3]), port("a", "FP32", [-1, 3])],
            [port("difference", "FP32", [-1, 3]), port("larger", "BOOL", [-1, 3])],
        ),
    )


@pytest.fixture(scope="module")
def endpoint(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """One server for the whole module, auto-complete off."""
    repository = tmp_path_factory.mktemp("repository")
    write_repository(repository)
    with serve(repository, ServeOptions(release=runtime.release, auto_complete=False)) as endpoint:
        yield endpoint


def address(endpoint: Endpoint, protocol: str) -> str:
    found = endpoint.http if protocol == "http" else endpoint.grpc
    assert found is not None
    return found


def rows(count: int, width: int = 4) -> np.ndarray:
    return np.arange(count * width, dtype=np.float32).reshape(count, width) - 3


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("model", ["merged", "folder", "other_file", "tuned", "by_platform", "ov", "ov_padded"])
def test_a_batch_is_answered(endpoint: Endpoint, model: str, protocol: str) -> None:
    answer = ask(address(endpoint, protocol), model, {"x": rows(3)}, protocol=protocol)
    np.testing.assert_array_equal(answer["y"], rows(3) * 2)


def test_requests_of_different_users_share_a_run(endpoint: Endpoint) -> None:
    grpc = address(endpoint, "grpc")
    sizes = [1, 2, 3, 1, 2, 1, 3, 1]
    before = statistics(grpc, "merged")

    def one(place: int) -> bool:
        x = rows(sizes[place]) + 100 * place
        return np.array_equal(ask(grpc, "merged", {"x": x})["y"], x * 2)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(8)))
    after = statistics(grpc, "merged")
    assert after[0] - before[0] == sum(sizes)
    assert after[1] - before[1] < len(sizes)


def statistics(grpc: str, model: str) -> tuple[int, int]:
    """Inferences and executions so far."""
    with client(grpc) as (_, connection):
        found = connection.get_inference_statistics(model).model_stats[0]
    return found.inference_count, found.execution_count


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_several_inputs_and_outputs_in_any_order(endpoint: Endpoint, protocol: str) -> None:
    a, b = rows(2, 3), rows(2, 3)[::-1].copy()
    answer = ask(address(endpoint, protocol), "pair", {"b": b, "a": a}, protocol=protocol)
    np.testing.assert_array_equal(answer["total"], a + b)
    np.testing.assert_array_equal(answer["difference"], a - b)
    np.testing.assert_array_equal(answer["larger"], a > b)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_only_the_outputs_asked_for_are_answered(endpoint: Endpoint, protocol: str) -> None:
    a, b = rows(2, 3), rows(2, 3) * 2
    answer = ask(address(endpoint, protocol), "pair", {"a": a, "b": b}, ["difference"], protocol=protocol)
    assert list(answer) == ["difference"]
    np.testing.assert_array_equal(answer["difference"], a - b)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(("model", "shape"), [("text", (3, 2)), ("text_whole", (6,))])
def test_strings_come_back_as_they_went(endpoint: Endpoint, model: str, shape: tuple[int, ...], protocol: str) -> None:
    words = np.array(["a", "", "Grüße", "日本", "x" * 3000, "é"], dtype=object).reshape(shape)
    sent = np.array([word.encode() for word in words.ravel()], dtype=object).reshape(shape)
    answer = ask(address(endpoint, protocol), model, {"x": sent}, protocol=protocol)
    assert answer["y"].shape == shape
    assert [word.decode() for word in answer["y"].ravel()] == list(words.ravel())


def test_text_that_is_no_utf_8_fails_its_request_only(endpoint: Endpoint) -> None:
    grpc = address(endpoint, "grpc")
    with pytest.raises(Exception, match="utf-8"):
        ask(grpc, "text_whole", {"x": np.array([b"\xff\xfe"], dtype=object)})
    assert ask(grpc, "text_whole", {"x": np.array([b"fine"], dtype=object)})["y"][0] == b"fine"


@pytest.mark.parametrize(
    ("model", "array", "expected"),
    [
        ("no_batch", rows(3), rows(3) * 2),
        ("rank_0", np.array([2.5], np.float32), np.array([2.5], np.float32)),
        ("row_scalars", np.array([[1], [2], [3]], np.float32), np.array([[1], [2], [3]], np.float32)),
        ("reshaped", rows(2), rows(2)),
        ("half", np.array([1.5, -2], np.float16), np.array([1.5, -2], np.float16)),
        ("ov_one", rows(1), rows(1) * 2),
        ("ov_four", rows(4), rows(4) * 2),
    ],
)
def test_shapes_and_types(endpoint: Endpoint, model: str, array: np.ndarray, expected: np.ndarray) -> None:
    answer = ask(address(endpoint, "grpc"), model, {"x": array})["y"]
    assert answer.dtype == expected.dtype
    assert answer.shape == expected.shape
    np.testing.assert_array_equal(answer, expected)


def test_openvino_takes_its_inputs_by_name_and_answers_what_the_configuration_lists(endpoint: Endpoint) -> None:
    a, b = rows(5, 3), rows(5, 3)[::-1].copy()
    answer = ask(address(endpoint, "http"), "ov_pair", {"a": a, "b": b}, protocol="http")
    assert sorted(answer) == ["difference", "larger"]
    np.testing.assert_array_equal(answer["difference"], a - b)
    np.testing.assert_array_equal(answer["larger"], a > b)


def test_openvino_with_a_batch_refuses_other_sizes_as_the_native_backend_does(endpoint: Endpoint) -> None:
    with pytest.raises(Exception, match=r"expected requests with batch size '4', got '3'.*ENABLE_BATCH_PADDING"):
        ask(address(endpoint, "grpc"), "ov_four", {"x": rows(3)})


def test_every_model_is_still_alive(endpoint: Endpoint) -> None:
    endpoint.alive()


def test_without_configuration_the_models_are_completed_by_the_native_rules(runtime: Runtime, tmp_path: Path) -> None:
    write_onnx(tmp_path, "batches", doubling(), "")
    write_onnx(tmp_path, "fixed", doubling(3), "")
    write_onnx(tmp_path, "scalar", identity(FLOAT, []), "")
    write_openvino(tmp_path, "ir", doubling(3), "")
    with serve(tmp_path, ServeOptions(release=runtime.release)) as endpoint:
        with client(address(endpoint, "http"), "http") as (_, connection):
            found = {name: connection.get_model_config(name) for name in ("batches", "fixed", "scalar", "ir")}
        np.testing.assert_array_equal(ask(address(endpoint, "grpc"), "batches", {"x": rows(2)})["y"], rows(2) * 2)
        np.testing.assert_array_equal(ask(address(endpoint, "grpc"), "ir", {"x": rows(3)})["y"], rows(3) * 2)
    assert (found["batches"]["max_batch_size"], found["batches"]["input"][0]["dims"]) == (4, [4])
    assert "dynamic_batching" in found["batches"]
    assert (found["fixed"]["max_batch_size"], found["fixed"]["output"][0]["dims"]) == (0, [3, 4])
    assert found["scalar"]["input"][0]["dims"] == [1]
    assert (found["ir"]["max_batch_size"], found["ir"]["input"][0]["dims"]) == (0, [3, 4])


NATIVE_TEXTS = (
    ("onnxruntime", "FP32", [5], r"the model expects 2 dimensions \(shape \[-1,4\]\)"),
    ("onnxruntime", "FP16", [4], "configuration expects datatype TYPE_FP16 for input 'x'"),
    ("openvino", "FP32", [-1, 5], "the model expects 2 dimensions"),
)


@pytest.mark.parametrize("case", NATIVE_TEXTS)
def test_what_the_native_backend_refuses_is_refused_in_its_words(
    runtime: Runtime, tmp_path: Path, case: tuple[str, str, list[int], str]
) -> None:
    backend, kind, dims, text = case
    batch = 8 if len(dims) == 1 else 0
    wrong = config(backend, [port("x", kind, dims)], [port("y", "FP32", [4] if batch else [-1, 4])], batch=batch)
    (write_onnx if backend == "onnxruntime" else write_openvino)(tmp_path, "wrong", doubling(), wrong)
    options = ServeOptions(release=runtime.release, auto_complete=False)
    with pytest.raises(ServeError, match=text), serve(tmp_path, options):
        pass
