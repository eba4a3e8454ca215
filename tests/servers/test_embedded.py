"""The embedded server: start, reasons, ports, death and what stays behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from command_line import start
from triton_models import ask, config, doubling, doubling_config, port, wait_until, write_config, write_onnx

from builder import runtime as runtimes
from builder.errors import MachineError, ServeError
from builder.runtime import Runtime
from builder.servers import Endpoint, ServeOptions, server_module, watchdog
from builder.servers.embedded import serve
from builder.servers.server_state import stubs_of

SHARED_MEMORY = Path("/dev/shm")
X = np.ones((2, 4), np.float32)
SERVING = """
import signal, sys, time
from pathlib import Path
from builder.servers import ServeOptions
from builder.servers.embedded import serve
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
with serve(Path(sys.argv[1]), ServeOptions(release=sys.argv[2], auto_complete=False)) as endpoint:
    print(endpoint.http, endpoint.grpc, endpoint.metrics, flush=True)
    time.sleep(120)
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """One model."""
    folder = tmp_path / "repository"
    write_onnx(folder, "double", doubling(), doubling_config("onnxruntime", more="dynamic_batching {}"))
    return folder


@pytest.fixture
def options(runtime: Runtime) -> ServeOptions:
    """Auto-complete off, as for the repositories of this tool."""
    return ServeOptions(release=runtime.release, auto_complete=False)


@pytest.fixture
def child(repository: Path, runtime: Runtime) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A process that serves, and its addresses."""
    command = [sys.executable, "-c", SERVING, str(repository), runtime.release]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    assert process.stdout is not None
    yield process, process.stdout.readline().split()
    process.kill()
    process.wait()


def servers_below(pid: int) -> set[int]:
    """Every process of the servers that the process started."""
    text = subprocess.run(["ps", "-wweo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    return {int(line.split()[0]) for line in text.splitlines() if f"build-repo-{pid}-" in line}


def listens(address: str) -> bool:
    host, _, number = address.partition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(number))) == 0


def regions(pid: int) -> list[str]:
    return [path.name for path in SHARED_MEMORY.iterdir() if path.name.startswith(f"build-repo-{pid}-")]


def left_overs(pid: int) -> list[Path]:
    """Temporary folders and locks of the servers that the process started."""
    import tempfile

    return [
        *Path(tempfile.gettempdir()).glob(f"build-repo-{pid}-*"),
        *(runtimes.home() / "servers").glob(f"build-repo-{pid}-*"),
    ]


def is_clean(pid: int, addresses: list[str]) -> bool:
    return not (servers_below(pid) or any(map(listens, addresses)) or regions(pid) or left_overs(pid))


def test_a_model_is_served_over_both_protocols_with_metrics(repository: Path, options: ServeOptions) -> None:
    import urllib.request

    started = time.monotonic()
    with serve(repository, options) as endpoint:
        ready_s = time.monotonic() - started
        assert endpoint.http
        assert endpoint.grpc
        for protocol, address in (("http", endpoint.http), ("grpc", endpoint.grpc)):
            np.testing.assert_array_equal(ask(address, "double", {"x": X}, protocol=protocol)["y"], X * 2)
        with urllib.request.urlopen(f"http://{endpoint.metrics}/metrics") as answer:
            assert 'nv_inference_count{model="double"' in answer.read().decode()
        endpoint.alive()
        stopping = time.monotonic()
    assert time.monotonic() - stopping < 3
    assert ready_s < 10
    assert is_clean(os.getpid(), [endpoint.http, endpoint.grpc, str(endpoint.metrics)])
    assert server_module("embedded").serve is serve


def test_two_servers_stand_side_by_side(repository: Path, options: ServeOptions) -> None:
    with serve(repository, options) as one, serve(repository, options) as other:
        addresses = {one.http, one.grpc, one.metrics, other.http, other.grpc, other.metrics}
        assert len(addresses) == 6
        assert one.grpc
        assert other.grpc
        np.testing.assert_array_equal(ask(one.grpc, "double", {"x": X})["y"], ask(other.grpc, "double", {"x": X})["y"])


def test_the_repository_is_left_as_it_was(repository: Path, options: ServeOptions) -> None:
    before = {path: path.stat().st_mtime_ns for path in repository.rglob("*")}
    with serve(repository, options):
        pass
    assert {path: path.stat().st_mtime_ns for path in repository.rglob("*")} == before


def test_every_model_that_does_not_load_is_named_with_its_reason(repository: Path, options: ServeOptions) -> None:
    garbage = write_onnx(repository, "garbage", doubling(), doubling_config("onnxruntime")) / "1" / "model.onnx"
    garbage.write_bytes(b"no model")
    absent = write_onnx(repository, "absent", doubling(), doubling_config("onnxruntime")) / "1" / "model.onnx"
    absent.rename(absent.with_name("other.onnx"))
    write_onnx(repository, "other_name", doubling(), 'name: "another"\n' + doubling_config("onnxruntime"))
    write_onnx(repository, "no_text", doubling(), "max_batch_size: : 3")
    plan = write_onnx(repository, "foreign", doubling(), doubling_config("tensorrt"), file="model.plan")
    assert plan.is_dir()
    with pytest.raises(ServeError) as caught, serve(repository, options):
        pass
    text = str(caught.value)
    assert "5 of 6 models did not load" in text
    reasons = dict(line.strip().split(": ", 1) for line in text.splitlines()[1:6])
    assert set(reasons) == {"garbage", "absent", "other_name", "no_text", "foreign"}
    assert "Protobuf parsing failed" in reasons["garbage"]
    assert "failed to stat file" in reasons["absent"]
    assert "another" in reasons["other_name"]
    assert "Expected integer, got: :" in reasons["no_text"]
    assert text.count("Protobuf parsing failed") == 1
    assert "tensorrt" in reasons["foreign"]
    assert is_clean(os.getpid(), [])


def test_dims_that_differ_are_refused_in_the_native_words(tmp_path: Path, options: ServeOptions) -> None:
    wrong = config("onnxruntime", [port("x", "FP32", [5])], [port("y", "FP32", [4])], batch=8)
    write_onnx(tmp_path, "wrong", doubling(), wrong)
    expected = (
        r"model 'wrong', tensor 'x': the model expects 2 dimensions \(shape \[-1,4\]\) but the model configuration"
    )
    with pytest.raises(ServeError, match=expected), serve(tmp_path, options):
        pass


def test_a_name_that_no_shell_takes_is_refused_before_the_start(tmp_path: Path, options: ServeOptions) -> None:
    """The server would wait for such a model's process for ever."""
    write_onnx(tmp_path, "a b", doubling(), doubling_config("onnxruntime"))
    reason = "' ' of the folder 'a b' is no part of a name"
    with pytest.raises(ServeError, match=reason) as caught, serve(tmp_path, options):
        pass
    assert "rename it" in caught.value.remedy


def test_an_empty_repository_and_none(tmp_path: Path, options: ServeOptions) -> None:
    with pytest.raises(ServeError, match="holds no models"), serve(tmp_path, options):
        pass
    with pytest.raises(ServeError, match="is not a folder"), serve(tmp_path / "absent", options):
        pass


def test_an_address_of_another_machine_is_named(repository: Path, runtime: Runtime) -> None:
    options = ServeOptions(release=runtime.release, host="192.0.2.1")
    with pytest.raises(MachineError, match=r"on 192\.0\.2\.1 cannot be used") as caught, serve(repository, options):
        pass
    assert "--host" in caught.value.remedy


def test_a_taken_port_is_named(repository: Path, runtime: Runtime) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = holder.getsockname()[1]
        options = ServeOptions(release=runtime.release, grpc_port=taken)
        with pytest.raises(MachineError, match=f"grpc port {taken} .*in use") as caught, serve(repository, options):
            pass
    assert "--grpc-port" in caught.value.remedy


def test_given_ports_are_used(repository: Path, runtime: Runtime) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number = probe.getsockname()[1]
    with serve(repository, ServeOptions(release=runtime.release, http_port=number)) as endpoint:
        assert endpoint.http == f"127.0.0.1:{number}"
    with serve(repository, ServeOptions(release=runtime.release, http_port=number)) as endpoint:
        assert endpoint.http == f"127.0.0.1:{number}"


def test_without_a_runtime_the_remedy_installs_one(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUILD_REPO_HOME", str(tmp_path / "home"))
    with pytest.raises(MachineError) as caught, serve(repository, ServeOptions(release="26.07")):
        pass
    assert caught.value.remedy == "build-repo runtime install --triton 26.07"


def test_arguments_reach_the_server_and_a_wrong_one_is_quoted(repository: Path, runtime: Runtime) -> None:
    with serve(repository, ServeOptions(release=runtime.release, arguments=("--id=mine",))) as endpoint:
        import json
        import urllib.request

        with urllib.request.urlopen(f"http://{endpoint.http}/v2") as answer:
            assert json.load(answer)["name"] == "mine"
    wrong = ServeOptions(release=runtime.release, arguments=("--no-such-argument",))
    with pytest.raises(ServeError, match="unrecognized option '--no-such-argument'"), serve(repository, wrong):
        pass


def own_server() -> int:
    """The tritonserver that this process started."""
    (started,) = (runtimes.home() / "servers").glob(f"build-repo-{os.getpid()}-*.lock")
    return int((Path(started.read_text(encoding="utf-8")) / "server.pid").read_text(encoding="utf-8"))


def test_a_dead_model_process_is_noticed(repository: Path, options: ServeOptions) -> None:
    with serve(repository, options) as endpoint:
        (stub,) = stubs_of(own_server())
        assert stub.model == "double"
        endpoint.alive()
        os.kill(stub.pid, signal.SIGKILL)
        with pytest.raises(ServeError, match="the process of model double died"):
            wait_until(lambda: endpoint.alive() is not None, 3)


def test_a_dead_server_is_noticed(repository: Path, options: ServeOptions) -> None:
    with serve(repository, options) as endpoint:
        os.kill(own_server(), signal.SIGKILL)
        with pytest.raises(ServeError, match="the embedded server ended with 137"):
            wait_until(lambda: endpoint.alive() is not None, 3)
    assert is_clean(os.getpid(), [str(endpoint.http)])


def test_nothing_stays_when_the_parent_is_killed(child: tuple[subprocess.Popen[str], list[str]]) -> None:
    process, addresses = child
    assert all(map(listens, addresses))
    assert regions(process.pid)
    assert len(servers_below(process.pid)) == 3
    process.kill()
    assert wait_until(lambda: is_clean(process.pid, addresses), 5), servers_below(process.pid)


def test_nothing_stays_after_sigterm(child: tuple[subprocess.Popen[str], list[str]]) -> None:
    process, addresses = child
    process.terminate()
    assert process.wait(5) == 0
    assert is_clean(process.pid, addresses)


def watchdog_of(pid: int) -> int:
    text = subprocess.run(["ps", "-wweo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=2) for line in text.splitlines()]
    return next(int(row[0]) for row in rows if int(row[1]) == pid and "watchdog.py" in row[2])


def test_the_server_goes_when_the_watchdog_is_killed(child: tuple[subprocess.Popen[str], list[str]]) -> None:
    process, addresses = child
    os.kill(watchdog_of(process.pid), signal.SIGKILL)
    assert wait_until(lambda: not any(map(listens, addresses)), 5)
    process.terminate()
    process.wait(5)
    assert wait_until(lambda: is_clean(process.pid, addresses), 5), servers_below(process.pid)


def test_what_a_killed_pair_left_is_removed_at_the_next_start(
    child: tuple[subprocess.Popen[str], list[str]], repository: Path, options: ServeOptions
) -> None:
    process, addresses = child
    watchdog = watchdog_of(process.pid)
    # Looked at while the server lives: once it is dead, the next start of any server on this machine tidies up.
    assert left_overs(process.pid)
    process.kill()
    os.kill(watchdog, signal.SIGKILL)
    process.wait()
    assert wait_until(lambda: not servers_below(process.pid), 8)
    with serve(repository, options):
        assert is_clean(process.pid, addresses)


def test_a_forked_child_of_the_parent_does_not_keep_the_server(repository: Path, runtime: Runtime) -> None:
    code = SERVING.replace("    time.sleep(120)", "    import os\n    os.fork() or time.sleep(20)\n    os._exit(0)")
    command = [sys.executable, "-c", code, str(repository), runtime.release]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    assert process.stdout is not None
    addresses = process.stdout.readline().split()
    process.wait()
    assert wait_until(lambda: is_clean(process.pid, addresses), 5), servers_below(process.pid)


def test_an_ensemble_and_its_member(repository: Path, options: ServeOptions) -> None:
    whole = (
        'platform: "ensemble"\nmax_batch_size: 8\n'
        f"input [ {port('x', 'FP32', [4])} ]\noutput [ {port('y', 'FP32', [4])} ]\n"
        'ensemble_scheduling { step [ { model_name: "double" model_version: -1 '
        'input_map { key: "x" value: "x" } output_map { key: "y" value: "y" } } ] }\n'
    )
    (repository / "whole" / "1").mkdir(parents=True)
    write_config(repository, "whole", whole)
    with serve(repository, options) as endpoint:
        assert endpoint.grpc
        np.testing.assert_array_equal(ask(endpoint.grpc, "whole", {"x": X})["y"], X * 2)


def test_endpoint_is_the_same_type_as_every_engine(repository: Path, options: ServeOptions) -> None:
    with serve(repository, options) as endpoint:
        assert isinstance(endpoint, Endpoint)


def test_no_environment_folder_of_a_dead_server_stays(repository: Path, options: ServeOptions) -> None:
    """Of other servers on this machine, those that live may have made some meanwhile."""
    before = set(watchdog.ENVIRONMENTS.glob("python_env_*"))
    with serve(repository, options):
        assert set(watchdog.ENVIRONMENTS.glob("python_env_*")) - before
    new = set(watchdog.ENVIRONMENTS.glob("python_env_*")) - before
    oldest_s = min(watchdog.server_starts(), default=float("inf"))
    assert all(folder.stat().st_mtime > oldest_s - 1 for folder in new if folder.exists()), new


def test_only_empty_folders_older_than_every_server_are_removed(
    repository: Path, options: ServeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "ENVIRONMENTS", tmp_path)
    with serve(repository, options):
        names = ("dead", "used", "earlier", "living")
        dead, used, earlier, living = (tmp_path / f"python_env_{name}" for name in names)
        for folder, made_s in ((dead, 2000), (used, 2000), (earlier, 500), (living, None)):
            folder.mkdir()
            if folder is used:
                (folder / "bin").mkdir()
            os.utime(folder, None if made_s is None else (made_s, made_s))
        watchdog.remove_environments(1000.0)
        assert sorted(path.name for path in tmp_path.glob("python_env_*")) == [
            "python_env_earlier", "python_env_living", "python_env_used",
        ]  # fmt: skip


@pytest.mark.slow
def test_starts_and_kills_leave_nothing(repository: Path, tmp_path: Path, runtime: Runtime) -> None:
    """KILLS=50 starts and kills so many, at moments from before the server's start until after it is ready."""
    # Where these tests run in the background SIGINT is ignored, and so it would be by what they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    before, memory = set(watchdog.ENVIRONMENTS.glob("python_env_*")), servers_memory()
    kills = int(os.environ.get("KILLS", "6"))
    ready = 0
    for turn in range(kills):
        words = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")
        child = start("serve", repository, *words, cwd=tmp_path)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=0.3 * (turn % 12))
        child.send_signal((signal.SIGKILL, signal.SIGTERM, signal.SIGINT)[turn % 3])
        out, _ = child.communicate(timeout=30)
        addresses = [word.partition("=")[2] for word in out.split() if "=" in word]
        ready += bool(addresses)
        assert wait_until(lambda pid=child.pid, found=addresses: is_clean(pid, found), 8), (turn, child.pid)
    assert ready or kills < 12, "every kill came before the server was ready"
    assert servers_memory() <= memory
    # The next start removes what a killed pair left.
    with serve(repository, ServeOptions(release=runtime.release, auto_complete=False)):
        pass
    new = set(watchdog.ENVIRONMENTS.glob("python_env_*")) - before
    oldest_s = min(watchdog.server_starts(), default=float("inf"))
    assert all(folder.stat().st_mtime > oldest_s - 1 for folder in new if folder.exists()), new


def test_a_model_process_without_its_server_goes_with_the_next_start(tmp_path: Path) -> None:
    scratch, locks = tmp_path / "build-repo-1-left", tmp_path / "locks"
    scratch.mkdir()
    locks.mkdir()
    stub = shutil.copy(shutil.which("sleep") or "/bin/sleep", scratch / "stub")
    (locks / f"{scratch.name}.lock").write_text(str(scratch), encoding="utf-8")
    with subprocess.Popen([stub, "60"]) as process:
        # Popen is back a moment before the kernel knows the new program's words.
        assert wait_until(lambda: bool(Path(f"/proc/{process.pid}/cmdline").read_bytes()), 5)
        watchdog.remove_left_overs(locks)
        assert process.wait(5) == -signal.SIGKILL
    assert not scratch.exists()
    assert list(locks.iterdir()) == []


def servers_memory() -> set[str]:
    """Regions of servers that were told no name, as none of ours is."""
    return {path.name for path in SHARED_MEMORY.iterdir() if path.name.startswith("triton_python_backend")}
