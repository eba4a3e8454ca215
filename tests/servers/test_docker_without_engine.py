"""Whose container it is, and what a repository needs: no engine is needed to know."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from command_line import assert_refused, environment, run
from triton_models import doubling, doubling_config, write_onnx

from builder.servers.docker_owner import own_label, owner_is_gone
from builder.servers.docker_pull import Pulled, PullError
from builder.servers.needs import needs_of

PRINT_LABEL = "from builder.servers.docker_owner import own_label; print(own_label())"


def test_the_own_container_has_an_owner() -> None:
    assert not owner_is_gone(own_label(), running=True)
    assert not owner_is_gone(own_label(), running=False)


def test_an_ended_process_is_gone() -> None:
    done = subprocess.run([sys.executable, "-c", PRINT_LABEL], capture_output=True, text=True, check=True)
    assert owner_is_gone(done.stdout.strip(), running=True)


def test_a_later_process_of_the_same_number_is_not_the_owner() -> None:
    boot, namespace, pid, start = own_label().split("/")
    assert owner_is_gone(f"{boot}/{namespace}/{pid}/{int(start) - 1}", running=True)


@pytest.mark.parametrize("running", [True, False])
def test_a_process_of_another_namespace_cannot_be_judged(running: bool) -> None:
    boot, _, pid, start = own_label().split("/")
    assert not owner_is_gone(f"{boot}/1/{pid}/{start}", running=running)


def test_what_was_stopped_before_the_machine_started_anew_is_a_left_over() -> None:
    _, namespace, pid, start = own_label().split("/")
    assert owner_is_gone(f"another-boot/{namespace}/{pid}/{start}", running=False)
    assert not owner_is_gone(f"another-boot/{namespace}/{pid}/{start}", running=True)


def test_what_is_no_label_of_ours_is_left_alone() -> None:
    assert not owner_is_gone("", running=True)
    assert not owner_is_gone(own_label().rsplit("/", 2)[0] + "/x/y", running=True)


def test_backends_and_gpus_are_read_from_the_configurations(tmp_path: Path) -> None:
    write_onnx(tmp_path, "plain", doubling(), doubling_config("onnxruntime"))
    write_onnx(tmp_path, "engine", doubling(), doubling_config("tensorrt"), file="model.plan")
    accelerated = doubling_config(
        "onnxruntime",
        more='optimization { execution_accelerators { gpu_execution_accelerator [ { name: "tensorrt" } ] } }',
    )
    write_onnx(tmp_path, "accelerated", doubling(), accelerated)
    on_gpu = doubling_config("onnxruntime").replace("KIND_CPU", "KIND_GPU")
    write_onnx(tmp_path, "on_gpu", doubling(), on_gpu)
    needs = needs_of(tmp_path)
    assert set(needs.backends) == {"onnxruntime", "tensorrt"}
    assert dict(needs.gpu) == {
        "accelerated": "the accelerator tensorrt",
        "engine": "backend tensorrt",
        "on_gpu": "an instance of KIND_GPU",
    }


def test_no_engine_is_an_error_of_the_machine(tmp_path: Path) -> None:
    pytest.importorskip("docker", reason="the Docker SDK is not installed")
    write_onnx(tmp_path / "r", "double", doubling(), doubling_config("onnxruntime"))
    ran = run("serve", "r", "--engine", "docker", cwd=tmp_path, DOCKER_HOST=f"unix://{tmp_path}/none")
    assert_refused(ran, 4, f"no Docker engine answers at {tmp_path}/none: there is no such socket", "--engine embedded")
    ran = run("serve", "r", "--engine", "docker", cwd=tmp_path, DOCKER_HOST="tcp://127.0.0.1:2375")
    assert_refused(ran, 4, "on another machine", "--engine embedded")


def test_the_sdk_is_an_extra(tmp_path: Path) -> None:
    write_onnx(tmp_path / "r", "double", doubling(), doubling_config("onnxruntime"))
    code = "import sys; sys.modules['docker'] = None\nfrom builder.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "serve", str(tmp_path / "r"), "--engine", "docker"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 4
    assert "the Docker SDK is not installed" in done.stderr
    assert "pip install 'build-repo[docker]'" in done.stderr


def test_doctor_says_whether_an_engine_answers(tmp_path: Path) -> None:
    ran = run("doctor", "--json", cwd=tmp_path, DOCKER_HOST=f"unix://{tmp_path}/none")
    (row,) = (row for row in ran.document["checks"] if row["name"] == "docker")
    assert not row["ok"]
    assert "Docker" in row["detail"]
    assert "--engine embedded" in row["remedy"]


def test_an_image_is_for_docker(tmp_path: Path) -> None:
    write_onnx(tmp_path / "r", "double", doubling(), doubling_config("onnxruntime"))
    ran = run("serve", "r", "--image", "some:image", cwd=tmp_path)
    assert_refused(ran, 2, "--image is for --engine docker")


def test_what_is_pulled_adds_up_and_errors_are_the_engines_own() -> None:
    state = Pulled()
    state.take({"status": "Pulling from thing", "id": "1.0"})
    for layer in ("aa", "bb", "cc"):
        state.take({"status": "Pulling fs layer", "id": layer, "progressDetail": {}})
    state.take({"status": "Downloading", "id": "aa", "progressDetail": {"current": 1 << 20, "total": 4 << 20}})
    state.take({"status": "Downloading", "id": "bb", "progressDetail": {"current": 2 << 20, "total": 2 << 20}})
    state.take({"status": "Download complete", "id": "bb", "progressDetail": {}})
    state.take({"status": "Already exists", "id": "cc", "progressDetail": {}})
    assert str(state) == "3 of 6 MiB, 2 of 3 layers"
    with pytest.raises(PullError, match="manifest unknown"):
        state.take({"error": "manifest unknown", "errorDetail": {"message": "manifest unknown"}})


@pytest.mark.parametrize(
    "words", [("serve", "r"), ("check", "r"), ("loadtest", "r"), ("loadtest", "--url", "grpc://a:1")]
)
def test_a_ready_timeout_is_a_duration(tmp_path: Path, words: tuple[str, ...]) -> None:
    write_onnx(tmp_path / "r", "double", doubling(), doubling_config("onnxruntime"))
    assert_refused(run(*words, "--ready-timeout", "10", cwd=tmp_path), 2, "'10' is no duration")
