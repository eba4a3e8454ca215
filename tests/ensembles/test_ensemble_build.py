"""Ensembles built, staged and checked on the embedded Triton against their members' sources, one after the other."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Ran, assert_refused, assert_sound, build, contents, run, snapshot
from ensembles import models

from builder.manifest import read_manifest
from builder.samples import load_requests

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("runtime")]

ORT = "targets: [onnxruntime:fp32]"
A_AND_B = f"""models:
  - {{name: a, source: {{path: a.onnx}}, {ORT}}}
  - {{name: b, source: {{path: b.onnx}}, {ORT}}}
"""
CHAIN = "ensembles:\n  - name: chain\n    steps: [a, b: [y -> h]]\n"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    models.linear(tmp_path / "a.onnx", "x:4", "y:6", 1)
    models.linear(tmp_path / "b.onnx", "h:6", "z:3", 2)
    return tmp_path


def built(here: Path, text: str, *more: str, code: int = 0, check: str = "live") -> Ran:
    (here / "models.yaml").write_text(text, encoding="utf-8")
    ran = build("models.yaml", "-o", "repo", "--json", *more, cwd=here, check=check)
    assert ran.code == code, f"{ran.out}\n{ran.err}"
    return ran


def ensemble(ran: Ran, name: str) -> dict[str, Any]:
    found = [item for item in ran.document["ensembles"] if item["name"] == name]
    assert len(found) == 1
    return found[0]


def config(here: Path, name: str) -> str:
    return (here / "repo" / name / "config.pbtxt").read_text(encoding="utf-8")


def test_two_models_in_a_row_are_one(here: Path) -> None:
    ran = built(here, A_AND_B + CHAIN)
    made = ensemble(ran, "chain")
    assert (made["status"], made["members"], made["max_batch_size"]) == ("built", ["a", "b"], 8)
    assert made["outputs"][0]["max_relative"] < 1e-5
    repository = here / "repo"
    assert_sound(repository)
    manifest = read_manifest(repository)
    assert manifest is not None
    record = manifest.ensembles["chain"]
    assert record.reference == ("a: source (onnx)", "b: source (onnx)")
    assert record.live["chain"]["protocols"] == ["http", "grpc"]
    requests = load_requests(repository / "chain" / "reference.npz", record.signature)
    weights = [np.random.default_rng(seed).standard_normal(shape) for seed, shape in ((1, (4, 6)), (2, (6, 3)))]
    for request in requests:
        expected = request.inputs["x"] @ weights[0] @ weights[1]
        np.testing.assert_allclose(request.outputs["z"], expected, rtol=1e-4, atol=1e-4)
    assert {request.rows for request in requests} >= {1, 2, 3}

    before = snapshot(repository)
    again = built(here, A_AND_B + CHAIN)
    assert {target["status"] for model in again.document["models"] for target in model["targets"]} == {"cached"}
    assert snapshot(repository) == before
    elsewhere = build("models.yaml", "-o", "other", cwd=here, check="live")
    assert elsewhere.code == 0
    ours, theirs = contents(repository), contents(here / "other")
    assert ours == theirs

    checked = run("check", "repo", "--json", cwd=here)
    assert {item["name"]: item["status"] for item in checked.document["models"]} == dict.fromkeys(
        ("a", "b", "chain"), "passed"
    )
    assert run("validate", "repo", "--format", "json", cwd=here).document["findings"] == []
    load = run("loadtest", "repo", "--model", "chain", "--duration", "1s", "--json", cwd=here)
    assert load.code == 0, load.err
    assert (load.document["models"], load.document["failures"]) == (["chain"], 0)


FAN = f"""models:
  - {{name: a, source: {{path: a.onnx}}, {ORT}}}
  - {{name: b, source: {{path: b.onnx}}, {ORT}}}
  - {{name: c, source: {{path: c.onnx}}, targets: [openvino:fp32]}}
  - {{name: sum, source: {{path: sum.onnx}}, {ORT}, batching: {{max_batch_size: 4}}}}
  - {{name: top, source: {{path: top.onnx}}, {ORT}}}
ensembles:
  - name: named
    outputs: [label, scores, place]
    steps:
      - fan
      - top
  - name: fan
    steps:
      - a
      - b: [y -> h, z -> left]
      - c: [x -> v, w -> right]
      - sum: [total -> scores]
"""


def test_fan_out_and_in_nested_with_strings_on_two_backends(here: Path) -> None:
    models.linear(here / "c.onnx", "v:4", "w:3", 3)
    models.added(here / "sum.onnx")
    models.named(here / "top.onnx")
    ran = built(here, FAN)
    assert ensemble(ran, "fan")["max_batch_size"] == 4
    assert "dims: [ -1, 4 ]" in config(here, "c")
    # A member gives [N] without anything beside the batch: full dims.
    assert ensemble(ran, "named")["max_batch_size"] == 0
    assert [item["status"] for item in ran.document["ensembles"]] == ["built", "built"]
    assert ensemble(ran, "named")["gates"]["max_mismatch_share"] in (0.0, pytest.approx(0.09, abs=0.05))
    manifest = read_manifest(here / "repo")
    assert manifest is not None
    assert len(manifest.ensembles["named"].reference) == 5
    requests = load_requests(here / "repo" / "named" / "reference.npz", manifest.ensembles["named"].signature)
    assert {text for request in requests for text in request.outputs["label"].ravel()} <= {"cat", "dog", "émeu"}


def test_members_of_an_earlier_build_answer_from_what_is_stored(here: Path) -> None:
    built(here, A_AND_B, check="none")
    ran = built(here, "models: []\n" + CHAIN)
    assert ensemble(ran, "chain")["status"] == "built"
    manifest = read_manifest(here / "repo")
    assert manifest is not None
    assert manifest.ensembles["chain"].reference[0] == "a: stored artefact (onnxruntime:fp32, version 1) of a"
    assert sorted(manifest.models) == ["a", "b"]

    pruned = built(here, "models: []\n" + CHAIN, "--prune")
    assert {(finding["check"], finding["model"]) for finding in pruned.document["findings"]} == {
        ("repository.needed", "a"),
        ("repository.needed", "b"),
    }
    assert (here / "repo" / "a" / "1" / "model.onnx").is_file()

    (here / "repo" / "a" / "1" / "model.onnx").write_bytes(models.linear(here / "o.onnx", "x:4", "y:6", 5).read_bytes())
    changed = build("models.yaml", "-o", "repo", cwd=here, check="live")
    assert_refused(changed, 2, "a/1/model.onnx", "is not what build-repo wrote")


def test_an_ensemble_that_stands_keeps_a_new_member_from_breaking_it(here: Path) -> None:
    built(here, A_AND_B + CHAIN)
    before = snapshot(here / "repo")
    models.linear(here / "a.onnx", "x:4", "y:6", 9)
    ran = built(here, A_AND_B.partition("  - {name: b")[0], code=3)
    (wrong, *_) = [finding for finding in ran.document["findings"] if finding["severity"] == "error"]
    assert wrong["model"] == "chain"
    assert "no longer fits a: build it again with its spec, or --prune" in wrong["remedy"]
    assert snapshot(here / "repo") == before
    ran = built(here, A_AND_B + CHAIN)
    assert [model["version"] for model in ran.document["models"]] == [2, 1]
    built(here, A_AND_B.partition("  - {name: b")[0], "--prune")
    assert sorted(item.name for item in (here / "repo").iterdir()) == ["a", "build-repo.json"]


def test_an_ensemble_that_answers_wrong_replaces_nothing(here: Path) -> None:
    """Half precision overflows in the member, whose own gates let everything pass."""
    import tiny_models

    built(here, A_AND_B + CHAIN, check="none")
    before = snapshot(here / "repo")
    tiny_models.drifting(here / "b.onnx")
    loose = "accuracy: {max_relative_error: 1000, min_cosine: -1}"
    text = f"""models:
  - {{name: a, source: {{path: a.onnx}}, {ORT}}}
  - {{name: drifting, source: {{path: b.onnx}}, targets: [openvino:fp16], {loose}}}
ensembles:
  - {{name: e, steps: [drifting: [y -> z]], accuracy: {{max_relative_error: 0.02}}}}
"""
    ran = built(here, text, code=3)
    assert ensemble(ran, "e")["status"] == "rejected"
    assert ensemble(ran, "e")["outputs"][0]["max_relative"] > 0.02
    assert snapshot(here / "repo") == before


def test_a_changed_signature_is_refused(here: Path) -> None:
    built(here, A_AND_B + CHAIN, check="none")
    ran = built(here, A_AND_B + CHAIN.replace("chain\n", "chain\n    outputs: [y, z]\n"), code=3, check="none")
    (finding,) = [finding for finding in ran.document["findings"] if finding["check"] == "repository.signature"]
    assert (finding["model"], "+ output y float32[batch,6]" in finding["message"]) == ("chain", True)


def test_a_member_that_somebody_else_made_is_served_and_said_to_be_unproven(here: Path) -> None:
    built(here, A_AND_B, check="none")
    foreign = here / "repo" / "theirs"
    shutil.copytree(here / "repo" / "b", foreign)
    (foreign / "config.pbtxt").write_text(config(here, "b").replace('"b"', '"theirs"'), encoding="utf-8")
    text = A_AND_B + "ensembles:\n  - {name: chain, steps: [a, theirs: [y -> h]]}\n"
    ran = built(here, text)
    assert ensemble(ran, "chain")["status"] == "unchecked"
    (finding,) = [finding for finding in ran.document["findings"] if finding["check"] == "ensemble.unproven"]
    assert "theirs was not made by build-repo" in finding["message"]
    checked = run("check", "repo", "--model", "chain", "--json", cwd=here)
    assert checked.document["models"][0]["status"] == "unchecked"
    assert "theirs was not made" in checked.document["models"][0]["findings"][0]["message"]


def test_samples_of_its_own_and_words_of_the_scheduler(here: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    np.savez(here / "mine.npz", x=rows)
    more = "    samples: {path: mine.npz}\n    max_batch_size: 2\n    max_inflight_requests: 4\n"
    ran = built(here, A_AND_B + CHAIN + more + "    config: {metric_tags: {team: vision}}\n")
    assert ensemble(ran, "chain")["max_batch_size"] == 2
    assert "max_inflight_requests: 4" in config(here, "chain")
    assert 'key: "team"' in config(here, "chain")
    manifest = read_manifest(here / "repo")
    assert manifest is not None
    assert manifest.ensembles["chain"].samples.startswith("mine.npz")
    requests = load_requests(here / "repo" / "chain" / "reference.npz", manifest.ensembles["chain"].signature)
    assert max(request.rows for request in requests) == 2
    assert sum(request.rows for request in requests) == 5
    (here / "models.yaml").write_text('triton: "25.06"\n' + A_AND_B + CHAIN + more, encoding="utf-8")
    old = build("models.yaml", "-o", "repo", cwd=here)
    assert_refused(old, 2, "ensembles[0].max_inflight_requests: Triton 25.06 does not know this field")


def test_a_member_that_falls_back_to_another_target_takes_the_ensemble_with_it(here: Path) -> None:
    """The faster target is refused by a check of the staged files, and the next one is served."""
    both = "targets: [onnxruntime:fp32, openvino:fp32], config: {default_model_filename: model.xml}"
    text = A_AND_B.replace(f"a.onnx}}, {ORT}", f"a.onnx}}, {both}") + CHAIN
    ran = built(here, text)
    assert ran.document["models"][0]["served"] == {"backend": "openvino", "precision": "fp32"}
    statuses = {target["backend"]: target["status"] for target in ran.document["models"][0]["targets"]}
    assert statuses["onnxruntime"] == "rejected"
    assert ensemble(ran, "chain")["status"] == "built"
    assert 'backend: "openvino"' in config(here, "a")


def test_an_artefact_that_was_changed_after_it_was_measured_is_caught(here: Path, tmp_path_factory: Any) -> None:
    cache = tmp_path_factory.mktemp("cache")
    (here / "models.yaml").write_text(A_AND_B + CHAIN, encoding="utf-8")
    assert build("models.yaml", "-o", "first", cwd=here, cache=cache).code == 0
    wrong = models.linear(here / "wrong.onnx", "h:6", "z:3", 7).read_bytes()
    for file in (cache / "convert").glob("*/model.onnx"):
        if b"h" in file.read_bytes() and file.stat().st_size == len(wrong):
            file.write_bytes(wrong)
    ran = build("models.yaml", "-o", "second", cwd=here, cache=cache, check="live")
    assert_refused(ran, 3)
    assert not (here / "second").exists()


SEVERAL = f"""models:
  - {{name: a, source: {{path: a.onnx}}, targets: [onnxruntime:fp32, openvino:fp32], serve: all}}
  - {{name: top, source: {{path: top.onnx}}, {ORT}, batching: {{max_batch_size: 4}}}}
ensembles:
  - name: each
    steps:
      - a: [y -> scores]
      - a_openvino_fp32: {{outputs: {{y: other}}}}
      - top: {{inputs: {{scores: other}}}}
"""


def test_folders_of_one_target_are_members_and_vectors_travel_in_batches(here: Path) -> None:
    models.linear(here / "a.onnx", "x:4", "y:3", 1)
    models.named(here / "top.onnx")
    ran = built(here, SEVERAL)
    made = ensemble(ran, "each")
    assert (made["status"], made["max_batch_size"]) == ("built", 4)
    assert [tensor["name"] for tensor in made["signature"]["outputs"]] == ["scores", "label", "place"]
    assert made["signature"]["outputs"][2]["shape"] == ["batch"]
    assert 'model_name: "a_openvino_fp32"' in config(here, "each")
    assert run("check", "repo", cwd=here).code == 0


def test_the_server_takes_whatever_the_wiring_takes(here: Path) -> None:
    """Wirings drawn at random over members of both backends, all on one server."""
    generator = np.random.default_rng(11)
    for name in "abc":
        models.linear(here / f"{name}.onnx", "x:3", "y:3", ord(name))
    models.added(here / "sum.onnx")
    spec = "models:\n"
    for name, target in zip("abc", ("onnxruntime", "openvino", "onnxruntime"), strict=True):
        spec += f"  - {{name: {name}, source: {{path: {name}.onnx}}, targets: [{target}:fp32]}}\n"
    spec += f"  - {{name: sum, source: {{path: sum.onnx}}, {ORT}}}\nensembles:\n"
    for number in range(6):
        tensors = ["t0"]
        spec += f"  - name: e{number}\n    steps:\n"
        for place in range(1, int(generator.integers(2, 5))):
            member = str(generator.choice(["a", "b", "c", "sum"]))
            chosen = [str(item) for item in generator.choice([*tensors, f"in{place}"], 2)]
            ports = ("left", "right") if member == "sum" else ("x",)
            inputs = ", ".join(f"{port}: {tensor}" for port, tensor in zip(ports, chosen, strict=False))
            given = "total" if member == "sum" else "y"
            spec += f"      - {member}: {{inputs: {{{inputs}}}, outputs: {{{given}: t{place}}}}}\n"
            tensors.append(f"t{place}")
    ran = built(here, spec)
    assert {item["status"] for item in ran.document["ensembles"]} == {"built"}
    assert run("validate", "repo", "--format", "json", cwd=here).document["findings"] == []


def test_plan_lists_the_answers_of_an_ensemble(here: Path) -> None:
    models.linear(here / "a.onnx", "x:4", "y:6", 77)
    (here / "models.yaml").write_text(A_AND_B + CHAIN, encoding="utf-8")
    before = run("plan", "models.yaml", "-o", "repo", "--json", cwd=here).document["ensembles"]
    assert [(item["name"], item["members"], item["unproven"]) for item in before] == [("chain", ["a", "b"], "")]
    assert [(work["work"], work["cached"]) for work in before[0]["works"]] == [
        ("answer 1 of a", False),
        ("answer 2 of b", False),
    ]
    built(here, A_AND_B + CHAIN, check="none")
    after = run("plan", "models.yaml", "-o", "repo", "--json", cwd=here).document["ensembles"]
    assert [(work["key"], work["cached"]) for work in after[0]["works"]] == [
        (work["key"], True) for work in before[0]["works"]
    ]


def test_a_member_that_is_fixed_to_one_batch_size_is_asked_in_that_size(here: Path) -> None:
    models.linear(here / "b.onnx", "h:6", "z:3", 2, rows="4")
    ran = built(here, A_AND_B + CHAIN + "    max_batch_size: 4\n")
    made = ensemble(ran, "chain")
    (dropped,) = [item for item in ran.document["findings"] if item["check"] == "ensemble.batching"]
    assert (dropped["severity"], dropped["model"]) == ("warning", "chain")
    assert "max_batch_size 4 is asked, and it is served without batching" in dropped["message"]
    assert (made["status"], made["max_batch_size"]) == ("built", 0)
    assert made["signature"]["outputs"][0]["shape"] == [4, 3]


def test_a_step_in_python_of_an_earlier_build_answers_again(here: Path) -> None:
    (here / "half.py").write_text("def run(z):\n    return z * 0.5\n", encoding="utf-8")
    step = "  - name: half\n    source: {path: half.py}\n    inputs: [{name: z, dtype: float32, shape: [batch, 3]}]\n"
    step += "    outputs: [halved]\n"
    built(here, A_AND_B + step, check="none")
    ran = built(here, "models: []\nensembles:\n  - {name: e, steps: [a, b: [y -> h], half]}\n")
    assert ensemble(ran, "e")["status"] == "built"
    assert ensemble(ran, "e")["gates"]["max_mismatch_share"] == 0.0


def test_a_step_may_ask_for_a_version(here: Path) -> None:
    models.linear(here / "old.onnx", "x:4", "y:6", 8)
    sources = "sources: {1: {path: old.onnx}, 2: {path: a.onnx}}, versions: {serve: all}"
    text = A_AND_B.replace("source: {path: a.onnx}", sources) + "ensembles:\n"
    for number in (1, 2):
        wires = f"steps: [a: {{model_version: {number}}}, b: [y -> h]]"
        text += f"  - {{name: with_{number}, {wires}}}\n"
    ran = built(here, text)
    assert [item["status"] for item in ran.document["ensembles"]] == ["unchecked", "built"]
    unproven = [finding for finding in ran.document["findings"] if finding["check"] == "ensemble.unproven"]
    assert [finding["model"] for finding in unproven] == ["with_1"]
    assert "version 1 of a is asked for" in unproven[0]["message"]
    assert "model_version: 2" in config(here, "with_2")
