"""The light copy that the embedded server loads for a repository of a newer release."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from triton_models import ask, doubling, doubling_config, port, write_config, write_onnx

from builder.errors import ServeError
from builder.runtime import Runtime
from builder.servers import ServeOptions
from builder.servers.embedded import live_copy, serve

METRICS = (
    'model_metrics { metric_control { metric_identifier { family: "nv_inference_first_response_histogram_ms" } } }'
)


def ensemble(member: str, more: str = "") -> str:
    """x → member → y."""
    return (
        'platform: "ensemble"\nmax_batch_size: 8\n'
        f"input [ {port('x', 'FP32', [4])} ]\noutput [ {port('y', 'FP32', [4])} ]\n"
        f'ensemble_scheduling {{ {more} step [ {{ model_name: "{member}" model_version: -1 '
        'input_map { key: "x" value: "x" } output_map { key: "y" value: "y" } } ] }\n'
    )


def write_ensemble(repository: Path, name: str, text: str) -> None:
    (repository / name / "1").mkdir(parents=True)
    write_config(repository, name, text)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository that the embedded server cannot load as it stands."""
    folder = tmp_path / "repository"
    write_onnx(folder, "old", doubling(), doubling_config("onnxruntime"))
    write_onnx(folder, "new", doubling(), doubling_config("onnxruntime", more=METRICS))
    write_onnx(folder, "plan", doubling(), doubling_config("tensorrt"), file="model.plan")
    write_onnx(folder, "bare_plan", doubling(), "", file="model.plan")
    write_ensemble(folder, "whole", ensemble("new", "max_inflight_requests: 4"))
    write_ensemble(folder, "of_plan", ensemble("plan"))
    write_ensemble(folder, "of_that", ensemble("of_plan"))
    (folder / "build-repo.json").write_text("{}", encoding="utf-8")
    return folder


def test_what_is_not_checked_live_is_named(repository: Path, tmp_path: Path) -> None:
    assert live_copy(repository, tmp_path / "copy") == (
        "bare_plan: the embedded server has no tensorrt backend",
        "new: model_metrics",
        "of_plan: it needs plan, which is left out",
        "of_that: it needs of_plan, which is left out",
        "plan: the embedded server has no tensorrt backend",
        "whole: max_inflight_requests",
    )
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == ["new", "old", "whole"]


def test_the_original_is_refused_and_the_copy_answers(repository: Path, tmp_path: Path, runtime: Runtime) -> None:
    options = ServeOptions(release=runtime.release, auto_complete=False)
    with pytest.raises(ServeError, match="model_metrics"), serve(repository, options):
        pass
    before = {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()}
    live_copy(repository, tmp_path / "copy")
    with serve(tmp_path / "copy", options) as endpoint:
        assert endpoint.grpc
        x = np.ones((2, 4), np.float32)
        for model in ("old", "new", "whole"):
            np.testing.assert_array_equal(ask(endpoint.grpc, model, {"x": x})["y"], x * 2)
    assert {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()} == before


def test_artefacts_are_links_and_an_old_configuration_stays_as_it_is(repository: Path, tmp_path: Path) -> None:
    live_copy(repository, tmp_path / "copy")
    assert (tmp_path / "copy" / "new" / "1").is_symlink()
    assert (tmp_path / "copy" / "old" / "config.pbtxt").is_symlink()
    assert "model_metrics" not in (tmp_path / "copy" / "new" / "config.pbtxt").read_text(encoding="utf-8")


def test_a_configuration_that_does_not_parse_is_left_to_the_server(tmp_path: Path) -> None:
    write_onnx(tmp_path / "repository", "broken", doubling(), "max_batch_size: : 3")
    assert live_copy(tmp_path / "repository", tmp_path / "copy") == ()
    assert (tmp_path / "copy" / "broken" / "config.pbtxt").is_symlink()


def test_what_the_runtime_lacks_is_left_out_with_what_mends_it(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    by_platform = doubling_config("pytorch").replace('backend: "pytorch"', 'platform: "pytorch_libtorch"')
    write_onnx(repository, "script", doubling(), by_platform, file="model.pt")
    write_onnx(repository, "bare", doubling(), "", file="model.pt")
    write_onnx(repository, "compiled", doubling(), doubling_config("pytorch", more='platform: "torch_aoti"'))
    write_onnx(repository, "code", doubling(), doubling_config("pytorch", more='runtime: "model.py"'))
    always = (
        "code: the embedded server has no pytorch backend for Python code, only for TorchScript",
        "compiled: the embedded server has no torch_aoti backend",
    )
    assert live_copy(repository, tmp_path / "with") == always
    assert live_copy(repository, tmp_path / "without", {"pytorch": "the embedded server has no torch"}) == (
        "bare: the embedded server has no torch",
        *always,
        "script: the embedded server has no torch",
    )
