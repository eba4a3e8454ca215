"""The Docker engine: start, reasons, ports, images, death and what stays behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import ROOT, assert_refused, environment, run, start
from docker_images import containers, docker, shared_memory
from image_registry import registry
from onnx import helper
from small_graphs import signature, write_graph
from triton_models import (
    ask,
    config,
    doubling,
    doubling_config,
    port,
    wait_until,
    write_config,
    write_onnx,
    write_openvino,
)

from builder.errors import MachineError, ServeError
from builder.loadtest import LoadOptions, LoadSubject, run_load_test
from builder.loadtest.server_processes import server_pids
from builder.log import get_logger
from builder.samples import Request
from builder.servers import ServeOptions, docker_pull, server_module
from builder.servers.docker import _run, serve
from builder.servers.docker_engine import connect, gpu_problem
from builder.servers.docker_images import choose_image
from builder.servers.needs import Needs
from builder.servers.remote import RemoteOptions
from builder.servers.remote import connect as connect_remote
from builder.servers.server_state import stubs_of

pytestmark = [pytest.mark.docker, pytest.mark.slow]
X = np.ones((2, 4), np.float32)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of each backend."""
    folder = tmp_path_factory.mktemp("models") / "repository"
    write_onnx(folder, "double", doubling(), doubling_config("onnxruntime", more="dynamic_batching {}"))
    write_openvino(folder, "open", doubling(), doubling_config("openvino", batch=0))
    return folder


@pytest.fixture
def options(slim_image: str) -> ServeOptions:
    """Auto-complete off, as for the repositories of this tool."""
    return ServeOptions(release="26.07", image=slim_image, auto_complete=False)


@pytest.fixture(autouse=True)
def nothing_left(slim_image: str) -> Iterator[None]:
    """Whatever a test does, no container of this process stays."""
    yield
    assert not containers()


def listens(address: str) -> bool:
    host, _, number = address.partition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(number))) == 0


def gone(child: subprocess.Popen[str]) -> bool:
    """No container of the process stays, after a moment for the guard."""
    return wait_until(lambda: not containers(child.pid), limit_s=8)


def serving(repository: Path, image: str, cwd: Path, *more: str) -> tuple[subprocess.Popen[str], dict[str, str]]:
    """`build-repo serve` in its own process, ready, and its addresses."""
    ports = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")
    child = start("serve", repository, "--engine", "docker", "--image", image, *ports, *more, cwd=cwd)
    assert child.stdout is not None
    line = child.stdout.readline()
    assert line.startswith("ready "), child.communicate()
    return child, dict(word.split("=", 1) for word in line.split()[1:])


def test_both_backends_are_served_over_both_protocols_with_metrics(repository: Path, options: ServeOptions) -> None:
    import urllib.request

    with serve(repository, options) as endpoint:
        assert endpoint.http
        assert endpoint.grpc
        for model in ("double", "open"):
            for protocol, address in (("http", endpoint.http), ("grpc", endpoint.grpc)):
                np.testing.assert_array_equal(ask(address, model, {"x": X}, protocol=protocol)["y"], X * 2)
        with urllib.request.urlopen(f"http://{endpoint.metrics}/metrics") as answer:
            assert 'nv_inference_count{model="double"' in answer.read().decode()
        endpoint.alive()
        assert server_pids(endpoint) == (endpoint.pid,)
    assert not listens(endpoint.http)
    assert server_module("docker").serve is serve


def test_the_container_has_no_more_rights_than_it_needs(repository: Path, options: ServeOptions) -> None:
    with serve(repository, options):
        (name,) = containers()
        (found,) = json.loads(docker("inspect", name))
    settings = found["HostConfig"]
    (mount,) = found["Mounts"]
    assert (mount["Destination"], mount["RW"]) == ("/models", False)
    assert found["Config"]["User"] not in ("", "0", "root", "0:0")
    assert settings["CapDrop"] == ["ALL"]
    assert settings["SecurityOpt"] == ["no-new-privileges"]
    assert {bound[0]["HostIp"] for bound in settings["PortBindings"].values()} == {"127.0.0.1"}
    assert settings["ShmSize"] == 1 << 30
    assert not settings["Privileged"]
    assert not settings["DeviceRequests"]
    assert "--model-control-mode=none" in found["Config"]["Cmd"]
    assert "--disable-auto-complete-config" in found["Config"]["Cmd"]


def test_a_model_that_does_not_load_is_named_with_its_reason(tmp_path: Path, options: ServeOptions) -> None:
    write_onnx(tmp_path / "r", "good", doubling(), doubling_config("onnxruntime"))
    bad = write_onnx(tmp_path / "r", "garbage", doubling(), doubling_config("onnxruntime")) / "1" / "model.onnx"
    bad.write_bytes(b"no model")
    with pytest.raises(ServeError) as caught, serve(tmp_path / "r", options):
        pass
    assert "1 of 2 models did not load:\n  garbage: " in str(caught.value)
    assert "Protobuf parsing failed" in str(caught.value)


def test_a_server_that_ends_is_reported_with_its_own_log(repository: Path, options: ServeOptions) -> None:
    wrong = ServeOptions(options.release, image=options.image, arguments=("--no-such-word",))
    with pytest.raises(ServeError, match="the container ended with") as caught, serve(repository, wrong):
        pass
    assert "unrecognized option" in str(caught.value)


def test_an_image_without_a_server_is_named(repository: Path, options: ServeOptions, tmp_path: Path) -> None:
    image, empty = "build-repo/empty:test", tmp_path / "empty.tar"
    with tarfile.open(empty, "w"):
        pass
    docker("import", str(empty), image)
    try:
        with (
            pytest.raises(MachineError, match="the image has no tritonserver") as caught,
            serve(repository, replace(options, image=image)),
        ):
            pass
    finally:
        docker("rmi", image)
    assert "--image" in str(caught.value.remedy)


def test_the_end_of_a_running_server_is_noticed(repository: Path, options: ServeOptions) -> None:
    with serve(repository, options) as endpoint:
        (name,) = containers()
        docker("kill", name)
        with pytest.raises(ServeError, match="the container ended with 137"):
            endpoint.alive()
        docker("rm", "-f", name)
        with pytest.raises(ServeError):
            endpoint.alive()


def test_the_end_of_all_its_processes_is_the_containers(repository: Path, options: ServeOptions) -> None:
    """The engine is the last to know; until then it looks as if only the models had died."""
    with serve(repository, options) as endpoint:
        (name,) = containers()
        docker("pause", name)
        with pytest.raises(ServeError, match="the container is paused"):
            endpoint.alive()
        docker("unpause", name)
        endpoint.alive()
        assert endpoint.pid is not None
        os.kill(endpoint.pid, signal.SIGKILL)
        with pytest.raises(ServeError, match="the container ended with 137"):
            wait_until(lambda: bool(endpoint.alive()), limit_s=5)


def test_the_death_of_one_models_process_is_noticed(repository: Path, options: ServeOptions) -> None:
    with serve(repository, options) as endpoint:
        endpoint.alive()
        (name,) = containers()
        (found,) = json.loads(docker("inspect", name))
        stub = next(stub for stub in stubs_of(found["State"]["Pid"]) if stub.model == "open")
        os.kill(stub.pid, signal.SIGKILL)
        with pytest.raises(ServeError, match="the process of model open died"):
            wait_until(lambda: bool(endpoint.alive()), limit_s=5)


def test_a_container_that_is_starved_of_cpu_is_the_load_tests_finding(
    repository: Path, options: ServeOptions, tmp_path: Path
) -> None:
    """As an orchestrator limits it, while it runs."""
    requests = tuple(Request({"x": np.full((1, 4), value, np.float32)}, {}, 1) for value in range(8))
    with serve(repository, options) as endpoint:
        (name,) = containers()
        docker("update", "--cpu-period", "100000", "--cpu-quota", "20000", name)
        load = LoadOptions(tmp_path / "report", users=4, duration_s=3)
        result = run_load_test(endpoint, [LoadSubject("double", requests)], load, progress=print)
    assert result.machine.server_allowed == pytest.approx(0.2)
    said = {finding.check: finding.message for finding in result.diagnosis}
    assert "the server is starved of CPU: it may use 0.20 of" in said["limit.cpu_starved"]


@pytest.mark.parametrize(
    ("rate", "words"),
    [(None, "it may use 0.20 of"), (1.0, "of the 0.20 cores that it may, but that limit held its threads back for")],
    ids=["always", "in bursts"],
)
def test_so_it_is_by_its_address(slim_image: str, tmp_path: Path, rate: float | None, words: str) -> None:
    """A container that somebody else started: nobody says which process it is."""
    size, repository = 2048, tmp_path / "repository"
    work = [helper.make_node("MatMul", [f"h{place}" if place else "x", "w"], [f"h{place + 1}"]) for place in range(24)]
    ports = signature(["x:float32:n,2048"], ["h24:float32:n,2048"])
    write_graph(repository / "work" / "1" / "model.onnx", ports, work, {"w": np.eye(size, dtype=np.float32)})
    sides = [[port(name, "FP32", [size])] for name in ("x", "h24")]
    write_config(repository, "work", config("onnxruntime", *sides, batch=8))
    requests = tuple(Request({"x": np.full((1, size), value, np.float32)}, {}, 1) for value in range(8))
    options = ServeOptions(release="26.07", image=slim_image, auto_complete=False)
    with serve(repository, options) as started:
        docker("update", "--cpu-period", "100000", "--cpu-quota", "20000", *containers())
        with connect_remote((f"grpc://{started.grpc}",), RemoteOptions()) as endpoint:
            assert endpoint.pid is None
            load = LoadOptions(tmp_path / "report", users=4, rate=rate, duration_s=5)
            result = run_load_test(endpoint, [LoadSubject("work", requests)], load, progress=print)
    said = {finding.check: finding.message for finding in result.diagnosis}
    assert result.machine.server_held_back > 0
    # Where other programs take the CPU meanwhile, they may be named instead; or runs are long enough to use it up.
    other = ("other programs take", "it may use 0.20 of")
    assert any(text in said.get("limit.cpu_starved", "") for text in (words, *other)), (said, result.machine)


def test_every_address_of_the_machine_when_asked(repository: Path, options: ServeOptions) -> None:
    with serve(repository, replace(options, host="0.0.0.0")) as endpoint:
        assert str(endpoint.http).startswith("0.0.0.0:")
        (name,) = containers()
        (found,) = json.loads(docker("inspect", name))
        assert {bound[0]["HostIp"] for bound in found["HostConfig"]["PortBindings"].values()} == {"0.0.0.0"}


def test_a_gpu_that_the_engine_cannot_give(slim_image: str) -> None:
    from docker.types import DeviceRequest

    with connect() as client:
        if not gpu_problem(client):
            pytest.skip("this machine has a GPU")
        wanted = {"image": slim_image, "device_requests": [DeviceRequest(count=-1, capabilities=[["gpu"]])]}
        try:
            with pytest.raises(MachineError, match="cannot give the container a GPU") as caught:
                _run(client, "build-repo-test-gpu", wanted)
        finally:
            client.api.remove_container("build-repo-test-gpu", force=True)
    assert "nvidia-container-toolkit" in caught.value.remedy


def test_a_taken_port_is_named(repository: Path, options: ServeOptions) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        number = taken.getsockname()[1]
        wanted = ServeOptions(options.release, image=options.image, http_port=number)
        with pytest.raises(MachineError, match=f"http port {number}"), serve(repository, wanted):
            pass


def test_an_image_that_nobody_has(repository: Path, tmp_path: Path) -> None:
    image = "127.0.0.1:9/nobody/has:this"
    ran = run("serve", repository, "--engine", "docker", "--image", image, cwd=tmp_path)
    assert_refused(ran, 4, f"image {image} is not on this machine and cannot be pulled", "docker pull")


def test_an_image_is_pulled_and_one_sees_it_come(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """From a registry on this machine, which an engine takes without TLS."""
    monkeypatch.setattr(docker_pull, "LINE_EVERY_S", 0.0)
    monkeypatch.setattr(get_logger(), "propagate", True)
    with registry(24 << 20) as name, connect() as client:
        with caplog.at_level("INFO", logger=get_logger().name):
            assert choose_image(client, "26.07", name, Needs({}, {})) == name
        try:
            assert docker("image", "inspect", "--format", "{{len .RootFS.Layers}}", name).strip() == "1"
        finally:
            docker("rmi", name)
        assert "of 24 MiB, 1 of 1 layers" in caplog.text
        with pytest.raises(MachineError, match="cannot be pulled"):
            choose_image(client, "26.07", name.replace("1.0", "2.0"), Needs({}, {}))


def test_a_repository_for_a_gpu_is_refused_before_anything_starts(tmp_path: Path, options: ServeOptions) -> None:
    write_onnx(tmp_path / "r", "engine", doubling(), doubling_config("tensorrt"), file="model.plan")
    reason = r"engine \(backend tensorrt\)|no backend tensorrt"
    with pytest.raises((MachineError, ServeError), match=reason), serve(tmp_path / "r", options):
        pass


def test_a_backend_that_the_slim_image_lacks_is_named(tmp_path: Path, options: ServeOptions) -> None:
    write_onnx(tmp_path / "r", "script", doubling(), doubling_config("pytorch"), file="model.pt")
    reason = r"has no backend pytorch \(model script\)"
    with pytest.raises(ServeError, match=reason) as caught, serve(tmp_path / "r", options):
        pass
    assert "nvcr.io/nvidia/tritonserver:26.07-py3" in caught.value.remedy


def test_serve_ends_on_a_signal_and_leaves_nothing(repository: Path, slim_image: str, tmp_path: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        child, addresses = serving(repository, slim_image, tmp_path)
        assert len(containers(child.pid)) == 1
        child.send_signal(number)
        assert child.wait(timeout=20) == 0
        child.communicate()
        assert not containers(child.pid)
        assert not any(map(listens, addresses.values()))


def test_check_and_a_load_test_start_a_container_of_their_own(slim_image: str, tmp_path: Path) -> None:
    import tiny_models

    tiny_models.linear(tmp_path / "m.onnx")
    built = run("build", "m.onnx", "-o", "repo", "--serve", "all", "--check", "offline", cwd=tmp_path)
    assert built.code == 0, built.err
    checked = run("check", "repo", "--engine", "docker", "--image", slim_image, "--json", cwd=tmp_path)
    assert checked.code == 0, checked.err
    assert {model["name"]: model["status"] for model in checked.document["models"]} == {
        "m": "passed", "m_onnxruntime_fp32": "passed", "m_openvino_fp32": "passed",
    }  # fmt: skip
    words = ("--users", "2", "--duration", "2s", "--model", "m", "--json")
    loaded = run("loadtest", "repo", "--engine", "docker", "--image", slim_image, *words, cwd=tmp_path)
    assert loaded.code == 0, loaded.err
    assert loaded.document["requests"] > 0
    assert loaded.document["failures"] == 0
    assert "runs elsewhere" not in loaded.err
    machine = loaded.document["machine"]
    assert 0 < machine["server_cores"] <= machine["cores"], "the CPU of the container's processes is the server's"
    assert machine["server_bytes"][1] > 30 << 20


def test_the_demo_passes_its_check_and_a_load_test_in_the_slim_image(slim_image: str, tmp_path: Path) -> None:
    """The classifier and its ensemble with Python steps: three backends' models, samples and gates of the build."""
    example = ROOT / "examples" / "classifier"
    subprocess.run([sys.executable, example / "prepare.py"], check=True, timeout=240, env=environment())
    words = ("-o", tmp_path / "repo", "--check", "offline")
    built = run("build", "examples/classifier/models.yaml", *words, cwd=ROOT, timeout=500)
    assert built.code == 0, built.err
    docker_words = ("--engine", "docker", "--image", slim_image, "--ready-timeout", "3m", "--json")
    checked = run("check", "repo", *docker_words, cwd=tmp_path)
    assert checked.code == 0, checked.err
    status = {model["name"]: model["status"] for model in checked.document["models"]}
    assert {status[name] for name in ("classifier", "decode", "top", "photo_classifier")} == {"passed"}
    words = ("--model", "photo_classifier", "--users", "2", "--duration", "3s", "--slo", "errors=0%")
    loaded = run("loadtest", "repo", *words, *docker_words, cwd=tmp_path)
    assert loaded.code == 0, loaded.err
    assert loaded.document["answers"]["wrong"] == 0 < loaded.document["answers"]["compared"]
    assert [(item["quantity"], item["held"]) for item in loaded.document["verdicts"]] == [("errors", True)]


def test_a_killed_process_leaves_nothing(repository: Path, slim_image: str, tmp_path: Path) -> None:
    memory = shared_memory()
    child, addresses = serving(repository, slim_image, tmp_path)
    child.kill()
    child.communicate()
    assert gone(child)
    assert not any(map(listens, addresses.values()))
    assert shared_memory() <= memory


def test_the_next_start_removes_what_a_dead_owner_left(
    repository: Path, options: ServeOptions, slim_image: str
) -> None:
    code = "from builder.servers.docker_owner import own_label; print(own_label())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    left = docker("run", "-d", "--label", f"build-repo.owner={done.stdout.strip()}", slim_image, "sleep", "600").strip()
    with serve(repository, options):
        assert left not in docker("ps", "-aq", "--no-trunc").split()


@pytest.mark.skipif("KILLS" not in os.environ, reason="KILLS=20 starts and kills so many; one of each is tested above")
def test_starts_and_kills_leave_nothing(repository: Path, slim_image: str, tmp_path: Path) -> None:
    # Where these tests run in the background SIGINT is ignored, and so it would be by what they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    memory = shared_memory()
    used: set[str] = set()
    for turn in range(int(os.environ["KILLS"])):
        command = ("serve", repository, "--engine", "docker", "--image", slim_image, "--http-port", "0")
        child = start(*command, "--grpc-port", "0", "--metrics-port", "0", cwd=tmp_path)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=0.4 * (turn % 12))
        child.send_signal((signal.SIGKILL, signal.SIGTERM, signal.SIGINT)[turn % 3])
        try:
            out, _ = child.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            child.kill()
            raise
        used |= {word.split("=")[1] for word in out.split() if "=" in word}
        assert gone(child)
    assert not any(map(listens, used))
    assert shared_memory() <= memory
