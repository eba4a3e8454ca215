"""Code in a file that is opened by opt-in has no network."""

import pickle
import socket
import subprocess
import sys

import pytest
from command_line import ROOT, build

CHILD = """
import socket, sys
from builder.isolation import leave_network
left = leave_network()
try:
    socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=2)
    print(left, "connected")
except OSError:
    print(left, "refused")
"""


def test_an_isolated_process_reaches_nothing():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-c", CHILD, port], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
        )
    if done.stdout.startswith("False"):
        pytest.skip("this host does not let a process leave the network")
    assert done.stdout.split() == ["True", "refused"]


SPY = """
import socket
from pathlib import Path
from sklearn.base import BaseEstimator

try:
    socket.create_connection(("127.0.0.1", {port}), timeout=2)
    Path({seen!r}).write_text("connected")
except OSError:
    Path({seen!r}).write_text("refused")

class Spy(BaseEstimator):
    pass
"""


@pytest.mark.parametrize("jobs", [0, 1])
def test_code_in_a_file_has_no_network_however_many_jobs(tmp_path, monkeypatch, jobs):
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    monkeypatch.syspath_prepend(str(tmp_path))
    seen = tmp_path / "seen.txt"
    with socket.create_server(("127.0.0.1", 0)) as server:
        (tmp_path / "spy_of_a_pickle.py").write_text(SPY.format(port=server.getsockname()[1], seen=str(seen)))
        module = __import__("spy_of_a_pickle")
        (tmp_path / "spy.pkl").write_bytes(pickle.dumps(module.Spy()))
        assert seen.read_text() == "connected"
        seen.unlink()
        spec = "models: [{name: spy, source: {path: spy.pkl, format: sklearn, allow_pickle: true}}]"
        (tmp_path / "spec.yaml").write_text(spec)
        ran = build("spec.yaml", "-o", "repo", "--jobs", jobs, cwd=tmp_path, cache=tmp_path / "cache")
    del sys.modules["spy_of_a_pickle"]
    assert ran.code == 2, ran.err
    if isolated() == "False":
        pytest.skip("this host does not let a process leave the network")
    assert seen.read_text() == "refused"


def isolated():
    command = [sys.executable, "-c", "from builder.isolation import leave_network; print(leave_network())"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout.strip()
