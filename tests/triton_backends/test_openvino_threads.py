"""Where the threads of several OpenVINO instances run: natively on cores of their own, and so here."""

from __future__ import annotations

import contextlib
import os
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
import pytest
from onnx import helper, numpy_helper
from triton_models import FLOAT, ask, config, onnx_bytes, port, write_openvino

from builder.loadtest.server_processes import server_pids
from builder.runtime import Runtime
from builder.servers import Endpoint, ServeOptions
from builder.servers.embedded import serve

SIZE = 1024
ROWS = np.full((128, SIZE), 0.1, np.float32)


def chain() -> object:
    """So many products that a request takes tens of milliseconds on one core."""
    weights = np.random.default_rng(0).standard_normal((SIZE, SIZE)).astype(np.float32) / SIZE
    names = ["x", *(f"h{step}" for step in range(7)), "y"]
    nodes = [helper.make_node("MatMul", [one, "w"], [two]) for one, two in pairwise(names)]
    model = onnx_bytes(nodes, [("x", FLOAT, ["n", SIZE])], [("y", FLOAT, ["n", SIZE])])
    model.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    return model


def write_model(repository: Path, instances: int) -> None:
    parameters = "\n".join(
        f'parameters {{ key: "{key}" value {{ string_value: "{instances}" }} }}'
        for key in ("NUM_STREAMS", "INFERENCE_NUM_THREADS")
    )
    ports = [port("x", "FP32", [-1, SIZE])], [port("y", "FP32", [-1, SIZE])]
    text = config("openvino", *ports, more=parameters).replace("count: 1", f"count: {instances}")
    write_openvino(repository, "chain", chain(), text)


def places_of_threads(endpoint: Endpoint) -> set[str]:
    """The cores that threads of the model's processes may use while two clients ask, at any moment."""
    (server,) = server_pids(endpoint)
    stubs = [child for child in psutil.Process(server).children(recursive=True) if "stub" in child.name()]
    clients = [
        threading.Thread(target=lambda: [ask(endpoint.grpc, "chain", {"x": ROWS}) for _ in range(15)]) for _ in range(2)
    ]
    for client in clients:
        client.start()
    seen: set[str] = set()
    while any(client.is_alive() for client in clients):
        for stub in stubs:
            for status in Path(f"/proc/{stub.pid}/task").glob("*/status"):
                with contextlib.suppress(OSError):  # a thread that has ended
                    rows = status.read_text().splitlines()
                    seen |= {row.split()[1] for row in rows if row.startswith("Cpus_allowed_list")}
    return seen


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core is everybody's")
@pytest.mark.parametrize(("instances", "pinned"), [(1, True), (2, False)])
def test_instances_do_not_wait_for_the_same_core(
    runtime: Runtime, tmp_path: Path, instances: int, pinned: bool
) -> None:
    write_model(tmp_path, instances)
    with serve(tmp_path, ServeOptions(release=runtime.release, auto_complete=False)) as endpoint:
        places = places_of_threads(endpoint)
    alone = {place for place in places if place.isdecimal()}
    assert bool(alone) == pinned, places
