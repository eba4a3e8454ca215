"""The load test against a real Triton."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import stateful_models
from served_models import linear_requests, write_linear, write_model
from triton_models import config, port, write_config

from builder import records
from builder.errors import ServeError, SpecError
from builder.loadtest import (
    LoadOptions,
    LoadResult,
    LoadSubject,
    compare_baseline,
    judge_slo,
    parse_duration,
    parse_slo,
    run_load_test,
)
from builder.resources import resource
from builder.runtime import Runtime
from builder.samples import Request
from builder.servers import Endpoint, ServeOptions
from builder.servers.embedded import serve
from builder.tensors import Signature, Tensor

STATES = (
    "sequence_batching { oldest { max_candidate_sequences: 64 } state { "
    'input_name: "s" output_name: "t" data_type: TYPE_FP32 dims: [3] '
    'initial_state { name: "first" data_type: TYPE_FP32 dims: [3] zero_data: true } } }'
)
TEXTS = Signature((Tensor("s", "string", ("n",)),), (Tensor("t", "string", ("n",)),))


@pytest.fixture(scope="module")
def endpoint(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    from onnx import helper

    repository = tmp_path_factory.mktemp("load") / "repository"
    write_linear(repository)
    write_model(repository, "texts", TEXTS, [helper.make_node("Identity", ["s"], ["t"])])
    stateful_models.summing(repository / "summing" / "1" / "model.onnx")
    ports = [[port(name, "FP32", [3])] for name in ("x", "y")]
    write_config(repository, "summing", config("onnxruntime", *ports, batch=8, more=STATES))
    with serve(repository, ServeOptions(release=runtime.record.release, auto_complete=False)) as served:
        yield served


@pytest.fixture
def result() -> LoadResult:
    return LoadResult(
        models=("linear",), protocol="grpc", users=8, rate=None, duration_s=3.0, requests=300, failures=0,
        requests_per_s=100.0, rows_per_s=200.0, mean_ms=9.0, p50_ms=8.0, p90_ms=12.0, p95_ms=14.0, p99_ms=20.0,
        max_ms=31.0, failure_texts=(), batch_mean=3.0, queue_ms=1.0, compute_ms=2.0, generator_cores=0.5,
        machine_cores=2, notes=(), html="load.html", csv=(), json="load.json",
    )  # fmt: skip


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_both_protocols(endpoint: Endpoint, tmp_path: Path, protocol: str) -> None:
    told: list[str] = []
    options = LoadOptions(report=tmp_path / "report", protocol=protocol, users=4, duration_s=3)  # type: ignore[arg-type]
    started = time.monotonic()
    result = run_load_test(endpoint, [LoadSubject("linear", linear_requests())], options, progress=told.append)
    assert time.monotonic() - started < 40
    assert result.requests > 20
    assert result.failures == 0
    assert result.rows_per_s > result.requests_per_s > 0
    assert 0 < result.p50_ms <= result.p90_ms <= result.p95_ms <= result.p99_ms <= result.max_ms
    assert 2.9 < result.duration_s < 5
    assert result.batch_mean is not None
    assert result.batch_mean >= 1
    assert 0 < result.generator_cores < 3
    assert told
    assert "requests" in told[-1]
    for file in (result.html, result.json, *result.csv):
        assert Path(file).stat().st_size > 0
    assert len(result.csv) == 4
    stats = next(Path(file) for file in result.csv if file.endswith("load_stats.csv")).read_text(encoding="utf-8")
    counted = int(stats.splitlines()[1].split(",")[2])
    assert counted == pytest.approx(result.requests, rel=0.05, abs=10)
    assert records.read_record(LoadResult, tmp_path / "report" / "result.json") == result
    assert judge_slo(result, parse_slo("p99=10s,errors=0%,rps=1")) == ()
    assert [finding.check for finding in judge_slo(result, parse_slo("p99=1us"))] == ["slo.p99"]


def test_several_models_without_samples(endpoint: Endpoint, tmp_path: Path) -> None:
    texts = np.asarray(["a", "Käse"], dtype=object)
    subjects = [LoadSubject("linear"), LoadSubject("texts", (Request({"s": texts}, {"t": texts}),))]
    result = run_load_test(endpoint, subjects, LoadOptions(tmp_path, users=2, duration_s=1), progress=print)
    assert result.requests > 0
    assert result.failures == 0
    assert result.models == ("linear", "texts")


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_sequences_are_sent_whole(endpoint: Endpoint, tmp_path: Path, protocol: str) -> None:
    """A step without its sequence's first one is refused by Triton, and would be a failure here."""
    options = LoadOptions(report=tmp_path, protocol=protocol, users=3, duration_s=1)  # type: ignore[arg-type]
    for requests in (stateful_models.sum_steps((4, 2, 6)), ()):
        result = run_load_test(endpoint, [LoadSubject("summing", requests)], options, progress=print)
        assert result.requests > 10
        assert result.failures == 0


def test_a_fixed_rate_is_kept(endpoint: Endpoint, tmp_path: Path) -> None:
    options = LoadOptions(tmp_path, users=4, duration_s=3, rate=20)
    result = run_load_test(endpoint, [LoadSubject("linear", linear_requests())], options, progress=print)
    assert result.requests == pytest.approx(60, abs=8)


def test_an_unknown_model_and_an_absent_server_are_no_results(endpoint: Endpoint, tmp_path: Path) -> None:
    options = LoadOptions(tmp_path, users=2, duration_s=1)
    with pytest.raises(ServeError, match="nobody"):
        run_load_test(endpoint, [LoadSubject("nobody")], options, progress=print)
    with pytest.raises(ServeError, match="could not start"):
        run_load_test(Endpoint(None, "127.0.0.1:9", None), [LoadSubject("linear")], options, progress=print)


@pytest.mark.parametrize("watched", [True, False], ids=["watched", "remote"])
def test_a_server_that_dies_is_reported(runtime: Runtime, tmp_path: Path, watched: bool) -> None:
    repository = tmp_path / "repository"
    write_linear(repository)
    before = set(psutil.Process().children(recursive=True))
    with serve(repository, ServeOptions(release=runtime.record.release, auto_complete=False)) as endpoint:
        servers = [
            process
            for process in psutil.Process().children(recursive=True)
            if process not in before and process.name() == "tritonserver"
        ]
        assert len(servers) == 1
        options = LoadOptions(tmp_path / "report", protocol="http", users=2, duration_s=6)
        seen = endpoint if watched else replace(endpoint, alive=lambda: None)

        def kill_soon(line: str) -> None:
            if servers and "requests" in line:
                servers.pop().send_signal(signal.SIGKILL)

        started = time.monotonic()
        if watched:
            with pytest.raises(ServeError):
                run_load_test(seen, [LoadSubject("linear", linear_requests())], options, progress=kill_soon)
        else:
            result = run_load_test(seen, [LoadSubject("linear", linear_requests())], options, progress=kill_soon)
            assert result.failures > 0
            assert result.failure_texts
            assert [finding.check for finding in judge_slo(result, ())] == ["slo.errors"]
        assert time.monotonic() - started < 40


def test_the_locustfile_alone_ends_on_sigterm(endpoint: Endpoint, tmp_path: Path) -> None:
    file = tmp_path / "one.npz"
    np.savez(file, x=np.ones((11, 16), np.float32))
    command = [sys.executable, "-m", "locust", "-f", str(resource("loadtests") / "locustfile.py"), "--headless"]
    command += ["-u", "2", "-r", "2", "--host", f"grpc://{endpoint.grpc}", "--model", "linear", "--payload", str(file)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    timer = threading.Timer(6.0, lambda: os.kill(process.pid, signal.SIGTERM))
    timer.start()
    output, _ = process.communicate(timeout=40)
    assert process.returncode == 0, output
    assert "linear" in output


def test_wrong_options_are_refused(tmp_path: Path) -> None:
    nowhere = Endpoint(None, "127.0.0.1:9", None)
    linear = [LoadSubject("linear")]
    for options in (
        LoadOptions(tmp_path, shape="spike"),
        LoadOptions(tmp_path, protocol="http"),
        LoadOptions(tmp_path, users=0),
        LoadOptions(tmp_path, rate=0.0),
    ):
        with pytest.raises(SpecError):
            run_load_test(nowhere, linear, options, progress=print)
    with pytest.raises(SpecError, match="no model"):
        run_load_test(nowhere, [], LoadOptions(tmp_path), progress=print)


def test_parse_slo() -> None:
    terms = parse_slo("p99=50ms, p50=0.5s,max=900us,errors=0.1%,rps=100")
    assert [(term.quantity, term.limit) for term in terms] == [
        ("p99", 50.0),
        ("p50", 500.0),
        ("max", pytest.approx(0.9)),
        ("errors", 0.1),
        ("rps", 100.0),
    ]
    assert parse_slo("") == ()


@pytest.mark.parametrize(
    "text", ["p99", "p99=50", "p98=5ms", "errors=1", "rps=10/s", "p99=-1ms", "=", "p99=50ms;errors=0%"]
)
def test_parse_slo_says_the_right_form(text: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_slo(text)
    assert "p99=50ms,errors=0%" in caught.value.remedy


def test_parse_duration() -> None:
    assert [parse_duration(text) for text in ("30s", "2m", "500ms", "1.5s")] == [30.0, 120.0, 0.5, 1.5]
    for text in ("", "30", "0s", "-1s", "s", "1d"):
        with pytest.raises(SpecError):
            parse_duration(text)


def test_judge_slo(result: LoadResult) -> None:
    assert judge_slo(result, parse_slo("p50=8ms,p90=12ms,p99=20ms,max=31ms,rps=100,errors=0%")) == ()
    assert [item.check for item in judge_slo(result, parse_slo("p50=7ms,p99=20ms,rps=101"))] == ["slo.p50", "slo.rps"]
    failing = replace(result, failures=3, failure_texts=("3 x refused",))
    assert [item.check for item in judge_slo(failing, ())] == ["slo.errors"]
    assert "refused" in judge_slo(failing, ())[0].message
    assert judge_slo(failing, parse_slo("errors=1%")) == ()


def test_compare_baseline(result: LoadResult, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    records.write_record(file, result)
    assert compare_baseline(replace(result, p99_ms=21.9, requests_per_s=91.0), file) == ()
    worse = compare_baseline(replace(result, p99_ms=22.1, requests_per_s=89.0), file)
    assert [(item.severity, item.check) for item in worse] == [("error", "baseline.p99"), ("error", "baseline.rps")]
    other = compare_baseline(replace(result, users=9), file)
    assert [(item.severity, item.check) for item in other] == [("warning", "baseline.setting")]
    file.write_text("{}", encoding="utf-8")
    with pytest.raises(SpecError, match="baseline"):
        compare_baseline(result, file)
