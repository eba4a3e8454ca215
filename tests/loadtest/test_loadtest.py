"""The load test against a real Triton."""

from __future__ import annotations

import csv
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import psutil
import pytest
import stateful_models
from served_models import LINEAR, linear_requests, write_linear, write_model
from triton_models import config, port, write_config

from builder import records
from builder.errors import ServeError, SpecError
from builder.loadtest import (
    LoadOptions,
    LoadResult,
    LoadSubject,
    judge_slo,
    parse_slo,
    run_load_test,
)
from builder.resources import resource
from builder.runtime import Runtime
from builder.samples import Request
from builder.servers import Endpoint, ServeOptions
from builder.servers.embedded import serve
from builder.servers.remote import RemoteOptions, connect
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
    write_model(repository, "whole", LINEAR, [helper.make_node("MatMul", ["x", "w"], ["y"])])
    write_model(repository, "texts", TEXTS, [helper.make_node("Identity", ["s"], ["t"])])
    stateful_models.summing(repository / "summing" / "1" / "model.onnx")
    ports = [[port(name, "FP32", [3])] for name in ("x", "y")]
    write_config(repository, "summing", config("onnxruntime", *ports, batch=8, more=STATES))
    with serve(repository, ServeOptions(release=runtime.record.release, auto_complete=False)) as served:
        yield served


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_both_protocols(endpoint: Endpoint, tmp_path: Path, protocol: str) -> None:
    told: list[str] = []
    options = LoadOptions(report=tmp_path / "report", protocol=protocol, users=4, duration_s=3)  # type: ignore[arg-type]
    started = time.monotonic()
    result = run_load_test(endpoint, [LoadSubject("linear", linear_requests(), LINEAR)], options, progress=told.append)
    assert time.monotonic() - started < 40
    assert result.requests > 20
    assert result.failures == 0
    assert result.rows_per_s > result.requests_per_s > 0
    assert result.answers.compared > 20
    assert result.answers.wrong == 0
    assert result.machine.server_cores is not None
    assert result.machine.server_cores > 0
    figures = {model.name: model for model in result.model_figures}["linear"]
    assert figures.served == pytest.approx(result.requests, rel=0.05, abs=20)
    assert sum(size * count for size, count in figures.batches) == figures.rows
    assert 0 < result.p50_ms <= result.p90_ms <= result.p95_ms <= result.p99_ms <= result.max_ms
    assert 2.9 < result.duration_s < 5
    assert result.batch_mean is not None
    assert result.batch_mean >= 1
    assert 0 < result.generator_cores < 3
    assert told
    assert "requests" in told[-1]
    for file in (result.html, result.json, *result.csv):
        assert Path(file).stat().st_size > 0
    assert {Path(file).name for file in result.csv} >= {"requests.csv", "server.csv", "load_stats.csv"}
    stats = next(Path(file) for file in result.csv if file.endswith("load_stats.csv")).read_text(encoding="utf-8")
    counted = int(stats.splitlines()[1].split(",")[2])
    assert counted == pytest.approx(result.requests, rel=0.05, abs=10)
    raw = np.genfromtxt(tmp_path / "report" / "requests.csv", delimiter=",", names=True, dtype=None, encoding="utf-8")
    assert len(raw) == result.requests
    for rank, reported in ((50, result.p50_ms), (99, result.p99_ms)):
        assert np.percentile(raw["latency_ms"], rank, method="inverted_cdf") == pytest.approx(reported, rel=0.02)
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


def test_rows_of_a_model_that_the_server_does_not_batch(endpoint: Endpoint, tmp_path: Path) -> None:
    """The server counts each of its requests as one; the mix and the report speak of the rows in it."""
    subject = LoadSubject("whole", linear_requests((1, 3)), LINEAR, rows_proven=True)
    options = LoadOptions(tmp_path / "report", users=2, duration_s=1, mix=("whole@4",))
    result = run_load_test(endpoint, [subject], options, progress=print)
    (figures,) = result.model_figures
    assert figures.row_sizes == (4, 4)
    assert [size for size, _ in figures.batches] == [4]
    assert result.batch_mean == pytest.approx(4.0)
    assert result.rows_per_s == pytest.approx(4 * result.requests_per_s)
    assert result.answers.compared > 0
    assert result.answers.wrong == 0
    for unknown, words in (
        (replace(subject, rows_proven=False), "nothing proves that rows"),
        (LoadSubject("whole"), "does not say which axis is the rows"),
    ):
        with pytest.raises(SpecError, match=words):
            run_load_test(endpoint, [unknown], options, progress=print)


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
    assert result.requests == 60
    assert result.late.planned == 60
    assert result.arrivals == "even"


def test_a_recorded_trace_is_replayed(endpoint: Endpoint, tmp_path: Path) -> None:
    """It ends with the trace; the result of a test is a trace again."""
    trace = tmp_path / "trace.csv"
    trace.write_text("arrival_s,model\n" + "".join(f"{7 + 0.02 * i},linear\n" for i in range(41)), encoding="utf-8")
    subjects = [LoadSubject("linear", linear_requests(), LINEAR), LoadSubject("texts")]
    first = run_load_test(endpoint, subjects, LoadOptions(tmp_path / "one", replay=trace), progress=print)
    assert first.requests == 41
    assert first.duration_s == pytest.approx(0.81, abs=0.5)
    assert {model.name: model.requests for model in first.model_figures} == {"linear": 41, "texts": 0}
    again = LoadOptions(tmp_path / "two", replay=Path(first.json), duration_s=0.41)
    second = run_load_test(endpoint, subjects, again, progress=print)
    assert second.requests == 21
    assert second.arrivals == "replay"


def test_a_mix_by_weight_in_a_ramp(endpoint: Endpoint, tmp_path: Path) -> None:
    mix = ("linear@8=1", "linear@1=3")
    options = LoadOptions(tmp_path, users=4, duration_s=2, mix=mix, shape="ramp", protocol="http")
    result = run_load_test(endpoint, [LoadSubject("linear", linear_requests(), LINEAR)], options, progress=print)
    assert result.failures == 0
    assert result.answers.wrong == 0 < result.answers.compared
    assert result.model_figures[0].row_sizes == (1, 8)
    assert result.rows_per_s / result.requests_per_s == pytest.approx(11 / 4, rel=0.1)


@pytest.mark.parametrize("rate", [60.0, None], ids=["open", "closed"])
def test_a_spike_is_one(endpoint: Endpoint, tmp_path: Path, rate: float | None) -> None:
    """The middle fifth at full load, the rest at a fifth of it: of the rate, or of the users."""
    options = LoadOptions(tmp_path, users=10, duration_s=5, rate=rate, shape="spike")
    result = run_load_test(endpoint, [LoadSubject("linear", linear_requests())], options, progress=print)
    assert result.failures == 0
    with (tmp_path / "requests.csv").open(encoding="utf-8") as stream:
        rows = [{name: float(row[name]) for name in ("arrival_s", "ended_s")} for row in csv.DictReader(stream)]
    began = min(row["arrival_s"] for row in rows)
    edge = 0.15
    if rate:
        inside = [row for row in rows if 2.0 <= row["arrival_s"] - began + 1 / rate < 3.0]
        assert len(inside) == pytest.approx(rate, abs=6)
        assert len(rows) - len(inside) == pytest.approx(4 * rate / 5, abs=6)
        return
    under_way = {
        "calm": most_at_once([row for row in rows if not 2.0 - edge <= row["arrival_s"] - began < 3.0 + edge]),
        "spike": most_at_once([row for row in rows if 2.0 + edge <= row["arrival_s"] - began < 3.0 - edge]),
    }
    assert under_way["calm"] <= 2
    assert under_way["spike"] > 2


def most_at_once(rows: list[dict[str, float]]) -> int:
    """Requests under way at the same time, at most."""
    changes = sorted([*((row["arrival_s"], 1) for row in rows), *((row["ended_s"], -1) for row in rows)])
    return max(itertools.accumulate(change for _, change in changes))


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
        result = run_load_test(seen, [LoadSubject("linear", linear_requests())], options, progress=kill_soon)
        assert result.requests > 0
        assert Path(result.html).is_file()
        if watched:
            assert "the embedded server ended" in result.ended
            assert result.duration_s < 6
        else:
            assert result.ended == ""
            assert result.failures > 0
            assert result.failure_texts
            assert [finding.check for finding in judge_slo(result, ())] == ["slo.errors"]
        assert time.monotonic() - started < 40


def test_the_locustfile_alone_ends_on_sigterm(endpoint: Endpoint, tmp_path: Path) -> None:
    file = tmp_path / "one.npz"
    np.savez(file, x=np.ones((11, 16), np.float32))
    command = [sys.executable, "-m", "locust", "-f", str(resource("loadtests") / "locustfile.py"), "--headless"]
    command += ["-u", "2", "-r", "2", "--host", f"grpc://{endpoint.grpc}", "--mix", "linear", "--payload", str(file)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    timer = threading.Timer(6.0, lambda: os.kill(process.pid, signal.SIGTERM))
    timer.start()
    output, _ = process.communicate(timeout=40)
    assert process.returncode == 0, output
    assert "linear" in output


RESTRICTED = "health,metadata,inference,statistics,model-config,model-repository,shared-memory:token=secret-1"


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_headers_reach_a_server_that_asks_for_them(
    protocol: Literal["grpc", "http"], workers: int, runtime: Runtime, tmp_path: Path
) -> None:
    """Every call of every user carries them: more than eight users, of whom the later ones only say hello."""
    write_linear(tmp_path / "repository")
    # Over HTTP the server is asked without any whether its models are ready, as it starts.
    open_ones = RESTRICTED.replace("health,", "").replace("model-repository,", "")
    restricted = ("--grpc-restricted-protocol", RESTRICTED, "--http-restricted-api", open_ones)
    options = ServeOptions(release=runtime.record.release, arguments=restricted)
    names = {"http": "Token", "grpc": "Triton-GRPC-Protocol-Token"}
    headers = tuple((name, "secret-1") for name in names.values())
    with serve(tmp_path / "repository", options) as own:
        url = f"{protocol}://{getattr(own, protocol)}"
        load = LoadOptions(tmp_path / "report", users=12, duration_s=2, workers=workers, protocol=protocol)
        with connect((url,), RemoteOptions(headers=headers)) as endpoint:
            result = run_load_test(endpoint, [LoadSubject("linear", linear_requests())], load, progress=print)
            assert (result.failures, result.requests > 12) == (0, True)
        # Without them it is refused: the server does ask.
        bare = replace(endpoint, headers=())
        with pytest.raises(ServeError):
            run_load_test(bare, [LoadSubject("linear", linear_requests())], load, progress=print)


def test_master_and_workers_of_their_own_processes_share_the_rate(endpoint: Endpoint, tmp_path: Path) -> None:
    """As the guide says for several machines: workers know nothing but where the master is."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = str(free.getsockname()[1])
    locust = [sys.executable, "-m", "locust", "-f", str(resource("loadtests") / "locustfile.py")]
    master = [*locust, "--master", "--expect-workers", "2", "--master-bind-port", number, "--headless"]
    master += ["-u", "4", "-r", "4", "-t", "10s", "--rate", "40", "--mix", "linear", "--csv", str(tmp_path / "all")]
    master += ["--host", f"grpc://{endpoint.grpc}"]
    worker = [*locust, "--worker", "--master-host", "127.0.0.1", "--master-port", number]
    log = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    processes = [subprocess.Popen(command, **log) for command in (master, worker, worker)]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    with (tmp_path / "all_stats.csv").open(encoding="utf-8") as file:
        (total,) = [row for row in csv.DictReader(file) if row["Name"] == "Aggregated"]
    assert int(total["Failure Count"]) == 0
    # Shared, 40 a second; each would send all of them were they not told of each other. The start takes its time too.
    assert 160 <= int(total["Request Count"]) <= 420, outputs


def test_what_only_the_server_or_a_file_shows_is_the_users_to_mend(endpoint: Endpoint, tmp_path: Path) -> None:
    """More rows than the model takes, a file that is no trace: exit 2, not the server's fault."""
    (tmp_path / "trace.csv").write_text("a,b\n0.5,x\n", encoding="utf-8")
    report = tmp_path / "report"
    for options, words in (
        (LoadOptions(report, mix=("linear@9",), duration_s=1), "takes at most 8 rows a request; the mix asks for 9"),
        (LoadOptions(report, replay=tmp_path / "trace.csv", duration_s=1), "a column"),
        (LoadOptions(report, mix=("linear@9",), duration_s=1, workers=2), "takes at most 8 rows"),
    ):
        with pytest.raises(SpecError, match=words):
            run_load_test(endpoint, [LoadSubject("linear", linear_requests())], options, progress=print)
    with pytest.raises(SpecError, match="takes at most 8 rows"):
        options = LoadOptions(report, mix=("linear@9",), duration_s=1)
        run_load_test(endpoint, [LoadSubject("linear")], options, progress=print)


def test_wrong_options_are_refused(tmp_path: Path) -> None:
    nowhere = Endpoint(None, "127.0.0.1:9", None)
    linear = [LoadSubject("linear")]
    for options in (
        LoadOptions(tmp_path, shape="wave"),
        LoadOptions(tmp_path, shape="step"),
        LoadOptions(tmp_path, shape="step", limits=(("p99", 5.0),), duration_s=3),
        LoadOptions(tmp_path, replay=tmp_path / "absent.csv"),
        LoadOptions(tmp_path, workers=0),
        LoadOptions(tmp_path, mix=("linear@x=1",)),
        LoadOptions(tmp_path, mix=("linear=0.0",)),
        LoadOptions(tmp_path, protocol="http"),
        LoadOptions(tmp_path, users=0),
        LoadOptions(tmp_path, rate=0.0),
    ):
        with pytest.raises(SpecError):
            run_load_test(nowhere, linear, options, progress=print)
    with pytest.raises(SpecError, match="no model"):
        run_load_test(nowhere, [], LoadOptions(tmp_path), progress=print)
