"""The core's rules and ensembles as findings: lines, remedies, what is completed, and no traceback on any text."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from builder.checks import CheckContext, run_checks
from builder.completion import completed_config
from builder.errors import SpecError
from builder.findings import Finding, has_errors
from builder.scan import scan_repository
from builder.validate import completed_texts, validate_repository

MODEL = "class TritonPythonModel:\n    pass\n"
PLAIN = """backend: "python"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 2 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 2 ] } ]
"""
CHAIN = """platform: "ensemble"
max_batch_size: 8
input [ { name: "in" data_type: TYPE_FP32 dims: [ 2 ] } ]
output [ { name: "out" data_type: TYPE_FP32 dims: [ 2 ] } ]
ensemble_scheduling {
  step [
    { model_name: "a" model_version: -1 input_map { key: "x" value: "in" } output_map { key: "y" value: "mid" } },
    { model_name: "b" model_version: -1 input_map { key: "x" value: "mid" } output_map { key: "y" value: "out" } }
  ]
}
"""


def put(repository: Path, name: str, config: str, code: str = MODEL) -> Path:
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(config, encoding="utf-8")
    (repository / name / "1" / "model.py").write_text(code, encoding="utf-8")
    return repository


def errors(repository: Path) -> list[Finding]:
    return [item for item in validate_repository(repository, "26.07") if item.severity == "error"]


@pytest.mark.parametrize(
    ("text", "line", "words", "remedy"),
    [
        ("\ndynamic_batching { priority_levels: 3 }", 6, "must be in range [1, 3] for m", "default_priority_level: 1"),
        ('model_warmup [ { name: "w" batch_size: 1 } ]', 5, "missing required input(s) ['x']", "inputs for x"),
        ("batch_input [ { data_type: TYPE_FP32 } ]", 5, "expects 1 source input, got 0 for m", "name one input"),
        ("ensemble_scheduling { }", 5, "whose platform is not ensemble", 'platform: "ensemble"'),
        ("instance_group { kind: KIND_GPU }", 5, "no GPUs are available", "--gpus N"),
        ("dynamic_batching { preferred_batch_size: 9 }", 5, "must be <= max batch size for m", "larger max_batch_size"),
        ('input [ { name: "z" data_type: TYPE_FP32 dims: 0 } ]', 5, "integer >= 1", "field that the message names"),
        ("max_batchsize: 4", 5, 'no field named "max_batchsize"', "write max_batch_size, if that is meant; there are"),
        ("instance_group { kind: CPU }", 5, "no value named CPU", "write KIND_CPU, if that is meant; there are"),
        ("version_policy { nonsense: 1 }", 5, "no field named", "there are all, latest, specific"),
        ("""runtime: 'Message type "a.b" has no field named "c"' !""", 5, "has no field named", "mend it"),
        ("instance_group { count: 1 } // two", 5, "got /", "comments begin with #"),
        ('metric_tags { key: "a b" value: "c" }', 5, "the whole server ends", "letters"),
    ],
)
def test_an_error_has_its_line_and_a_remedy(tmp_path: Path, text: str, line: int, words: str, remedy: str) -> None:
    found = errors(put(tmp_path, "m", PLAIN + text))[0]
    assert words in found.message
    assert remedy in found.remedy
    assert (found.file, found.line) == ("m/config.pbtxt", line)


def test_a_policy_that_loads_no_version_says_which_there_are(tmp_path: Path) -> None:
    (found,) = errors(put(tmp_path, "m", PLAIN + "version_policy { specific { versions: 3 } }"))
    assert found.remedy == "change version_policy (the folders are 1), or put the model file into m/3/"


def test_an_edge_is_named_with_both_its_ends(tmp_path: Path) -> None:
    put(tmp_path, "a", PLAIN)
    put(tmp_path, "b", PLAIN.replace("FP32", "INT64", 1))
    put(tmp_path, "both", CHAIN)
    found = errors(tmp_path)
    assert [(item.model, item.line) for item in found] == [("both", 7)]
    assert "'mid'" in found[0].remedy
    assert found[0].message == (
        "in ensemble both, ensemble tensor mid: inconsistent data type: TYPE_FP32 is inferred from model a while "
        "TYPE_INT64 is inferred from model b"
    )


def test_a_member_that_completes_itself_is_not_judged(tmp_path: Path) -> None:
    code = "class TritonPythonModel:\n    @staticmethod\n    def auto_complete_config(config):\n        return config\n"
    put(tmp_path, "a", 'backend: "python"\nmax_batch_size: 8\n', code)
    put(tmp_path, "b", PLAIN)
    put(tmp_path, "both", CHAIN)
    found = validate_repository(tmp_path, "26.07")
    assert not has_errors(found)
    assert any("edges to a are not judged" in item.message for item in found)


def test_kind_gpu_is_judged_for_the_machine_that_is_named(tmp_path: Path) -> None:
    put(tmp_path, "m", PLAIN + "instance_group { kind: KIND_GPU gpus: [ 1 ] }")
    assert has_errors(validate_repository(tmp_path, "26.07"))
    assert has_errors(validate_repository(tmp_path, "26.07", gpus=1))
    assert not has_errors(validate_repository(tmp_path, "26.07", gpus=2))


def test_what_the_server_completes_is_a_configuration_it_accepts(tmp_path: Path) -> None:
    repository = put(tmp_path / "given", "m", PLAIN.replace('backend: "python"', "") + "dynamic_batching { }")
    ((name, note, text),) = completed_texts(repository, "26.07")
    assert (name, note) == ("m", "")
    assert 'backend: "python"' in text
    assert "preferred_batch_size: [ 8 ]" in text
    written = put(tmp_path / "written", "m", text)
    assert not errors(written)
    (again,) = scan_repository(written)
    assert completed_config(again).config == again.config


def test_mutated_texts_give_findings_and_never_a_traceback(tmp_path: Path) -> None:
    chance = random.Random(5)
    put(tmp_path, "a", PLAIN)
    put(tmp_path, "b", PLAIN + "dynamic_batching { }\ninstance_group { count: 2 }\nsequence_batching { direct { } }")
    put(tmp_path, "m", CHAIN)
    seeds = [(name, (tmp_path / name / "config.pbtxt").read_text(encoding="utf-8")) for name in "abm"]
    refused = 0
    for _ in range(300):
        name, text = chance.choice(seeds)
        words = text.split(" ")
        for _ in range(chance.randint(1, 3)):
            place = chance.randrange(len(words))
            words[place] = chance.choice(["", "-1", "0", "{", "}", '""', chance.choice(words), words[place] * 2])
        path = tmp_path / name / "config.pbtxt"
        path.write_text(" ".join(words), encoding="utf-8")
        refused += has_errors(run_checks(tmp_path, CheckContext("26.07", auto_complete=True)))
        path.write_text(text, encoding="utf-8")
    assert 0 < refused <= 300


def test_an_unknown_release_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="unknown Triton release"):
        list(completed_texts(put(tmp_path, "m", PLAIN), "19.01"))


@pytest.mark.parametrize("name", ["2", "labels.txt"])
def test_a_link_that_leads_nowhere_beside_the_configuration(tmp_path: Path, name: str) -> None:
    """As the real server said: it looks at everything there."""
    put(tmp_path, "m", PLAIN)
    assert errors(tmp_path) == []
    (tmp_path / "m" / name).symlink_to("nowhere")
    found = errors(tmp_path)
    assert [item.check for item in found] == ["structure.link"]
    assert found[0].message.startswith(f"failed to stat file m/{name}")


def test_a_link_in_the_root_that_leads_nowhere_ends_the_server(tmp_path: Path) -> None:
    put(tmp_path, "m", PLAIN)
    (tmp_path / "old").symlink_to("old")
    assert [(item.check, item.file) for item in errors(tmp_path)] == [("structure.link", "old")]


def test_links_that_lead_somewhere_are_as_good_as_folders(tmp_path: Path) -> None:
    put(tmp_path, "m", PLAIN)
    (tmp_path / "m" / "2").symlink_to("1")
    (tmp_path / "other").symlink_to("m")
    assert errors(tmp_path) == []


def test_an_ensemble_is_completed_with_what_its_members_make_of_it(tmp_path: Path) -> None:
    """The server overwrites `decoupled`, also where the member is an ensemble that is judged later."""
    outer = CHAIN.replace('"a"', '"z"').replace('key: "x"', 'key: "in"', 1).replace('key: "y"', 'key: "out"', 1)
    put(tmp_path, "outer", outer + "model_transaction_policy { decoupled: true }")
    put(tmp_path, "z", CHAIN)
    put(tmp_path, "a", PLAIN)
    put(tmp_path, "b", PLAIN)
    found = {name: text for name, _, text in completed_texts(tmp_path, "26.07")}
    assert "decoupled" not in found["outer"]
    (tmp_path / "a" / "config.pbtxt").write_text(PLAIN + "model_transaction_policy { decoupled: true }\n")
    found = {name: text for name, _, text in completed_texts(tmp_path, "26.07")}
    assert "decoupled: true" in found["outer"]
    assert "decoupled: true" in found["z"]


@pytest.mark.parametrize(
    ("folder", "config", "line"),
    [
        ("m", PLAIN + "instance_group { }", 'name: "m_0"'),
        ("m", PLAIN, 'name: "m"'),
        ("m.python", "max_batch_size: 2", 'default_model_filename: "model.python"'),
    ],
)
def test_names_that_the_server_gives(tmp_path: Path, folder: str, config: str, line: str) -> None:
    put(tmp_path, folder, config)
    (tmp_path / folder / "1" / "model.py").rename(tmp_path / folder / "1" / "code")
    ((_, _, text),) = completed_texts(tmp_path, "26.07")
    assert line in text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("instance_group { kind: KIND_CPU passive: true }", "answers no request"),
        (
            'parameters { key: "TRITON_BATCH_STRATEGY_PATH" value { string_value: "/opt/x.so" } }',
            "path of the machine that serves",
        ),
    ],
)
def test_what_loads_and_is_worth_a_look_is_a_warning(tmp_path: Path, text: str, words: str) -> None:
    put(tmp_path, "m", PLAIN + text)
    (found,) = validate_repository(tmp_path, "26.07")
    assert found.severity == "warning"
    assert words in found.message


@pytest.mark.parametrize(
    ("platform", "words"), [("caffe2_netdef", "export the network to ONNX"), ("custom", "model.py")]
)
def test_a_platform_of_long_ago_says_where_its_model_goes(tmp_path: Path, platform: str, words: str) -> None:
    config = PLAIN.replace('backend: "python"', f'platform: "{platform}"\ndefault_model_filename: "lib.so"')
    (found,) = errors(put(tmp_path, "m", config))
    assert words in found.remedy
