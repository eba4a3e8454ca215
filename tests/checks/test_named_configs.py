"""`configs/NAME.pbtxt` is judged like the configuration that it would replace."""

from __future__ import annotations

from pathlib import Path

import pytest
from triton_models import doubling, doubling_config, write_onnx

from builder.checks import CheckContext, run_checks
from builder.runtime import Runtime
from builder.servers import ServeOptions
from builder.servers.embedded import serve


def repository(tmp_path: Path, **named: str) -> Path:
    write_onnx(tmp_path, "m", doubling(), doubling_config("onnxruntime"))
    (tmp_path / "m" / "configs").mkdir()
    for name, text in named.items():
        (tmp_path / "m" / "configs" / f"{name}.pbtxt").write_text(text, encoding="utf-8")
    return tmp_path


def test_one_that_fits_says_nothing(tmp_path: Path) -> None:
    folder = repository(tmp_path, small=doubling_config("onnxruntime", batch=4))
    assert run_checks(folder, CheckContext("26.07")) == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (doubling_config("onnxruntime").replace("TYPE_FP32", "TYPE_FP16"), "expects datatype TYPE_FP16"),
        (doubling_config("onnxruntime", more="response_cach { }"), "response_cach"),
        (doubling_config("onnxruntime").replace("[4]", "[5]"), "the model expects 2 dimensions"),
    ],
)
def test_one_that_the_server_would_refuse(tmp_path: Path, text: str, words: str) -> None:
    folder = repository(tmp_path, fast=text)
    strict = run_checks(folder, CheckContext("26.07"))
    assert {finding.severity for finding in strict} == {"error"}
    assert all(finding.file == "m/configs/fast.pbtxt" for finding in strict)
    assert words in strict[0].message
    assert strict[0].message.startswith("with --model-config-name=fast: ")
    lenient = run_checks(folder, CheckContext("26.07", auto_complete=True))
    assert {finding.severity for finding in lenient} == {"warning"}


@pytest.mark.live
@pytest.mark.slow
def test_the_server_reads_it_by_its_name(tmp_path: Path, runtime: Runtime) -> None:
    from triton_models import client

    folder = repository(tmp_path, small=doubling_config("onnxruntime", batch=4))
    options = ServeOptions(release=runtime.release, auto_complete=False, arguments=("--model-config-name=small",))
    with serve(folder, options) as endpoint, client(endpoint.http or "", "http") as (_, connection):
        assert connection.get_model_config("m")["max_batch_size"] == 4
