"""Servers with a planted fault, each on the real Triton: the load test must name it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from served_models import LINEAR, ROW, WEIGHTS, linear_requests, row_requests, write_linear, write_model
from triton_models import config, port, write_config

from builder.cli import main
from builder.loadtest import LoadOptions, LoadResult, LoadSubject, run_load_test
from builder.runtime import Runtime
from builder.samples import Request
from builder.servers import Endpoint, ServeOptions
from builder.servers.embedded import serve
from builder.tensors import Signature, Tensor

pytestmark = [pytest.mark.live, pytest.mark.slow]

SAME = Signature((Tensor("x", "float32", ("batch", ROW)),), (Tensor("y", "float32", ("batch", ROW)),))
BIG = Signature((Tensor("x", "float32", ("n",)),), (Tensor("y", "float32", ("n",)),))
PYTHON_MODEL = """
import time
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        time.sleep(0.04)
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor("y", pb_utils.get_input_tensor_by_name(item, "x").as_numpy())])
            for item in requests
        ]
"""


@pytest.fixture(scope="module")
def endpoint(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    from onnx import helper

    node = helper.make_node
    repository = tmp_path_factory.mktemp("planted") / "repository"
    write_linear(repository)
    write_linear(repository, "waiting", config="dynamic_batching { max_queue_delay_microseconds: 60000 }\n")
    write_linear(repository, "unbatched", config="")
    axes = node("Constant", [], ["axes"], value_ints=[0])
    mates = [axes, node("ReduceSum", ["x", "axes"], ["s"], keepdims=1), node("Add", ["x", "s"], ["y"])]
    write_model(repository, "mates", SAME, mates, max_batch_size=8, config="dynamic_batching {}\n")
    write_model(repository, "log", SAME, [node("Log", ["x"], ["y"])], max_batch_size=8)
    write_model(repository, "big", BIG, [node("Identity", ["x"], ["y"])])
    sleeper = repository / "sleeper" / "1" / "model.py"
    sleeper.parent.mkdir(parents=True)
    sleeper.write_text(PYTHON_MODEL, encoding="utf-8")
    ports = [[port(name, "FP32", [ROW])] for name in ("x", "y")]
    write_config(repository, "sleeper", config("python", *ports, batch=1))
    with serve(repository, ServeOptions(release=runtime.record.release, auto_complete=False)) as served:
        yield served


def load(endpoint: Endpoint, folder: Path, subject: LoadSubject, **options: object) -> LoadResult:
    chosen = replace(LoadOptions(folder / "report", duration_s=2), **options)  # type: ignore[arg-type]
    return run_load_test(endpoint, [subject], chosen, progress=print)


def said(result: LoadResult) -> dict[str, str]:
    return {finding.check: finding.message for finding in result.diagnosis}


def test_requests_that_change_each_others_answers(endpoint: Endpoint, tmp_path: Path) -> None:
    requests = row_requests(lambda x: x + x.sum(axis=0, keepdims=True), [1] * 12)
    result = load(endpoint, tmp_path, LoadSubject("mates", requests, SAME))
    assert result.failures == 0
    # Thousands of mixtures: of more different answers than are kept, a fair sample is.
    assert 0 < result.answers.wrong <= result.answers.compared <= result.answers.seen == result.requests
    assert result.answers.compared >= min(result.answers.seen, 1000)
    assert result.answers.asked_alone >= 8
    assert result.answers.wrong_alone == 0
    assert "sent alone, the same requests are answered rightly" in said(result)["answers.wrong_when_batched"]


def test_nan_and_a_wrong_shape(endpoint: Endpoint, tmp_path: Path) -> None:
    logs = LoadSubject("log", row_requests(lambda x: np.log(np.abs(x)), [1, 2]), SAME)
    narrow = LoadSubject("linear", row_requests(lambda x: (x @ WEIGHTS)[:, :4], [1, 2]), LINEAR)
    options = LoadOptions(tmp_path / "report", users=2, duration_s=1)
    result = run_load_test(endpoint, [logs, narrow], options, progress=print)
    assert result.answers.wrong == result.answers.compared > 0
    assert result.answers.wrong_alone == result.answers.asked_alone > 0
    texts = " ".join(result.answers.texts)
    assert "NaN" in texts
    assert "10], the source gives [" in texts
    assert "answers.wrong" in said(result)


def test_a_queue_on_purpose(endpoint: Endpoint, tmp_path: Path) -> None:
    result = load(endpoint, tmp_path, LoadSubject("waiting", linear_requests((1,)), LINEAR), users=2)
    assert "max_queue_delay_microseconds is 60000" in said(result)["limit.queue_delay"]
    assert result.answers.wrong == 0


def test_a_queue_before_one_instance_that_uses_no_cpu(endpoint: Endpoint, tmp_path: Path) -> None:
    result = load(endpoint, tmp_path, LoadSubject("sleeper", row_requests(lambda x: x, [1] * 4), SAME))
    words = said(result)
    assert "its one instance is the limit" in words["limit.instances"]
    assert "limit.cpu" not in words
    assert "limit.cpu_starved" not in words
    open_load = load(endpoint, tmp_path, LoadSubject("sleeper"), rate=60.0)
    assert "the server fell behind" in said(open_load)["rate.behind"]
    assert open_load.p99_ms > 500
    assert open_load.requests + open_load.failures == 120


def test_the_highest_rate_that_holds(endpoint: Endpoint, tmp_path: Path) -> None:
    """40 ms for each request: 25 a second at most."""
    subject = LoadSubject("sleeper", row_requests(lambda x: x, [1] * 4), SAME)
    result = load(endpoint, tmp_path, subject, shape="step", limits=(("p99", 400.0),), duration_s=20)
    assert result.held_rate is not None
    assert 8 < result.held_rate < 27
    assert result.rate is not None
    assert len(result.levels) >= 3
    assert any(level.held for level in result.levels)
    assert result.p99_ms > 0


def test_a_model_that_does_not_batch(endpoint: Endpoint, tmp_path: Path) -> None:
    result = load(endpoint, tmp_path, LoadSubject("unbatched", linear_requests((1,)), LINEAR), users=12)
    assert "dynamic_batching is off" in said(result)["batching.none"]


@contextmanager
def hogs(count: int) -> Iterator[None]:
    """Programs that burn a core each, in sessions of their own: some kernels share the CPU out by session."""
    command = [sys.executable, "-c", "while True: pass"]
    busy = [subprocess.Popen(command, start_new_session=True) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def test_a_server_starved_of_cpu(endpoint: Endpoint, tmp_path: Path) -> None:
    with hogs(3 * (os.cpu_count() or 1)):
        result = load(endpoint, tmp_path, LoadSubject("linear", linear_requests(), LINEAR), duration_s=3)
    assert "other programs take" in said(result)["limit.cpu_starved"]


def test_a_server_that_stops_answering(runtime: Runtime, tmp_path: Path) -> None:
    write_linear(tmp_path / "repository")
    with serve(tmp_path / "repository", ServeOptions(release=runtime.record.release)) as endpoint:
        (server,) = [item for item in psutil.Process().children(recursive=True) if listens_at(item, endpoint)]
        stopped: list[float] = []

        def stop_once(line: str) -> None:
            if not stopped:
                stopped.append(time.monotonic())
                server.send_signal(signal.SIGSTOP)

        try:
            options = LoadOptions(tmp_path / "report", duration_s=5, users=2, request_timeout_s=1.0)
            subject = LoadSubject("linear", linear_requests(), LINEAR)
            result = run_load_test(endpoint, [subject], options, progress=stop_once)
        finally:
            server.send_signal(signal.SIGCONT)
        assert time.monotonic() - stopped[0] < 40
        assert result.requests > 0
        assert result.failures > 0
        assert "Deadline" in " ".join(result.failure_texts) or "not answered" in " ".join(result.failure_texts)


def listens_at(process: psutil.Process, endpoint: Endpoint) -> bool:
    ports = {connection.laddr.port for connection in process.net_connections("tcp")}
    return int((endpoint.http or ":0").rpartition(":")[2]) in ports and process.name() == "tritonserver"


def test_a_killed_process_of_a_model(runtime: Runtime, tmp_path: Path) -> None:
    write_linear(tmp_path / "repository")
    with serve(tmp_path / "repository", ServeOptions(release=runtime.record.release)) as endpoint:
        (server,) = [item for item in psutil.Process().children(recursive=True) if listens_at(item, endpoint)]

        def kill_stub(_: str) -> None:
            for child in server.children():
                child.kill()

        subject = LoadSubject("linear", linear_requests(), LINEAR)
        options = LoadOptions(tmp_path / "report", duration_s=20, users=2)
        result = run_load_test(endpoint, [subject], options, progress=kill_stub)
    assert "the process of model linear died" in result.ended
    assert result.duration_s < 10
    assert result.requests > 0


def test_a_body_that_newer_servers_refuse(endpoint: Endpoint, tmp_path: Path) -> None:
    x = np.ones((17 << 20,), np.float32)
    subject = LoadSubject("big", (Request({"x": x}, {"y": x}),), BIG)
    result = load(endpoint, tmp_path, subject, protocol="http", users=1, duration_s=1)
    assert result.failures == 0
    assert "68 MiB is over the 64 MiB" in said(result)["http.body"]
    assert "http.body" not in said(load(endpoint, tmp_path, subject, users=1, duration_s=1))


def certificate(folder: Path, name: str) -> tuple[str, str]:
    """For localhost, signed by itself."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    key, file = folder / f"{name}.key", folder / f"{name}.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(file)]
    subprocess.run(command, check=True, capture_output=True)
    return str(key), str(file)


def test_tls_with_the_right_and_with_a_wrong_certificate(
    runtime: Runtime, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_linear(tmp_path / "repository")
    key, file = certificate(tmp_path, "right")
    _, other = certificate(tmp_path, "other")
    arguments = ("--grpc-use-ssl=1", f"--grpc-server-cert={file}", f"--grpc-server-key={key}")
    with serve(tmp_path / "repository", ServeOptions(release=runtime.record.release, arguments=arguments)) as endpoint:
        url = f"grpcs://localhost:{(endpoint.grpc or '').rpartition(':')[2]}"
        words = [
            "loadtest",
            "--url",
            url,
            "--model",
            "linear",
            "--duration",
            "1s",
            "--report",
            str(tmp_path / "report"),
        ]
        assert main([*words, "--ca-file", file]) == 0
        started = time.monotonic()
        assert main([*words, "--ca-file", other]) == 5
        assert time.monotonic() - started < 15
    said = capfd.readouterr().err
    assert "certificate that is not trusted" in said
    assert "--ca-file" in said


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_leaves_a_report_and_nothing_else(endpoint: Endpoint, tmp_path: Path, workers: int) -> None:
    command = [sys.executable, "-m", "builder", "loadtest", "--url", f"grpc://{endpoint.grpc}", "--model", "linear"]
    command += ["--duration", "60s", "--users", "4", "--workers", str(workers), "--report", str(tmp_path), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert "requests" in process.stderr.readline()
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= workers
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=40)
    assert process.returncode == 130
    told = json.loads(output)
    assert told["ended"] == "interrupted"
    assert told["requests"] > 0
    assert told["failures"] == 0
    assert Path(told["html"]).is_file()
    assert psutil.wait_procs(family, timeout=2)[1] == []


def test_ctrl_c_before_anything_was_measured_says_so(endpoint: Endpoint, tmp_path: Path) -> None:
    earlier = tmp_path / "report" / "report.html"
    earlier.parent.mkdir()
    earlier.touch()
    command = [sys.executable, "-m", "builder", "loadtest", "--url", f"grpc://{endpoint.grpc}", "--model", "linear"]
    process = subprocess.Popen([*command, "--report", str(tmp_path / "report")], stderr=subprocess.PIPE, text=True)
    program = psutil.Process(process.pid)
    deadline = time.monotonic() + 30
    while not program.children() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=40)
    assert process.returncode == 130
    # Just before the generator is followed it says "interrupted; no report was written".
    assert said.startswith("interrupted")
    assert "no report was written" in said
    assert f"{earlier} is an earlier test's" in said
    assert not (tmp_path / "report" / "result.json").exists()


def test_a_killed_program_leaves_no_generator(endpoint: Endpoint, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "builder", "loadtest", "--url", f"grpc://{endpoint.grpc}", "--model", "linear"]
    command += ["--duration", "60s", "--users", "2", "--report", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert "requests" in process.stderr.readline()
    family = psutil.Process(process.pid).children(recursive=True)
    words = family[0].cmdline()
    scratch = Path(words[words.index("--result") + 1])
    assert scratch.is_dir()
    process.kill()
    process.communicate(timeout=20)
    assert psutil.wait_procs(family, timeout=20)[1] == []
    assert not scratch.exists()
