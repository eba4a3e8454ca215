"""The slim image by itself, and compose with it: what a user runs by hand, for real."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
from command_line import ROOT, run
from docker_images import SLIM, SUFFIX, docker
from test_docker_files import GPU_METRICS, metric_names, queries
from test_readme import DOCKER_PAGE, commands
from triton_models import ask, doubling, doubling_config, wait_until, write_onnx, write_openvino

pytestmark = [pytest.mark.docker, pytest.mark.slow]
SIZE_BYTES = 900e6
COMPOSE_FILES = "docker/compose.yaml tests/docker/compose.debian.yaml"
RUN = (
    'docker run --rm -p 127.0.0.1:8000:8000 -v "$PWD/repo:/models:ro" build-repo/tritonserver-cpu:26.07 '
    "tritonserver --model-repository=/models"
)
COVERED = {
    "make image": "docker_images.build_slim_image",
    "build-repo serve repo --engine docker": "tests/servers/test_docker.py",
    "build-repo check repo --engine docker": "tests/servers/test_docker.py",
    "build-repo loadtest repo --engine docker --duration 3s": "tests/servers/test_docker.py",
    RUN: "test_the_image_takes_the_command_line_of_the_official_one",
    "make up REPO=repo": "test_compose_serves_measures_and_loads",
    "make down": "test_compose_serves_measures_and_loads",
    "docker build -f docker/builder.Dockerfile -t build-repo/builder:26.07 .": "needs NVIDIA's image; hadolint",
    'docker run --rm --gpus all -v "$PWD:/work" -u "$(id -u):$(id -g)" build-repo/builder:26.07 build-repo build '
    "models.yaml -o repo": "needs NVIDIA's image and a GPU",
}
"""Command of the guide → what runs it, with other names and ports."""


def test_every_command_of_the_guide_is_covered() -> None:
    assert {command.text for command in commands(DOCKER_PAGE)} == set(COVERED)


@contextmanager
def container(*words: str) -> Iterator[tuple[str, dict[int, str]]]:
    """The name of a running container, and its addresses by port."""
    ports = [word for port in (8000, 8001, 8002) for word in ("-p", f"127.0.0.1:0:{port}")]
    name = docker("run", "-d", *ports, *words).strip()
    try:
        yield name, {port: docker("port", name, str(port)).split()[0] for port in (8000, 8001, 8002)}
    finally:
        docker("rm", "-f", name)


def status(address: str, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def test_the_image_is_small_and_says_what_it_is(slim_image: str) -> None:
    (found,) = json.loads(docker("image", "inspect", slim_image))
    assert found["Size"] < SIZE_BYTES
    assert found["Config"]["User"] == "1000:1000"
    assert found["Config"]["Labels"]["build-repo.backends"] == "onnxruntime openvino"
    assert found["Config"]["Labels"]["build-repo.release"] == "26.07"


def test_the_image_takes_the_command_line_of_the_official_one(slim_image: str, tmp_path: Path) -> None:
    write_onnx(tmp_path / "r", "double", doubling(), doubling_config("onnxruntime"))
    write_openvino(tmp_path / "r", "open", doubling(), doubling_config("openvino", batch=0))
    words = ("tritonserver", "--model-repository=/models", "--disable-auto-complete-config")
    with container("-v", f"{tmp_path}/r:/models:ro", slim_image, *words) as (name, addresses):
        assert wait_until(lambda: status(addresses[8000], "/v2/health/ready") == 200, limit_s=60)
        for model in ("double", "open"):
            x = np.ones((2, 4), np.float32)
            np.testing.assert_array_equal(ask(addresses[8001], model, {"x": x})["y"], x * 2)
        assert status(addresses[8002], "/metrics") == 200
        assert docker("exec", name, "id", "-u").strip() == "1000"
        assert wait_until(lambda: "healthy" in docker("inspect", "-f", "{{.State.Health.Status}}", name), limit_s=30)
        docker("exec", name, "triton-ready")


def test_an_engine_is_refused_truthfully(slim_image: str, tmp_path: Path) -> None:
    write_onnx(tmp_path / "r", "engine", doubling(), doubling_config("tensorrt"), file="model.plan")
    words = ("tritonserver", "--model-repository=/models", "--exit-on-error=false")
    with container("-v", f"{tmp_path}/r:/models:ro", slim_image, *words) as (name, addresses):
        assert wait_until(lambda: status(addresses[8000], "/v2/health/live") == 200, limit_s=60)
        assert status(addresses[8000], "/v2/health/ready") == 400
        assert "unable to find backend library for backend 'tensorrt'" in docker_log(name)
        assert "unhealthy" not in docker("inspect", "-f", "{{.State.Health.Status}}", name)
        assert subprocess.run(["docker", "exec", name, "triton-ready"], check=False).returncode == 1


def docker_log(name: str) -> str:
    done = subprocess.run(["docker", "logs", name], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


@pytest.fixture
def variables() -> dict[str, str]:
    """Names and ports beside those of a stack that the user runs."""
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("docker compose is not installed")
    names = ("HTTP_PORT", "GRPC_PORT", "METRICS_PORT", "PROMETHEUS_PORT", "LOCUST_PORT")
    return {**os.environ, "COMPOSE_PROJECT_NAME": f"build-repo-{SUFFIX}", **dict.fromkeys(names, "0")}


def make(*words: str, env: dict[str, str]) -> str:
    command = ["make", "-o", "setup", *words, f"COMPOSE_FILES={COMPOSE_FILES}"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=540, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return done.stdout


def answer(address: str, path: str, data: dict[str, Any] | None = None) -> Any:
    body = urllib.parse.urlencode(data).encode() if data else None
    with urllib.request.urlopen(f"http://{address}{path}", data=body, timeout=10) as response:
        return json.loads(response.read())


def test_compose_serves_measures_and_loads(slim_image: str, tmp_path: Path, variables: dict[str, str]) -> None:
    tiny_models.linear(tmp_path / "m.onnx")
    built = run("build", "m.onnx", "-o", "repo", "--serve", "all", "--check", "offline", cwd=tmp_path)
    assert built.code == 0, built.err
    names = (f"LOCUST_IMAGE=build-repo/locust:test-{SUFFIX}", f"IMAGE={SLIM}")
    try:
        make("up", f"REPO={tmp_path}/repo", *names, env=variables)
        found = {
            f"{service}:{inside}": published(service, inside, variables)
            for service, inside in (
                ("triton-cpu", 8000), ("triton-cpu", 8001), ("prometheus", 9090), ("locust-master", 8089),
            )
        }  # fmt: skip
        urls = ("--url", f"http://{found['triton-cpu:8000']}", "--url", f"grpc://{found['triton-cpu:8001']}")
        checked = run("check", "repo", *urls, cwd=tmp_path)
        assert checked.code == 0, checked.err
        load_and_look(found["locust-master:8089"], found["prometheus:9090"])
    finally:
        make("down", *names, env=variables)
    assert not docker("ps", "-aq", "--filter", f"label=com.docker.compose.project=build-repo-{SUFFIX}").split()


def published(service: str, inside: int, variables: dict[str, str]) -> str:
    words = [word for file in COMPOSE_FILES.split() for word in ("--file", file)]
    command = ["docker", "compose", *words, "--profile", "cpu", "port", service, str(inside)]
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def load_and_look(locust: str, prometheus: str) -> None:
    """Two workers send; every query of the dashboard then has an answer."""
    answer(locust, "/swarm", {"user_count": 4, "spawn_rate": 4})

    def sent() -> bool:
        stats = answer(locust, "/stats/requests")
        return stats["total_rps"] > 0 and len(stats["workers"]) == 2 and not stats["errors"]

    assert wait_until(sent, limit_s=30)
    time.sleep(5)
    for query in queries():
        told = ask_prometheus(prometheus, query.replace("$__rate_interval", "10s"))
        assert told or metric_names(query) <= GPU_METRICS, query


def ask_prometheus(address: str, query: str) -> list[Any]:
    document = answer(address, f"/api/v1/query?{urllib.parse.urlencode({'query': query})}")
    assert document["status"] == "success"
    return list(document["data"]["result"])
