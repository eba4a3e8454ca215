"""Code in a file that is opened by opt-in has no network."""

import subprocess
import sys

import pytest
from command_line import ROOT

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
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-c", CHILD, port], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
        )
    if done.stdout.startswith("False"):
        pytest.skip("this host does not let a process leave the network")
    assert done.stdout.split() == ["True", "refused"]
