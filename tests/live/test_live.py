"""The live check against a real Triton."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import psutil
import pytest
from served_models import CLASSES, LINEAR, ROW, WEIGHTS, linear_requests, row_requests, write_linear, write_model
from tritonclient.utils.shared_memory import mapped_shared_memory_regions

from builder import records
from builder.compare import Gates
from builder.errors import ServeError
from builder.live import LiveResult, LiveSubject, check_live
from builder.live.records import LiveTask
from builder.live.shared_memory import check_shared_memory
from builder.runtime import Runtime
from builder.samples import Request
from builder.servers import Endpoint, ServeOptions
from builder.servers.embedded import serve
from builder.tensors import Signature, Tensor
from builder.triton_client import Client, Protocol

SAME = Signature((Tensor("x", "float32", ("batch", ROW)),), (Tensor("y", "float32", ("batch", ROW)),))
SCALAR = Signature((Tensor("a", "float32", ()),), (Tensor("b", "float32", ()), Tensor("c", "int64", ())))
TEXTS = Signature((Tensor("s", "string", ("n",)),), (Tensor("t", "string", ("n",)),))
BIG = Signature((Tensor("x", "float32", ("n",)),), (Tensor("y", "float32", ("n",)),))
HALF = Signature((Tensor("x", "float16", ("batch", ROW)),), (Tensor("y", "float16", ("batch", ROW)),))


@pytest.fixture(scope="module")
def endpoint(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    from onnx import helper

    repository = tmp_path_factory.mktemp("live") / "repository"
    node = helper.make_node
    write_linear(repository)
    batched = {"max_batch_size": 8, "config": "dynamic_batching {}\n"}
    axes = helper.make_node("Constant", [], ["axes"], value_ints=[0])
    mates = [axes, node("ReduceSum", ["x", "axes"], ["s"], keepdims=1), node("Add", ["x", "s"], ["y"])]
    write_model(repository, "mates", SAME, mates, **batched)
    write_model(repository, "log", SAME, [node("Log", ["x"], ["y"])], **batched)
    half = helper.make_node("Constant", [], ["two"], value=helper.make_tensor("two", 10, [], [2.0]))
    write_model(repository, "half", HALF, [half, node("Mul", ["x", "two"], ["y"])], **batched)
    scalar = [node("Neg", ["a"], ["b"]), node("Cast", ["a"], ["c"], to=7)]
    write_model(repository, "scalar", SCALAR, scalar)
    write_model(repository, "texts", TEXTS, [node("Identity", ["s"], ["t"])])
    write_model(repository, "reshaped", SAME, [node("Neg", ["x"], ["y"])], **batched)
    config = repository / "reshaped" / "config.pbtxt"
    square = f"dims: [2, {ROW // 2}] reshape {{ shape: [{ROW}] }}"
    config.write_text(config.read_text(encoding="utf-8").replace(f"dims: [{ROW}]", square), encoding="utf-8")
    write_model(repository, "big", BIG, [node("Identity", ["x"], ["y"])])
    with serve(repository, ServeOptions(release=runtime.record.release, auto_complete=False)) as served:
        yield served


def errors_of(result: LiveResult) -> list[str]:
    return [finding.check for finding in result.findings if finding.severity == "error"]


def test_a_right_model_passes_both_protocols_and_is_merged(endpoint: Endpoint) -> None:
    subject = LiveSubject(LINEAR, linear_requests(), batch_proven=True)
    result = check_live(endpoint, subject, Gates(), model="linear")
    assert result.findings == ()
    assert result.protocols == ("http", "grpc")
    assert result.skipped == ()
    assert 0 < result.executions < result.requests <= result.inferences
    assert sum(size * runs for size, runs in result.batches) == result.inferences
    modes = {(condition.protocol, condition.mode) for condition in result.conditions}
    crossed = {(protocol, mode) for protocol in ("http", "grpc") for mode in ("sequential", "concurrent")}
    assert modes == crossed | {("grpc", "shared memory")}
    assert {condition.rows for condition in result.conditions if condition.mode == "concurrent"} >= {1, 2, 3}
    assert all(condition.outputs[0].elements > 0 for condition in result.conditions)
    assert records.from_json(LiveResult, records.to_json(result)) == result
    assert result.seconds < 8


def test_requests_above_max_batch_size_are_split(endpoint: Endpoint) -> None:
    result = check_live(
        endpoint, LiveSubject(LINEAR, linear_requests((19, 1)), batch_proven=True), Gates(), model="linear"
    )
    assert result.findings == ()


def test_a_model_that_mixes_users_is_caught_only_by_the_crowd(endpoint: Endpoint) -> None:
    requests = row_requests(lambda x: x + x.sum(axis=0, keepdims=True), [1] * 12)
    result = check_live(endpoint, LiveSubject(SAME, requests, batch_proven=True), Gates(), model="mates")
    assert "live.accuracy.error" in errors_of(result)
    assert "only when several clients send at once" in result.findings[0].message
    assert "max_batch_size: 0" in result.findings[0].remedy
    alone = [condition for condition in result.conditions if condition.mode != "concurrent"]
    assert max(condition.outputs[0].max_relative for condition in alone) < 1e-6
    assert result.worst is not None
    assert result.worst.described in ("HTTP, 1 row, concurrent", "gRPC, 1 row, concurrent")
    assert result.worst.deviation > 0.1


def test_nan_where_the_source_has_none(endpoint: Endpoint) -> None:
    requests = row_requests(lambda x: np.log(np.abs(x)), (1, 3))
    result = check_live(endpoint, LiveSubject(SAME, requests, batch_proven=True), Gates(), model="log")
    assert "live.accuracy.nonfinite" in errors_of(result)
    assert len(set(errors_of(result))) == len(errors_of(result))


def test_wrong_dtype_name_and_number_of_ports(endpoint: Endpoint) -> None:
    wrong = Signature(LINEAR.inputs, (Tensor("y", "float64", ("batch", CLASSES)),))
    requests = tuple(
        replace(item, outputs={"y": item.outputs["y"].astype(np.float64)}) for item in linear_requests((1,))
    )
    result = check_live(endpoint, LiveSubject(wrong, requests), Gates(), model="linear")
    assert {"live.metadata", "live.accuracy.shape"} <= set(errors_of(result))
    assert "y float32" in result.findings[0].message
    assert "y float64" in result.findings[0].message


def test_wrong_answers(endpoint: Endpoint) -> None:
    result = check_live(
        endpoint, LiveSubject(LINEAR, row_requests(lambda x: x @ -WEIGHTS, (1, 2))), Gates(), model="linear"
    )
    assert {"live.accuracy.error", "live.accuracy.cosine"} == set(errors_of(result))
    assert "HTTP and gRPC" in result.findings[0].message


def test_a_model_whose_tensors_the_server_reshapes(endpoint: Endpoint) -> None:
    subject = LiveSubject(SAME, row_requests(np.negative, (1, 3, 10)), batch_proven=True)
    result = check_live(endpoint, subject, Gates(), model="reshaped")
    assert errors_of(result) == []
    assert {condition.mode for condition in result.conditions} == {"sequential", "concurrent", "shared memory"}
    assert all(condition.outputs[0].elements > 0 for condition in result.conditions)


def test_scalars_strings_and_half_floats(endpoint: Endpoint) -> None:
    scalars = tuple(
        Request(
            {"a": np.float32(value) * np.ones(())}, {"b": np.asarray(np.float32(-value)), "c": np.asarray(int(value))}
        )
        for value in (3.5, -2.0)
    )
    scalars = tuple(replace(item, inputs={"a": np.asarray(item.inputs["a"], np.float32)}) for item in scalars)
    texts = np.asarray(["espresso", "", "Käse ☕"], dtype=object)
    halves = np.random.default_rng(0).standard_normal((3, ROW)).astype(np.float16)
    cases = {
        "scalar": LiveSubject(SCALAR, scalars),
        "texts": LiveSubject(TEXTS, (Request({"s": texts}, {"t": texts}),)),
        "half": LiveSubject(HALF, (Request({"x": halves}, {"y": halves * np.float16(2)}, rows=3),), batch_proven=True),
    }
    for model, subject in cases.items():
        assert check_live(endpoint, subject, Gates(), model=model).findings == (), model


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_tensors_in_shared_memory_are_read_and_written_there(protocol: Protocol, endpoint: Endpoint) -> None:
    scales = {"y": 1.0}
    halves = np.random.default_rng(0).standard_normal((3, ROW)).astype(np.float16)
    subjects = {
        "linear": LiveSubject(LINEAR, linear_requests((19, 1, 8))),
        "half": LiveSubject(HALF, (Request({"x": halves}, {"y": halves * np.float16(2)}, rows=3),)),
    }
    for model, subject in subjects.items():
        phase, why_not = check_shared_memory(LiveTask(endpoint, subject, model, scales), protocol)
        assert (phase.findings, why_not) == ((), "")
        assert sorted(item.rows for item in phase.conditions) == sorted(item.rows for item in subject.requests)
        assert all(item.outputs[0].elements and item.outputs[0].max_relative < 1e-5 for item in phase.conditions)
    wrong = LiveSubject(LINEAR, row_requests(lambda x: x @ -WEIGHTS, (2,)))
    phase, _ = check_shared_memory(LiveTask(endpoint, wrong, "linear", scales), protocol)
    assert phase.conditions[0].outputs[0].max_relative > 0.1
    assert mapped_shared_memory_regions() == [], "nothing of this process is left"


def test_why_shared_memory_is_not_checked_is_said(endpoint: Endpoint) -> None:
    texts = np.asarray(["a"], dtype=object)
    result = check_live(endpoint, LiveSubject(TEXTS, (Request({"s": texts}, {"t": texts}),)), Gates(), model="texts")
    assert result.skipped == ("shared memory: not checked, the size of strings is not known beforehand",)
    assert result.worst is None


def test_a_skipped_protocol_is_said_and_not_passed(endpoint: Endpoint) -> None:
    subject = LiveSubject(LINEAR, linear_requests(), batch_proven=True)
    result = check_live(replace(endpoint, grpc=None), subject, Gates(), model="linear")
    assert result.protocols == ("http",)
    assert "gRPC" in result.skipped[0]
    with pytest.raises(ServeError, match="neither HTTP nor gRPC"):
        check_live(replace(endpoint, grpc=None, http=None), subject, Gates(), model="linear")


def test_an_unknown_model_is_an_error_finding(endpoint: Endpoint) -> None:
    result = check_live(endpoint, LiveSubject(LINEAR, linear_requests((1,))), Gates(), model="nobody")
    assert "live.request" in errors_of(result)
    assert result.protocols == ()


def test_large_http_bodies_are_named(endpoint: Endpoint) -> None:
    zeros = np.zeros((17 << 20,), np.float32)
    requests = (Request({"x": zeros}, {"y": zeros}),)
    result = check_live(replace(endpoint, grpc=None), LiveSubject(BIG, requests), Gates(), model="big")
    assert [finding.check for finding in result.findings] == ["live.http_body"]


def test_requests_that_cannot_be_merged_are_a_warning(endpoint: Endpoint) -> None:
    result = check_live(endpoint, LiveSubject(LINEAR, linear_requests((8, 8))), Gates(), model="linear")
    assert [(finding.severity, finding.check) for finding in result.findings] == [("warning", "live.no_merge")]
    assert result.executions == result.requests


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_bfloat16_goes_over_the_wire_as_it_is(protocol: str) -> None:
    import ml_dtypes

    values = np.asarray([1.5, -2.0], ml_dtypes.bfloat16)
    client = Client(protocol, import_module(f"tritonclient.{protocol}"), None)  # type: ignore[arg-type]
    sent = client._input(Tensor("x", "bfloat16", (2,)), values)
    assert (sent.datatype(), sent.shape()) == ("BF16", [2])


def test_no_server_is_reported_at_once(runtime: Runtime) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = Endpoint(http=f"127.0.0.1:{free.getsockname()[1]}", grpc=None, metrics=None)
    result = check_live(nobody, LiveSubject(LINEAR, linear_requests((1,))), Gates(), model="linear")
    assert errors_of(result) == ["live.request"]


def test_a_dead_model_process_is_reported_at_once(runtime: Runtime, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    write_linear(repository)
    others = model_processes()
    with serve(repository, ServeOptions(release=runtime.record.release, auto_complete=False)) as endpoint:
        subject = LiveSubject(LINEAR, linear_requests(), batch_proven=True)
        assert check_live(endpoint, subject, Gates(), model="linear").findings == ()
        for stub in model_processes() - others:
            os.kill(stub, signal.SIGKILL)
        with pytest.raises(ServeError, match="linear"):
            check_live(endpoint, subject, Gates(), model="linear")


def model_processes() -> set[int]:
    """The processes that run models for servers of this test session."""
    ours = psutil.Process().children(recursive=True)
    return {process.pid for process in ours if _is_stub(process)}


def _is_stub(process: psutil.Process) -> bool:
    return any("triton_python_backend_stub" in word for word in process.cmdline()[:1])
