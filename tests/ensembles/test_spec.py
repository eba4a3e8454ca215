"""`ensembles:` of a spec file: the forms of a step, and what the file alone tells."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_models
from command_line import assert_refused, build, run
from ensembles import models

from builder.errors import SpecError
from builder.spec import RepoSpec
from builder.spec_file import load_spec


@pytest.fixture
def here(tmp_path: Path) -> Path:
    tiny_models.linear(tmp_path / "a.onnx")
    tiny_models.linear(tmp_path / "b.onnx")
    return tmp_path


def spec(here: Path, ensembles: str) -> Path:
    path = here / "models.yaml"
    models = "models:\n  - {name: a, source: {path: a.onnx}}\n  - {name: b, source: {path: b.onnx}}\n"
    path.write_text(models + "ensembles:\n" + ensembles, encoding="utf-8")
    return path


def test_a_step_has_three_forms(here: Path) -> None:
    text = "  - {name: e, steps: [a, b: [q -> x], b: {inputs: {x: q}, outputs: {y: z}, model_version: 1}]}\n"
    steps = load_spec(spec(here, text)).ensembles[0].steps
    assert [step.member for step in steps] == ["a", "b", "b"]
    assert steps[1].wires == ("q -> x",)
    assert (steps[2].inputs, steps[2].outputs, steps[2].model_version) == ({"x": "q"}, {"y": "z"}, 1)


@pytest.mark.parametrize(
    ("ensemble", "line", "words"),
    [
        ("{name: a, steps: [b]}", 5, "ensembles[0].name: 'a' is also the name of models[0]"),
        ("{name: e, steps: [b: [q]]}", 5, "ensembles[0].steps[0]: 'q' is no wire; write FROM -> TO"),
        ("{name: e, steps: []}", 5, "ensembles[0].steps"),
        ("{name: e, steps: [{a: [], b: []}]}", 5, "ensembles[0].steps[0]: "),
        ("{name: e, steps: [b: {input: {x: q}}]}", 5, "unknown key 'input'; did you mean 'inputs'?"),
        ("{name: e, steps: [b: {outputs: {y: t, z: t}}]}", 5, "two outputs of b are both called 't'"),
        ("{name: e, inputs: [x, x], steps: [b]}", 5, "ensembles[0].inputs[1]: 'x' is listed twice"),
        ("{name: e, steps: [b, e]}", 5, "the ensemble holds itself: e → e"),
        ("{name: e, steps: [b], samples: {path: no.npz}}", 5, "no.npz: no such file"),
        ("{name: e, steps: [b], config: {dynamic_batching: {}}}", 5, "an ensemble is scheduled by its steps"),
        ("{name: e, steps: [b], config: {instance_group: []}}", 5, "Triton refuses instance_group in an ensemble"),
        ("{name: e, steps: [b], config: {metric_tag: {}}}", 5, "did you mean 'metric_tags'?"),
        ("{name: e, steps: [b], targets: [x]}", 5, "unknown key 'targets'"),
    ],
)
def test_what_the_file_alone_tells_is_said_with_its_line(here: Path, ensemble: str, line: int, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(spec(here, f"  - {ensemble}\n"))
    assert words in caught.value.message
    assert f"line {line}: " in caught.value.message


def test_ensembles_that_hold_each_other_are_refused(here: Path) -> None:
    with pytest.raises(SpecError, match="e → f → e"):
        load_spec(spec(here, "  - {name: e, steps: [f]}\n  - {name: f, steps: [a, e]}\n"))


def test_the_schema_has_the_forms_of_a_step() -> None:
    schema = RepoSpec.model_json_schema()["$defs"]["StepSpec"]
    text, mapping = schema["anyOf"]
    assert text == {"type": "string"}
    wires, words = mapping["additionalProperties"]["anyOf"]
    assert wires["type"] == "array"
    assert "member" not in words["properties"]
    assert set(words["properties"]) >= {"inputs", "outputs", "model_version"}


@pytest.mark.parametrize("command", ["plan", "build"])
def test_unknown_members_are_refused_by_plan_all_at_once(here: Path, command: str) -> None:
    path = spec(here, "  - {name: e, steps: [aa, b: [y -> x]]}\n  - name: f\n    steps:\n      - nothing\n")
    ran = run(command, path, "-o", "repo", cwd=here)
    assert_refused(
        ran,
        2,
        "line 5: ensembles[0].steps[0]: no model or ensemble 'aa'",
        "line 8: ensembles[1].steps[0]: no model or ensemble 'nothing'; known: a, b, e, f",
    )
    assert not (here / "repo").exists()


def test_wires_that_do_not_fit_are_refused_once_the_exports_are_known(here: Path) -> None:
    tiny_models.doubles(here / "b.onnx")
    ran = build(spec(here, "  - name: e\n    steps:\n      - a\n      - b: [y -> x]\n"), "-o", "repo", cwd=here)
    assert_refused(ran, 2, "line 8: ensembles[0].steps[1]: 'y -> x' has two meanings")
    text = "  - name: e\n    steps:\n      - a\n      - b: {inputs: {x: y}, outputs: {y: z}}\n"
    ran = build(spec(here, text), "-o", "repo", cwd=here)
    words = "'y': a gives y float32[batch,3], b takes x float64[batch,4]: the dtypes float32 and float64 differ"
    assert_refused(ran, 2, f"line 8: ensembles[0].steps[1]: {words}")
    assert "convert" not in ran.err
    assert not (here / "repo").exists()


def test_the_spec_of_the_guide_is_true(here: Path) -> None:
    guide = Path(__file__).resolve().parents[2] / "docs" / "guides" / "ensembles.md"
    text = guide.read_text(encoding="utf-8").partition("```yaml\n")[2].partition("```")[0]
    models.linear(here / "embed.onnx", "x:4", "hidden:6")
    models.linear(here / "classify.onnx", "features:6", "logits:3")
    (here / "models.yaml").write_text(text, encoding="utf-8")
    ran = build("models.yaml", "-o", "repo", "--json", "--targets", "onnxruntime:fp32", cwd=here, check="offline")
    assert ran.code == 0, ran.err
    (made,) = ran.document["ensembles"]
    sides = ([tensor["name"] for tensor in made["signature"][side]] for side in ("inputs", "outputs"))
    assert (made["name"], *sides) == ("pipeline", ["x"], ["scores"])
