"""The tables of the docs against those of the code, and every spec of the guide to sources, built."""

import json
import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from command_line import ROOT, environment, run

from builder.backends import BACKENDS, backend_module
from builder.frameworks.python.code import init_arguments, parse
from builder.sources import SOURCES, source_module
from builder.spec import RepoSpec
from builder.spec_conflicts import conflicts
from builder.steps import STEPS, step_file

README = ROOT / "README.md"
SOURCES_PAGE = ROOT / "docs" / "guides" / "sources.md"
CONFIG_PAGE = ROOT / "docs" / "guides" / "config.md"
SPEC_PAGE = ROOT / "docs" / "guides" / "spec.md"
STEPS_PAGE = ROOT / "docs" / "guides" / "steps.md"
TENSORRT_PAGE = ROOT / "docs" / "guides" / "tensorrt.md"
ARCHITECTURE = ROOT / "docs" / "architecture.md"

MAKE_TORCH = """
import torch, transformers
import my_nets

torch.manual_seed(0)
network = my_nets.build(5).eval()
torch.save(network.state_dict(), "weights.pth")
torch.save(network, "whole.pt")
torch.jit.script(network).save("net.pt")
program = torch.export.export(network, (torch.ones(3, 8),), dynamic_shapes=({0: torch.export.Dim("batch")},))
torch.export.save(program, "net.pt2")
config = transformers.BertConfig(
    hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, vocab_size=60,
    max_position_embeddings=40,
)
transformers.BertForSequenceClassification(config).eval().save_pretrained("bert")
"""
MAKE_SKLEARN = """
import joblib, numpy as np, onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

rng = np.random.default_rng(0)
rows = rng.standard_normal((60, 4))
joblib.dump(make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, rows.sum(1) > 0), "pipeline.joblib")
ports = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, size])] for name, size in (("x", 16), ("y", 4))]
weights = numpy_helper.from_array(rng.standard_normal((16, 4)).astype(np.float32), "w")
graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", *ports, [weights])
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "model.onnx")
"""
MAKE_TENSORFLOW = """
import pathlib
from builder.frameworks.tensorflow.framework import import_tensorflow

tf = import_tensorflow()
import my_keras

model = my_keras.build(3)
model.save("model.keras")
model.save_weights("model.weights.h5")
tf.train.Checkpoint(model=model).save("checkpoints/run")

class Two(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, name="x")])
    def predict(self, x):
        return {"scores": x + 1}
    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, name="x")])
    def embed(self, x):
        return {"vector": x * 2}

two = Two()
tf.saved_model.save(two, "saved_model", signatures={"serving_default": two.predict, "embed": two.embed})
v1 = tf.compat.v1
pathlib.Path("old").mkdir()
with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
    x = v1.placeholder(tf.float32, (None, 4), "x")
    weights = v1.get_variable("w", initializer=tf.ones((4, 2)))
    tf.nn.relu(x @ weights, name="y")
    session.run(v1.global_variables_initializer())
    v1.train.Saver().save(session, "old/model.ckpt")
"""


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text(path), re.MULTILINE | re.DOTALL)


def table(path: Path, heading: str) -> tuple[dict[str, list[str]], list[str]]:
    """The table whose first column is `heading`: rows by their first word, and the headings."""
    lines = text(path).partition(f"\n| {heading} |")[2].split("\n\n")[0].splitlines()
    headings, _, *rows = (re.split(r"\s*(?<!\\)\|\s*", line.strip().strip("|").strip()) for line in lines)
    return {re.sub(r"\[?`([\w+]+)`.*", r"\1", row[0]): row for row in rows}, [heading, *headings]


@pytest.mark.parametrize("path", [README, SOURCES_PAGE], ids=["readme", "guide"])
def test_every_format_stands_in_the_table_with_its_extra(path: Path) -> None:
    rows, headings = table(path, "format")
    place = headings.index("extra")
    found = {word: row[place].strip("`") for word, row in rows.items()}
    assert list(found.items()) == [(word, source_module(word).EXTRA or "none") for word in SOURCES]


def test_every_format_has_a_section_with_a_spec() -> None:
    sections = re.split(r"^## ", text(SOURCES_PAGE), flags=re.MULTILINE)[1:]
    found = {section.partition("\n")[0]: "```yaml" in section for section in sections}
    assert {word for word, shown in found.items() if shown} == set(SOURCES)


def test_every_spec_of_the_guide_to_tensorrt_is_one() -> None:
    specs = [RepoSpec.model_validate(yaml.safe_load(block)) for block in blocks(TENSORRT_PAGE, "yaml")]
    assert {bool(model.tensorrt or model.onnxruntime) for spec in specs for model in spec.models} == {True}


def test_every_spec_of_the_guide_to_the_spec_is_one() -> None:
    specs = [RepoSpec.model_validate(yaml.safe_load(block)) for block in blocks(SPEC_PAGE, "yaml")]
    assert any(model.sequence for spec in specs for model in spec.models)


def test_every_spec_of_the_guide_to_configurations_has_no_contradiction() -> None:
    specs = [RepoSpec.model_validate(yaml.safe_load(block)) for block in blocks(CONFIG_PAGE, "yaml")]
    for spec in specs:
        for model in spec.models:
            targets = model.targets or spec.defaults.targets
            assert list(conflicts(model, targets, spec.triton, ROOT, ("models", 0))) == []
    assert any(model.configs for spec in specs for model in spec.models)


def test_every_spec_of_the_guide_to_steps_is_one_and_its_table_is_true() -> None:
    specs = [RepoSpec.model_validate(yaml.safe_load(block)) for block in blocks(STEPS_PAGE, "yaml")]
    assert {model.source.step for spec in specs for model in spec.models} == {*STEPS, None}
    rows, headings = table(STEPS_PAGE, "step")
    assert set(rows) == set(STEPS)
    for word, row in rows.items():
        files = {*STEPS[word].files, *STEPS[word].optional}
        takes, _ = init_arguments(parse(step_file(word)), STEPS[word].function)
        assert re.findall(r"`(\w+)`", row[headings.index("args")]) == [name for name in takes if name not in files]
        assert set(re.findall(r"`(\w+)`", row[headings.index("files")])) == files


def test_every_backend_stands_in_the_table_of_targets() -> None:
    rows, headings = table(README, "backend")
    assert set(rows) == set(BACKENDS)
    for word, row in rows.items():
        backend = backend_module(word)
        targets = re.findall(r"`([^`]+)`", row[headings.index("targets")])
        assert targets == [f"{word}:{precision}" for precision in backend.GRAPHS]
        assert row[headings.index("extra")].strip("`") == backend.EXTRA or (not backend.EXTRA and "none" in row)


def test_every_extra_is_one_of_the_package() -> None:
    project = tomllib.loads(text(ROOT / "pyproject.toml"))["project"]["optional-dependencies"]
    modules = [*map(source_module, SOURCES), *map(backend_module, BACKENDS)]
    extras = {module.EXTRA for module in modules} - {""}
    assert extras <= set(project)
    (everything,) = project["all"]
    assert all(extra in re.split(r"[\[\],]", everything) for extra in extras)


def test_every_module_stands_in_the_list_of_packages() -> None:
    section = text(ARCHITECTURE).partition("## Packages")[2].partition("\n## ")[0]
    listed = set(re.findall(r"\]\(\.\./builder/(\w+(?:\.py|/))\)", section))
    folder = ROOT / "builder"
    files = {path.name for path in folder.glob("*.py") if not path.name.startswith("__")}
    packages = {f"{path.parent.name}/" for path in folder.glob("*/__init__.py")} | {"triton_backends/"}
    assert sorted((files | packages) - listed) == []


def test_the_benchmarks_and_their_limits_are_those_of_the_program() -> None:
    from benchmarks import (
        cold_build,
        cpu_image,
        embedded_server,
        help_time,
        large_model,
        live_check,
        load_test,
        precision,
        rebuild,
        tune,
        tune_baselines,
        validate,
    )
    from benchmarks.__main__ import BENCHMARKS

    rows = text(README).partition("| name | figure | limit |\n|---|---|---|\n")[2].split("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert {name.strip("`") for name, _, _ in cells if name} == set(BENCHMARKS)
    limits = [float(re.findall(r"[\d.]+", limit)[0]) for _, _, limit in cells]
    assert limits == [
        help_time.LIMIT_S, validate.LIMIT_S, validate.GROWTH_LIMIT, validate.ONE_LIMIT_S,
        rebuild.LIMIT_S, 0, cold_build.LIMIT_S, cold_build.LIMIT_OVER_GB,
        large_model.LIMIT_OVER_GB, precision.CNN_SPEED, precision.FP16_SIZE, precision.INT8_SIZE, precision.FP16_DROP,
        precision.INT8_DROP, precision.TRANSFORMER_SPEED, precision.COSINE, 0, embedded_server.LIMIT,
        live_check.LIMIT_S, load_test.COST_LIMIT, load_test.SEARCH_LIMIT_PERCENT, load_test.SEARCH_LIMIT_S,
        load_test.LOG_LIMIT_PERCENT, load_test.CLIENT_LIMIT_PERCENT, cpu_image.LIMIT_MB, cpu_image.LIMIT_S,
        tune.FOUND, tune.SPENT, tune.SEARCH_S, tune.REPEATED, tune.DISTURBED, tune_baselines.OVER_PLAIN,
        tune_baselines.OVER_TORCH, tune_baselines.OF_PROCESS, tune_baselines.BASELINE,
    ]  # fmt: skip


def test_the_ways_to_add_a_row_name_what_the_protocols_ask_for() -> None:
    steps = text(ARCHITECTURE).partition("## Adding a row")[2].partition("\n## ")[0]
    for name in ("LIBRARIES", "EXTRA", "recognise", "describe", "load", "GRAPHS", "FILENAME", "DEFERS", "missing",
                 "refuses", "convert", "open_session", "SOURCES", "BACKENDS", "CHECKS", "SERVERS"):  # fmt: skip
        assert f"`{name}`" in steps


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Tiny models under the names that the guide uses, and the code that it shows."""
    for block in blocks(SOURCES_PAGE, "python"):
        (tmp_path / block.partition("\n")[0].removeprefix("# ")).write_text(block, encoding="utf-8")
    for script in (MAKE_SKLEARN, MAKE_TORCH, MAKE_TENSORFLOW):
        command = [sys.executable, "-c", script]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, done.stderr
    return tmp_path


@pytest.mark.slow
@pytest.mark.skipif(
    not all(map(find_spec, ("torch", "transformers", "sklearn", "tensorflow"))), reason="needs every framework"
)
def test_every_spec_of_the_guide_is_built(folder: Path) -> None:
    models = [model for block in blocks(SOURCES_PAGE, "yaml") for model in yaml.safe_load(block)["models"]]
    (folder / "all.yaml").write_text(yaml.safe_dump({"models": models}), encoding="utf-8")
    words = ("--check", "none", "--targets", "onnxruntime:fp32", "--json")
    ran = run("build", "all.yaml", "-o", "repository", *words, cwd=folder, timeout=480)
    assert ran.code == 0, ran.err
    assert {model["name"] for model in models} == {
        path.parent.name for path in folder.glob("repository/*/config.pbtxt")
    }
    manifest = json.loads(text(folder / "repository" / "build-repo.json"))
    assert {record["source_format"] for record in manifest["models"].values()} == set(SOURCES)
