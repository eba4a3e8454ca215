from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder.errors import SpecError
from builder.spec import RepoSpec, check_name
from builder.spec_file import default_name, load_spec, spec_from_models


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("spec")
    tiny_models.linear(made / "m.onnx")
    (made / "names.txt").write_text("a\nb\nc\n", encoding="utf-8")
    return made


def load(folder: Path, text: str, **overrides: Any) -> RepoSpec:
    (folder / "models.yaml").write_text(text, encoding="utf-8")
    return load_spec(folder / "models.yaml", overrides)


def refusal(folder: Path, text: str, **overrides: Any) -> str:
    with pytest.raises(SpecError) as error:
        load(folder, text, **overrides)
    return error.value.message


def model(**words: Any) -> str:
    return yaml.safe_dump({"models": [{"name": "m", "source": {"path": "m.onnx"}, **words}]})


def test_everything_left_out_is_filled_in(folder: Path) -> None:
    spec = load(folder, model())
    made = spec.models[0]
    assert spec.triton == "26.07"
    assert made.source.path == (folder / "m.onnx").resolve()
    assert made.source.format == "onnx"
    assert made.source.import_root == folder.resolve()
    assert made.targets == ("onnxruntime:fp32", "openvino:fp32")
    assert made.serve == "best"
    assert made.versions is not None
    assert made.versions.keep == 2


def test_defaults_hold_for_every_model_that_says_nothing(folder: Path) -> None:
    text = """
defaults: {targets: [onnxruntime], serve: all, versions: {keep: 5}}
models:
  - {name: a, source: {path: m.onnx}}
  - {name: b, source: {path: m.onnx}, targets: [openvino:fp16], serve: best, versions: {keep: 1}}
"""
    first, second = load(folder, text).models
    assert (first.targets, first.serve, first.versions and first.versions.keep) == (("onnxruntime:fp32",), "all", 5)
    assert (second.targets, second.serve, second.versions and second.versions.keep) == (("openvino:fp16",), "best", 1)


def test_a_default_drop_is_for_the_models_with_labels(folder: Path) -> None:
    """The others are judged by bounds on tensors, and have nothing to be warned of; where none is labelled all have."""
    (folder / "s.npz").touch()
    text = """
defaults: {accuracy: {metric: top1, max_drop: 0.01, min_cosine: 0.9}}
models:
  - {name: plain, source: {path: m.onnx}}
  - {name: own, source: {path: m.onnx}, accuracy: {max_drop: 0.5}}
"""
    labelled = "  - {name: labelled, source: {path: m.onnx}, samples: {path: s.npz, labels: label}}\n"
    drops = [
        model.accuracy and (model.accuracy.max_drop, model.accuracy.min_cosine) for model in load(folder, text).models
    ]
    assert drops == [(0.01, 0.9), (0.5, None)]
    found = load(folder, text + labelled).models
    assert [model.accuracy and model.accuracy.max_drop for model in found] == [None, 0.5, 0.01]
    assert found[0].accuracy is not None
    assert found[0].accuracy.min_cosine == 0.9


def test_the_command_line_wins(folder: Path) -> None:
    spec = load(
        folder, model(targets=["openvino:fp16"]), targets=["onnxruntime:fp32"], triton="26.06", serve="onnxruntime"
    )
    assert spec.triton == "26.06"
    assert spec.models[0].targets == ("onnxruntime:fp32",)
    assert spec.models[0].serve == "onnxruntime:fp32"


@pytest.mark.parametrize(("written", "read"), [("26.07", "26.07"), ('"26.06"', "26.06"), ("25.10", "25.10")])
def test_an_unquoted_release_keeps_its_zero(folder: Path, written: str, read: str) -> None:
    assert load(folder, f"triton: {written}\n{model()}").triton == read


MANY = """triton: "99.13"
defaults:
  targets: [onnxrutime:fp32]
models:
  - name: a/b
    source: {path: nowhere.onnx, formt: onnx}
    inputs:
      - {name: x, dtype: flot32, shape: [0, 3]}
  - name: c
    source:
      path: m.onnx
      model: not a callable
    batching: {max_batch_size: -1}
    tragets: [openvino:fp32]
"""


def test_every_wrong_type_is_said_at_once_with_path_and_line(folder: Path) -> None:
    said = refusal(folder, MANY)
    for line, path, words in [
        (5, "models[0].name", "'a/b' is no model name"),
        (6, "models[0].source.formt", "unknown key 'formt'; did you mean 'format'?"),
        (8, "models[0].inputs[0].dtype", "'flot32' is no dtype; one of "),
        (8, "models[0].inputs[0].shape[0]", "0 is no size"),
        (12, "models[1].source.model", "is no callable; write module:function"),
        (13, "models[1].batching.max_batch_size", "greater than or equal to 0, got -1"),
        (14, "models[1].tragets", "unknown key 'tragets'; did you mean 'targets'?"),
    ]:
        assert re.search(rf"line {line}: {re.escape(path)}: .*{re.escape(words)}", said), f"{path}\n{said}"
    assert "7 errors" in said
    lines = [int(number) for number in re.findall(r"^  line (\d+):", said, re.MULTILINE)]
    assert lines == sorted(lines)


WRONG_WORDS = """triton: "99.13"
defaults:
  targets: [onnxrutime:fp32]
models:
  - name: a
    source: {path: nowhere.onnx}
    serve: openvino:int3
  - name: a
    source: {path: m.onnx, format: onxn}
    targets: [openvino:int3, openvino, "openvino:fp32", a:b:c]
    samples: {path: gone.npz}
    class_names: gone.txt
"""


def test_every_impossible_word_is_said_at_once_with_path_and_line(folder: Path) -> None:
    said = refusal(folder, WRONG_WORDS)
    for line, path, words in [
        (1, "triton", "99.13"),
        (3, "defaults.targets[0]", "no backend 'onnxrutime'; did you mean 'onnxruntime'?"),
        (6, "models[0].source.path", "no such file or folder"),
        (7, "models[0].serve", "openvino:int3 is not among the targets"),
        (8, "models[1].name", "'a' is also the name of models[0]"),
        (9, "models[1].source.format", "no format 'onxn'; did you mean 'onnx'?"),
        (10, "models[1].targets[0]", "openvino has no precision 'int3'; it has"),
        (10, "models[1].targets[2]", "openvino:fp32 is listed twice"),
        (10, "models[1].targets[3]", "'a:b:c' is not BACKEND:PRECISION"),
        (11, "models[1].samples.path", "no such file"),
        (12, "models[1].class_names", "no such file"),
    ]:
        assert re.search(rf"line {line}: {re.escape(path)}: .*{re.escape(words)}", said), f"{path}\n{said}"
    assert "11 errors" in said


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "a spec is a mapping with the key 'models'"),
        ("- a\n", "a spec is a mapping with the key 'models'"),
        ("triton: '26.07'\n", "the key 'models' is missing"),
        ("models: []\n", "the list is empty"),
        ("models: 3\n", "line 1: models: expected a list: begin each element with '- '"),
        ("models: [3]\n", "line 1: models[0]: got 3, expected keys and values"),
        ("models: [{name: a, source: m.onnx}]\n", "got 'm.onnx', expected keys and values: {path: m.onnx}"),
        ("models: [{name: a, source: {path: m.onnx}, samples: s.npz}]\n", "expected keys and values: {path: s.npz}"),
        ("models: [{name: a}]\n", "models[0].source: the key 'source' is missing"),
        ("models: [\n", "line 2: "),
        ("models: []\nmodels: []\n", "line 2: 'models' is written twice"),
        ("triton: 26\nmodels: []\n", "26 is no Triton release"),
        ("1: 2\nmodels: []\n", "line 1"),
        ("zzz: 2\nmodels: [{name: a, source: {path: m.onnx}}]\n", "unknown key 'zzz'; known: triton, defaults, models"),
    ],
)
def test_a_file_that_is_no_spec(folder: Path, text: str, says: str) -> None:
    assert says in refusal(folder, text)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"targets": []}, "models[0].targets: the list is empty"),
        ({"serve": "fastest"}, "'fastest' is none of best, all, BACKEND:PRECISION"),
        ({"targets": ["a:b:c"], "serve": "onnxruntime"}, "'a:b:c' is not BACKEND:PRECISION"),
        ({"inputs": [{"name": "x", "shape": [1]}, {"name": "x", "shape": [1]}]}, "input 'x' is declared twice"),
        ({"inputs": [{"name": "", "shape": [1]}]}, "at least 1 character"),
        ({"inputs": [{"name": "x", "shape": [1.5]}]}, "1.5 is no dimension"),
        ({"inputs": [{"name": "x", "shape": [True]}]}, "True is no dimension"),
        ({"inputs": [{"name": "x", "shape": [" "]}]}, "a dimension's name is empty"),
        ({"batching": {"preferred": [16]}}, "preferred size 16 is larger than max_batch_size 8"),
        ({"batching": {"preferred": [0]}}, "preferred batch sizes must be at least 1"),
        ({"versions": {"keep": 0}}, "greater than or equal to 1, got 0"),
        ({"accuracy": {"metric": "top9"}}, "top1"),
        ({"accuracy": {"min_cosine": "0.9"}}, "valid number, got '0.9'"),
        ({"instances": {"kind": "tpu"}}, "'auto', 'cpu' or 'gpu'"),
        ({"source": {"path": "x" * 300}}, "no such file or folder"),
        ({"source": {"path": "."}}, "is a directory that is no model"),
        ({"source": {"path": "names.txt"}}, "is a text file, no model"),
        ({"source": {"path": "m.onnx", "model": "x"}}, "is no callable"),
    ],
)
def test_a_wrong_word(folder: Path, words: dict[str, Any], says: str) -> None:
    said = refusal(folder, model(**words))
    assert says in said
    assert "line " in said


@pytest.mark.parametrize(
    "name", ["a/b", "a b", "..", "a..b", ".a", "a.", "-a", "", "ä", "a\n", "a\\b", "build-repo.json", "x" * 201]
)
def test_a_name_that_is_no_folder_and_url_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(ValueError, match="model name"):
        check_name(name)
    assert "models[0].name" in refusal(folder, model(name=name))


@given(st.text(max_size=12), st.sampled_from(["", ".onnx", ".pt"]))
def test_a_file_always_gives_a_name_that_is_one(stem: str, suffix: str) -> None:
    check_name(default_name(Path(stem.replace("/", "_").replace("\0", "_") + suffix)))


def test_file_names_become_model_names(tmp_path: Path) -> None:
    path = tiny_models.linear(tmp_path / "PP-OCR v6.onnx")
    assert default_name(path) == "PP-OCR_v6"


def test_a_missing_or_unreadable_spec(folder: Path) -> None:
    with pytest.raises(SpecError, match="no such file"):
        load_spec(folder / "gone.yaml")
    (folder / "binary.yaml").write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(SpecError, match="cannot be read"):
        load_spec(folder / "binary.yaml")
    with pytest.raises(SpecError, match="cannot be read"):
        load_spec(folder)


def test_bare_models_say_where_they_came_from(folder: Path) -> None:
    with pytest.raises(SpecError, match=r"command line: models\[0\]\.source\.path: gone\.onnx: no such file or folder"):
        spec_from_models([{"name": "a", "source": {"path": "gone.onnx"}}], {})


keys = st.sampled_from(
    ["triton", "defaults", "models", "name", "source", "path", "inputs", "shape", "dtype", "targets", "serve",
     "batching", "args", "config", "zzz", "samples", "accuracy"]
)  # fmt: skip
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats()
    | st.sampled_from(["m.onnx", "a", "best", "x:y", "26.07"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys | st.integers(0, 2), inner, max_size=4),
    max_leaves=20,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(st.dictionaries(keys, values, max_size=3), st.lists(st.dictionaries(keys, values, max_size=5), max_size=3))
def test_any_yaml_is_a_spec_or_a_spec_error(folder: Path, data: dict[str, Any], models: list[Any]) -> None:
    text = yaml.safe_dump({**data, "models": models} if models else data)
    try:
        load(folder, text)
    except SpecError as error:
        assert "models.yaml" in error.message


# Sequences

STATES = [{"input": "s", "output": "t"}]


def test_the_words_of_a_sequence_are_completed(folder: Path) -> None:
    (folder / "first.npy").write_bytes(b"")
    words = {"states": [*STATES, {"input": "r", "output": "u", "initial": "first.npy"}]}
    sequence = load(folder, model(sequence=words)).models[0].sequence
    assert sequence is not None
    assert [state.initial for state in sequence.states] == ["zero", str((folder / "first.npy").resolve())]
    assert (sequence.strategy, sequence.max_candidate_sequences, sequence.max_idle_us) == ("oldest", None, 5_000_000)
    assert load(folder, model()).models[0].sequence is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"sequence": {"states": []}}, "sequence.states: Tuple should have at least 1 item"),
        ({"sequence": {"states": [{"input": "s"}]}}, "the key 'output' is missing"),
        ({"sequence": {"states": [*STATES, *STATES]}}, "input 's' belongs to two states"),
        ({"sequence": {"states": STATES, "controls": {"start": "s"}}}, "input 's' has two parts to play"),
        ({"sequence": {"states": STATES, "controls": {"begin": "b"}}}, "Input should be 'start', 'end', 'ready'"),
        ({"sequence": {"states": STATES, "strategy": "newest"}}, "Input should be 'oldest' or 'direct'"),
        (
            {"sequence": {"states": STATES, "strategy": "direct", "max_candidate_sequences": 3}},
            "max_candidate_sequences belongs to strategy oldest",
        ),
        (
            {"sequence": {"states": [{**STATES[0], "initial": "nowhere.npy"}]}},
            "sequence.states[0].initial: nowhere.npy: no such file; write zero, or",
        ),
        (
            {"sequence": {"states": STATES}, "inputs": [{"name": "x", "shape": ["n"]}]},
            "sequence: 's' is not among the inputs x",
        ),
        ({"sequence": {"states": STATES}, "outputs": ["y"]}, "sequence: 't' is not among the outputs y"),
        (
            {"sequence": {"states": STATES}, "warmup": {"samples": 1}},
            "warmup: a warm-up request belongs to no sequence",
        ),
        ({"sequence": {"states": STATES}, "batching": {"dynamic": False}}, "the sequence batcher takes the place"),
        (
            {"sequence": {"states": STATES, "strategy": "direct"}, "batching": {"preferred": [4]}},
            "strategy direct has no preferred sizes",
        ),
        ({"sequence": {"states": STATES}, "config": {"dynamic_batching": {}}}, "a model has one scheduler"),
        (
            {"sequence": {"states": STATES}, "config": {"sequence_batching": {"state": []}}},
            "config.sequence_batching.state: decided by sequence: {states: …}",
        ),
        ({"samples": {"path": "m.onnx", "sequence_id": "id"}}, "the model has no sequence"),
    ],
)
def test_what_cannot_stand_beside_a_sequence(folder: Path, words: dict[str, Any], message: str) -> None:
    said = refusal(folder, model(**words)).replace(f"{folder}/", "")
    assert message in said


def test_a_sequence_without_conflicts(folder: Path) -> None:
    words = {"sequence": {"states": STATES}, "config": {"sequence_batching": {"iterative_sequence": True}}}
    assert load(folder, model(**words, batching={"max_batch_size": 4, "preferred": [2]})).models[0].sequence
