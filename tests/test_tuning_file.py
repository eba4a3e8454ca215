"""The tuning file: written, read with every error at its place, and laid below a spec's own words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import yaml
from tuned_models import WORDS, tuned_model

from builder.errors import SpecError
from builder.machine import machine_facts
from builder.plan import make_plan
from builder.spec import RepoSpec
from builder.spec_file import load_spec, spec_from_models
from builder.spec_serving import BatchingSpec
from builder.tuning_file import (
    Applied,
    Tuning,
    apply_tuning,
    changed_models,
    default_tuning_path,
    read_tuning,
    tuning_beside,
    write_tuning,
)
from builder.work import Export, work_key

TARGETS = ["onnxruntime:fp32", "openvino:fp32"]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    tiny_models.linear(tmp_path / "m.onnx")
    return tmp_path


def tuning(here: Path, words: dict[str, Any] | None = None, **measured: Any) -> Tuning:
    path = here / "models.tuning.yaml"
    write_tuning(path, {"m": WORDS if words is None else words}, {"m": tuned_model(**measured)})
    return read_tuning(path)


def load(here: Path, found: Tuning, text: str = "", defaults: str = "") -> RepoSpec:
    path = here / "models.yaml"
    given = f"defaults: {{{defaults}}}\n" if defaults else ""
    listed = ", ".join(f'"{target}"' for target in TARGETS)
    path.write_text(
        f"{given}models: [{{name: m, source: {{path: m.onnx}}, targets: [{listed}]{text}}}]", encoding="utf-8"
    )
    return load_spec(path, None, found.words)


def said(applied: Applied) -> dict[str, str]:
    assert len({finding.check for finding in applied.findings}) == len(applied.findings)
    return {finding.check: f"{finding.severity}: {finding.message}" for finding in applied.findings}


def test_what_is_written_is_read(here: Path) -> None:
    found = tuning(here)
    assert found.words["m"].said() == {"instances": ({"count": 2},), "openvino": {"threads": 2, "streams": 2}}
    assert found.words["m"].serve == "openvino:fp32"
    assert found.measured == {"m": tuned_model()}
    text = found.path.read_text(encoding="utf-8")
    assert text.startswith("# Written by build-repo tune")
    assert yaml.safe_load(text)["models"] == {"m": WORDS}
    assert [path.name for path in here.iterdir() if "tuning" in path.name] == ["models.tuning.yaml"]


def test_words_that_are_none_are_not_written(here: Path) -> None:
    with pytest.raises(SpecError, match="unknown key 'batchin'; did you mean 'batching'"):
        write_tuning(here / "t.yaml", {"m": {"batchin": {}}}, {})
    assert not (here / "t.yaml").exists()


def test_every_error_stands_at_its_place(here: Path) -> None:
    path = here / "t.yaml"
    write_tuning(path, {"m": WORDS}, {"m": tuned_model()})
    text = path.read_text(encoding="utf-8").replace("count: 2", "cnt: 2", 1).replace("threads: 2", "threads: 0", 1)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        read_tuning(path)
    assert "2 errors" in str(caught.value)
    for key, place, words in (
        ("cnt:", "models.m.instances[0].cnt", "unknown key 'cnt'; did you mean 'count'"),
        ("threads: 0", "models.m.openvino.threads", "greater than or equal to 1"),
    ):
        line = next(number for number, row in enumerate(text.splitlines(), 1) if key in row)
        assert re.search(rf"line {line}: {re.escape(place)}: .*{words}", str(caught.value))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "serve: openvino:fp32",
            "serve: openvno:fp32",
            "models.m.serve: no backend 'openvno'; did you mean 'openvino'",
        ),
        ("serve: openvino:fp32", "serve: openvino:fp8", "models.m.serve: openvino has no precision 'fp8'"),
        ("serve: openvino:fp32", "serve: best", "models.m.serve: no backend 'best'"),
        ("format: 1", "format: 2", "format: Input should be 1, got 2"),
        ("value: 100.0", "value: fast", r"measured.m.tried\[0\].value: expected float, got 'fast'"),
        ("stopped:", "stoped:", "measured.m: unknown key 'stoped'"),
        ("format: 1", "format: 1\nmodels: {}", "'models' is written twice"),
    ],
)
def test_an_edited_file_that_is_wrong(here: Path, old: str, new: str, words: str) -> None:
    found = tuning(here)
    text = found.path.read_text(encoding="utf-8")
    assert old in text
    found.path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(SpecError, match=words) as caught:
        read_tuning(found.path)
    assert "line" in str(caught.value)


def test_a_file_that_is_not_there_or_none(here: Path) -> None:
    with pytest.raises(SpecError, match="no such file"):
        read_tuning(here / "none.yaml")
    (here / "list.yaml").write_text("- 1\n", encoding="utf-8")
    with pytest.raises(SpecError, match="is a mapping"):
        read_tuning(here / "list.yaml")


def test_where_the_file_lies(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "net.v2").mkdir()
    assert default_tuning_path([here / "models.yaml"]) == here / "models.tuning.yaml"
    assert default_tuning_path([here / "m.onnx"]) == here / "m.tuning.yaml"
    assert default_tuning_path([here / "net.v2"]) == here / "net.v2.tuning.yaml"
    assert default_tuning_path([here / "a.onnx", here / "b.onnx"]) is None
    monkeypatch.chdir(here / "net.v2")
    assert default_tuning_path([Path()]) == here / "net.v2.tuning.yaml"
    assert default_tuning_path([Path("..")]) == here.with_name(f"{here.name}.tuning.yaml")
    assert default_tuning_path([Path("/")]) is None
    assert tuning_beside([here / "m.onnx"]) is None
    (here / "m.tuning.yaml").touch()
    assert tuning_beside([here / "m.onnx"]) == here / "m.tuning.yaml"
    assert tuning_beside([here / ("x" * 300)]) is None
    assert tuning_beside([here / ("x" * 250)]) is None


def test_words_fill_what_the_spec_leaves_out(here: Path) -> None:
    found = tuning(here)
    spec = load(here, found)
    (model,) = spec.models
    assert model.serve == "best"
    assert [group.count for group in model.instances or ()] == [2]
    assert model.openvino is not None
    assert model.openvino.streams == 2
    assert (model.tuned.words, model.tuned.target) == (("instances", "openvino"), "openvino:fp32")
    applied = apply_tuning(spec, found)
    assert applied.taken == {"m": tuned_model()}
    assert said(applied) == {
        "tuning.file": "info: tuned by models.tuning.yaml: serve: openvino:fp32, instances, openvino; on the live "
        "server 2 times the throughput of the default"
    }


@pytest.mark.parametrize(
    ("text", "defaults", "own"),
    [
        (", instances: {count: 3}", "", "instances"),
        ("", "instances: {count: 3}", "instances"),
        (", serve: onnxruntime:fp32", "", "serve"),
        ("", "serve: all", "serve"),
        (", openvino: {threads: 1}, instances: {count: 3}", "", "instances, openvino"),
    ],
)
def test_a_word_of_the_spec_wins_and_that_is_said(here: Path, text: str, defaults: str, own: str) -> None:
    found = tuning(here)
    spec = load(here, found, text, defaults)
    plain = load(here, Tuning(found.path, {}, {}), text, defaults)
    for word in own.split(", "):
        assert getattr(spec.models[0], word) == getattr(plain.models[0], word)
        assert word not in spec.models[0].tuned.words
    applied = apply_tuning(spec, found)
    assert said(applied)["tuning.own"] == (
        f"info: models.tuning.yaml says {own} too: the spec's own stands, and nothing was measured of it"
    )
    assert applied.taken == {}


def test_a_word_that_says_the_same_needs_no_words(here: Path) -> None:
    found = tuning(here)
    spec = load(here, found, ", instances: {count: 2}, serve: best")
    assert spec.models[0].tuned.target == "openvino:fp32"
    assert "tuning.own" not in said(apply_tuning(spec, found))


def test_tuned_words_that_contradict_the_spec_are_told_from_its_own_errors(here: Path) -> None:
    found = tuning(here, {"batching": {"max_batch_size": 4, "dynamic": False}})
    sequence = ", sequence: {states: [{input: s, output: t}]}"
    with pytest.raises(SpecError, match=r"batching\.dynamic: the sequence batcher") as caught:
        load(here, found, sequence)
    assert "come from the tuning file" in caught.value.remedy
    with pytest.raises(SpecError, match=r"class_names: .*no such file") as caught:
        load(here, found, f"{sequence}, class_names: none.txt")
    assert "tuning" not in caught.value.remedy


def test_a_tuned_target_that_is_no_target_any_more(here: Path) -> None:
    found = tuning(here, {"serve": "openvino:fp16", "batching": {"max_batch_size": 4}})
    spec = load(here, found)
    assert spec.models[0].tuned.target is None
    applied = apply_tuning(spec, found)
    assert said(applied)["tuning.target"].startswith(
        "warning: models.tuning.yaml serves openvino:fp16, which is not among the targets"
    )
    assert applied.taken == {}


def test_a_model_that_the_spec_does_not_have(here: Path) -> None:
    write_tuning(here / "t.yaml", {"other": WORDS}, {"other": tuned_model("other")})
    found = read_tuning(here / "t.yaml")
    applied = apply_tuning(load(here, found), found)
    assert applied.taken == {}
    assert said(applied) == {"tuning.model": "warning: t.yaml tunes a model that the spec does not have"}
    assert applied.findings[0].remedy.startswith("remove other from t.yaml")


def test_another_machine_and_release_are_warned_of(here: Path) -> None:
    found = tuning(here, machine={**machine_facts(), "cores": "96", "gpu": "H100"}, triton="25.01")
    lines = said(apply_tuning(load(here, found), found))
    cores = machine_facts()["cores"]
    assert lines["tuning.machine"].startswith(
        f"warning: models.tuning.yaml was measured on another machine (cores 96, here {cores}; gpu H100, here none)"
    )
    assert "measured for Triton 25.01, and this is for 26.07" in lines["tuning.release"]


def test_no_digest_is_shown_to_people(here: Path) -> None:
    found = tuning(here, machine={**machine_facts(), "instruction_sets": "6a93"})
    (line,) = (
        text for check, text in said(apply_tuning(load(here, found), found)).items() if check == "tuning.machine"
    )
    assert "another machine (other instruction sets of the CPU):" in line


def export_key(spec: RepoSpec) -> str:
    export = next(work for work in make_plan(spec).works().values() if isinstance(work, Export))
    return work_key(export)


def test_a_tuned_batch_is_no_other_model(here: Path) -> None:
    found = tuning(here, {"batching": {"max_batch_size": 32}})
    spec, plain = load(here, found), load(here, Tuning(found.path, {}, {}))
    assert spec.models[0].batching == BatchingSpec(max_batch_size=32)
    assert export_key(spec) == export_key(plain)
    assert export_key(load(here, found, ", batching: {max_batch_size: 32}")) != export_key(plain)


def test_another_model_is_warned_of(here: Path) -> None:
    found = tuning(here)
    applied = apply_tuning(load(here, found), found)
    (warned,) = changed_models(applied, {"m": "1" * 32})
    assert (warned.severity, warned.check) == ("warning", "tuning.changed")
    assert list(changed_models(applied, {"m": "0" * 32})) == []


def test_a_bare_model_file_takes_the_words_too(here: Path) -> None:
    found = tuning(here)
    models = [{"name": "m", "source": {"path": str(here / "m.onnx")}}]
    assert spec_from_models(models, {"targets": TARGETS}, found.words).models[0].tuned.target == "openvino:fp32"
    assert spec_from_models(models, {"serve": "all"}, found.words).models[0].tuned.target is None
