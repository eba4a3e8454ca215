"""schema, version, doctor, runtime, and what check, serve and loadtest refuse before a server is started."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_models
from command_line import assert_refused, build, run


def test_the_schema_describes_a_spec(tmp_path: Path) -> None:
    ran = run("schema", cwd=tmp_path)
    assert ran.code == 0
    schema = ran.document
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert set(schema["properties"]) >= {"triton", "defaults", "models"}
    assert schema["required"] == ["models"]
    assert schema["additionalProperties"] is False
    names = set(schema["$defs"])
    text = json.dumps(schema)
    for reference in {part.split('"')[0] for part in text.split("#/$defs/")[1:]}:
        assert reference in names
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed; the structure was checked")
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid({"models": [{"name": "a", "source": {"path": "a.onnx"}}]})
    assert not validator.is_valid({"models": [{"name": "a", "source": {"path": "a.onnx"}, "tragets": []}]})


def test_versions(tmp_path: Path) -> None:
    from builder import __version__

    ran = run("version", "--json", cwd=tmp_path)
    assert ran.code == 0
    assert ran.document["build_repo"] == __version__
    assert ran.document["triton"] == "26.07"
    assert set(ran.document["libraries"]) >= {"onnx", "onnxruntime", "openvino", "torch"}
    assert run("version", cwd=tmp_path).out.startswith(f"build-repo {__version__} ")


def test_doctor_names_the_next_thing_to_type(tmp_path: Path) -> None:
    ran = run("doctor", "--json", cwd=tmp_path)
    assert ran.code in (0, 4)
    rows = {row["name"]: row for row in ran.document["checks"]}
    assert rows["target onnxruntime"]["ok"]
    assert all(row["remedy"] for row in rows.values() if not row["ok"])
    assert run("doctor", cwd=tmp_path).code == ran.code


def test_doctor_without_a_runtime_says_how_to_install_it(tmp_path: Path) -> None:
    ran = run(
        "doctor", "--json", cwd=tmp_path, XDG_DATA_HOME=str(tmp_path / "data"), BUILD_REPO_RUNTIMES=str(tmp_path / "r")
    )
    rows = {row["name"]: row for row in ran.document["checks"]}
    if rows["embedded Triton"]["ok"]:
        pytest.skip("the runtime is found wherever the user's folders are")
    assert "build-repo runtime install" in rows["embedded Triton"]["remedy"]


def test_the_list_of_runtimes_is_one_document(tmp_path: Path) -> None:
    ran = run("runtime", "list", "--json", cwd=tmp_path)
    assert ran.code == 0
    assert isinstance(ran.document["runtimes"], list)


@pytest.mark.parametrize("command", ["check", "serve", "loadtest"])
def test_a_repository_that_is_not_there(command: str, tmp_path: Path) -> None:
    assert_refused(run(command, "gone", cwd=tmp_path), 2, "gone: no such folder", "build-repo build")


def test_check_refuses_what_it_cannot_judge(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert_refused(run("check", "empty", cwd=tmp_path), 2, "holds no model")
    tiny_models.linear(tmp_path / "m.onnx")
    assert build("m.onnx", "-o", "repo", "--targets", "onnxruntime:fp32", cwd=tmp_path).code == 0
    assert_refused(run("check", "repo", "--model", "other", cwd=tmp_path), 2, "has no model 'other'", "it has m")
    assert_refused(run("check", "repo", "--url", "ftp://x", cwd=tmp_path), 2, "ftp://x")
    for secret in ("hunter2", "Authorization=Bearer hunter2", "Authorization Bearer hunter2:x", "Über: hunter2"):
        headers = ("--header", "Host: x", "--header", secret)
        ran = run("check", "repo", "--url", "grpc://127.0.0.1:1", *headers, cwd=tmp_path)
        assert_refused(ran, 2, "--header, the 2. of 2, is not NAME: VALUE", "--header 'Authorization: Bearer …'")
        assert "hunter2" not in ran.out + ran.err


def test_serve_without_anything_that_the_embedded_server_takes(tmp_path: Path) -> None:
    (tmp_path / "repo" / "engine" / "1").mkdir(parents=True)
    (tmp_path / "repo" / "engine" / "1" / "model.plan").write_bytes(b"an engine")
    (tmp_path / "repo" / "engine" / "config.pbtxt").write_text('backend: "tensorrt"', encoding="utf-8")
    ran = run("serve", "repo", cwd=tmp_path)
    assert_refused(ran, 5, "engine: the embedded server has no tensorrt backend", "--engine docker")
