"""The Locust file alone, as a user starts it, with a real server: a wrong answer is a failure in Locust's own count."""

from __future__ import annotations

import contextlib
import csv
import json
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import build
from served_models import LINEAR, ROW, WEIGHTS, linear_requests, write_linear, write_model
from small_graphs import write_graph
from triton_models import wait_until

from builder.resources import resource
from builder.runtime import Runtime
from builder.servers import Endpoint, ServeOptions
from builder.servers.embedded import serve
from builder.tensors import Signature, Tensor

pytestmark = [pytest.mark.live, pytest.mark.slow]

NAMES = Signature(
    (Tensor("s", "string", ("batch", 2)), Tensor("n", "int64", ("batch", 1))),
    (Tensor("t", "string", ("batch", 2)), Tensor("m", "int64", ("batch", 1))),
)


@pytest.fixture(scope="module")
def endpoint(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    from onnx import helper

    repository = tmp_path_factory.mktemp("alone") / "repository"
    write_linear(repository)
    axes = helper.make_node("Constant", [], ["axes"], value_ints=[0])
    mates = [axes, helper.make_node("ReduceSum", ["x", "axes"], ["s"], keepdims=1)]
    ports = Signature((Tensor("x", "float32", ("batch", ROW)),), (Tensor("y", "float32", ("batch", ROW)),))
    write_model(repository, "mates", ports, [*mates, helper.make_node("Add", ["x", "s"], ["y"])], max_batch_size=8,
                config="dynamic_batching {}\n")  # fmt: skip
    nodes = [helper.make_node("Identity", ["s"], ["t"]), helper.make_node("Neg", ["n"], ["m"])]
    write_model(repository, "names", NAMES, nodes, max_batch_size=4)
    with serve(repository, ServeOptions(release=runtime.record.release, auto_complete=False)) as served:
        yield served


def locust(endpoint: Endpoint, folder: Path, *words: str, users: int = 2) -> tuple[int, dict[str, Any], str]:
    """Exit code, Locust's own figures of all models and its words."""
    command = [sys.executable, "-m", "locust", "-f", str(resource("loadtests") / "locustfile.py"), "--headless"]
    command += ["-u", str(users), "-r", "8", "--host", f"grpc://{endpoint.grpc}", "--measure-s", "3"]
    run = subprocess.run(
        [*command, "--csv", str(folder / "all"), *words], check=False, capture_output=True, text=True, timeout=90
    )
    with (folder / "all_stats.csv").open(encoding="utf-8") as file:
        (total,) = [row for row in csv.DictReader(file) if row["Name"] == "Aggregated"]
    return run.returncode, total, run.stdout + run.stderr


def payload(folder: Path, requests: Any, *, wrong: int | None = None) -> Path:
    members: dict[str, Any] = {"rows": np.asarray([item.rows for item in requests])}
    for index, item in enumerate(requests):
        y = item.outputs["y"] + (0.5 if index == wrong else 0.0)
        members |= {f"{index}/x": item.inputs["x"], f"expected/{index}/y": y.astype(np.float32)}
    np.savez(folder / "payload.npz", **members)
    return folder / "payload.npz"


def test_right_answers_are_no_failures(endpoint: Endpoint, tmp_path: Path) -> None:
    """Whole requests, and pieces of three rows made of them."""
    file = str(payload(tmp_path, linear_requests()))
    words = ("--payload", file, "--mix", "linear", "--mix", "linear@3", "--compare-per-s", "1000")
    code, total, text = locust(endpoint, tmp_path, *words)
    assert (code, total["Failure Count"]) == (0, "0"), text
    (line,) = [line for line in text.splitlines() if "answers were compared" in line]
    assert int(line.split(": ")[-1].split()[0]) > 100, line
    assert "0 are wrong" in line


def form_of(page: str) -> dict[str, str]:
    """What Locust's page sends where nobody changed a field."""
    (line,) = [line for line in page.splitlines() if "window.templateArgs" in line]
    given = json.loads(line.partition("=")[2].strip().rstrip(";"))
    defaults = {name: option["default_value"] for name, option in given["extra_options"].items()}
    fields = {name: "" if value is None else value for name, value in defaults.items()}
    return {name: ",".join(value) if isinstance(value, list) else f"{value}" for name, value in fields.items()}


def asked(url: str, fields: dict[str, str] | None = None) -> str:
    body = urllib.parse.urlencode(fields).encode() if fields is not None else None
    with urllib.request.urlopen(url, data=body, timeout=10) as response:
        return str(response.read().decode())


def test_locusts_own_page_starts_a_test(endpoint: Endpoint, tmp_path: Path) -> None:
    """Its form sends every field, empty ones too."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    np.savez(tmp_path / "one.npz", **{"x": np.ones((1, ROW), np.float32), "expected/y": np.ones((1, 10), np.float32)})
    command = [sys.executable, "-m", "locust", "-f", str(resource("loadtests") / "locustfile.py")]
    command += ["--host", f"grpc://{endpoint.grpc}", "--web-host", "127.0.0.1", "--web-port", str(port)]
    process = subprocess.Popen([*command, "--payload", str(tmp_path / "one.npz")], stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"

    def page() -> str:
        with contextlib.suppress(OSError):
            return asked(url)
        return ""

    def called() -> dict[str, tuple[int, int]]:
        rows = json.loads(asked(f"{url}/stats/requests"))["stats"]
        return {row["name"]: (row["num_requests"], row["num_failures"]) for row in rows}

    try:
        assert wait_until(lambda: bool(page()), limit_s=30)
        form = form_of(page())
        assert "result" not in form
        asked(f"{url}/swarm", {**form, "mix": "linear@2,linear=2", "user_count": "2", "spawn_rate": "2"})
        assert wait_until(lambda: called().get("linear", (0, 0))[0] > 10, limit_s=30)
        assert set(called()) == {"linear", "Aggregated"}
        assert called()["linear"][1] > 0
    finally:
        process.terminate()
        process.wait(30)


def test_a_wrong_answer_is_a_failure(endpoint: Endpoint, tmp_path: Path) -> None:
    file = str(payload(tmp_path, linear_requests(), wrong=2))
    code, total, text = locust(endpoint, tmp_path, "--payload", file, "--mix", "linear", "--compare-per-s", "1000")
    assert code == 1
    requests, failures = int(total["Request Count"]), int(total["Failure Count"])
    assert 0.05 * requests < failures < 0.4 * requests, text  # one of six
    assert "wrong answer: y is too far off" in text
    assert "model linear, request 2: y is too far off" in text
    _, total, _ = locust(endpoint, tmp_path, "--payload", file, "--mix", "linear", "--compare-per-s", "0")
    assert total["Failure Count"] == "0"
    _, total, _ = locust(endpoint, tmp_path, "--payload", file, "--mix", "linear", "--max-relative-error", "0.9")
    assert total["Failure Count"] == "0"


def test_answers_that_are_wrong_only_when_requests_are_merged(endpoint: Endpoint, tmp_path: Path) -> None:
    x = np.ones((1, ROW), np.float32)
    np.savez(tmp_path / "one.npz", **{"x": x, "expected/y": 2 * x})
    words = ("--payload", str(tmp_path / "one.npz"), "--mix", "mates", "--compare-per-s", "1000")
    code, total, text = locust(endpoint, tmp_path, *words, users=1)
    assert (code, total["Failure Count"]) == (0, "0"), text
    code, total, text = locust(endpoint, tmp_path, *words, users=8)
    assert code == 1, text
    assert int(total["Failure Count"]) > 0


def test_strings_and_integers(endpoint: Endpoint, tmp_path: Path) -> None:
    """The vectors of rows travel as [N, 1]."""
    texts = np.asarray([["a", "ü"], ["", "b"]])
    right = {"s": texts, "n": np.asarray([3, 4]), "expected/t": texts, "expected/m": np.asarray([-3, -4])}
    np.savez(tmp_path / "names.npz", **right)
    words = ("--payload", str(tmp_path / "names.npz"), "--mix", "names")
    code, _, text = locust(endpoint, tmp_path, *words)
    assert code == 0, text
    assert " 0 are wrong" in text
    np.savez(tmp_path / "names.npz", **right | {"expected/t": np.asarray([["a", "u"], ["", "b"]])})
    code, _, text = locust(endpoint, tmp_path, *words)
    assert code == 1
    assert "t is not as expected: 25.0% of its elements differ" in text


def test_an_output_that_the_model_does_not_have(endpoint: Endpoint, tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", **{"x": np.ones((1, ROW), np.float32), "expected/z": np.ones((1, 4), np.float32)})
    code, _, text = locust(endpoint, tmp_path, "--payload", str(tmp_path / "one.npz"), "--mix", "linear")
    assert code == 3
    assert "expected answers ['z']; the outputs of model linear are ['y']" in text


@pytest.mark.parametrize("same", [True, False])
def test_a_repository_knows_the_answers(endpoint: Endpoint, tmp_path: Path, same: bool) -> None:
    """Where the server's model has other weights than the one that was built, each answer is wrong."""
    from onnx import helper

    weights = WEIGHTS if same else WEIGHTS + 1
    write_graph(tmp_path / "linear.onnx", LINEAR, [helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weights})
    ran = build("linear.onnx", "-o", "repository", "--targets", "onnxruntime:fp32", cwd=tmp_path)
    assert ran.code == 0, ran.err
    code, total, text = locust(endpoint, tmp_path, "--repository", str(tmp_path / "repository"), "--mix", "linear")
    assert code == (0 if same else 1), text
    assert (int(total["Failure Count"]) > 0) is not same
    assert (" 0 are wrong" in text) is same
