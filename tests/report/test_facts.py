"""What a report says of a repository, as data."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import build
from tuned import CHOSEN, DEFAULT, OBJECTIVE, tuned_model, with_tuning

from builder.errors import SpecError
from builder.findings import Finding
from builder.manifest import read_manifest, write_manifest
from builder.records import from_json
from builder.report import read_facts, render, words
from builder.report.charts import log_axis, roomiest
from builder.report.choice import headline
from builder.report.page import render_page
from builder.report.plots import measured_plots
from builder.report.provenance import tune_command
from builder.report.records import ModelFacts, RepositoryFacts, TargetFacts
from builder.report.standing import Standing
from builder.report.tuning_plots import settings_table, tuning_plots
from builder.report.words import percent


def model(facts: RepositoryFacts, name: str) -> ModelFacts:
    return next(item for item in facts.models if item.name == name)


def target(facts: RepositoryFacts, name: str, word: str) -> TargetFacts:
    return next(item for item in model(facts, name).targets if item.target == word)


@pytest.fixture(scope="module")
def facts(built: Path) -> RepositoryFacts:
    return read_facts(built / "repo")


@pytest.fixture(scope="module")
def tuned(tuned_repository: Path) -> RepositoryFacts:
    return read_facts(tuned_repository)


def test_every_target_is_there_with_its_verdict(facts: RepositoryFacts) -> None:
    found = {(item.name, other.target): other.status for item in facts.models for other in item.targets}
    assert found == {
        ("classifier", "onnxruntime:fp32"): "built", ("classifier", "onnxruntime:int8"): "built",
        ("classifier", "openvino:fp16"): "built", ("classifier", "openvino:int8"): "built",
        ("lossy", "onnxruntime:fp32"): "built", ("lossy", "openvino:fp16"): "rejected",
        ("lossy", "tensorrt:fp32"): "deferred",
        ("doubles", "onnxruntime:fp32"): "built", ("doubles", "openvino:fp32"): "failed",
        ("linear", "onnxruntime:fp32"): "built", ("best", "python:native"): "built",
    }  # fmt: skip
    assert facts.headline.startswith("5 models and 1 ensemble for Triton 26.07; 11 targets, ")
    assert "1 failed, 1 rejected, 1 deferred; 0 of 5 tuned" in facts.headline
    assert target(facts, "lossy", "openvino:fp16").verdict.startswith("rejected: output 'y': largest error")
    assert target(facts, "lossy", "tensorrt:fp32").verdict.startswith("deferred: tensorrt:fp32 cannot be built here")
    assert (
        "float64" in target(facts, "doubles", "openvino:fp32").verdict.lower()
        or "FP64" in target(facts, "doubles", "openvino:fp32").verdict
    )


def test_figures_are_those_of_the_manifest(facts: RepositoryFacts, built: Path) -> None:
    manifest = json.loads((built / "repo/build-repo.json").read_text(encoding="utf-8"))
    for item in manifest["models"]["classifier"]["targets"]:
        word = "{backend}:{precision}".format_map(item["target"])
        timing = manifest["run"]["timings"]["classifier"][word]
        found = target(facts, "classifier", word)
        assert found.size_bytes == item["size_bytes"]
        assert found.error == item["numbers"]["outputs"][0]["max_relative"]
        assert found.cosine == item["numbers"]["outputs"][0]["cosine"]
        assert found.latency_ms == timing["latency"][0]["median_ms"]
        assert found.rows_per_s == pytest.approx(
            max(1000 * entry["batch_size"] / entry["median_ms"] for entry in timing["latency"])
        )
        assert found.memory_bytes == timing["peak_memory_bytes"]
        assert found.libraries["onnxruntime"] == item["works"]["export"]["libraries"]["onnxruntime"]
        assert found.convert_key == item["convert_key"]
    served = {item.folder: item for entry in facts.models for item in entry.folders}
    assert served["classifier"].files == manifest["models"]["classifier"]["served"][0]["files"]
    assert all(not folder.changed for folder in served.values())


def test_a_model_that_was_not_tuned_says_so_and_what_to_type(facts: RepositoryFacts) -> None:
    lossy = model(facts, "lossy")
    assert lossy.why.startswith("No tuning: onnxruntime:fp32 is the only target that passed")
    assert "next: build-repo tune models.yaml, which measures on the live server" in lossy.why
    assert "tensorrt:fp32: deferred, nothing of it was measured" in lossy.why
    assert lossy.tuning is None
    assert "Served as onnxruntime:fp32" in lossy.headline


def test_what_the_spec_names_is_not_called_the_best(repository: Path) -> None:
    """The served target is made the slower one."""
    manifest = read_manifest(repository)
    assert manifest is not None
    assert manifest.models["classifier"].serve == "onnxruntime:fp32"
    timings = dict(manifest.run.timings["classifier"])
    slow = timings["onnxruntime:fp32"]
    latency = tuple(replace(item, median_ms=50.0) for item in slow.latency)
    timings["onnxruntime:fp32"] = replace(slow, latency=latency)
    run = replace(manifest.run, timings={**manifest.run.timings, "classifier": timings})
    write_manifest(repository, replace(manifest, run=run))
    found = model(read_facts(repository), "classifier")
    assert found.why.startswith("No tuning: the spec names onnxruntime:fp32 (serve:); ")
    assert "as slow as" in found.why
    assert "as slow as" in found.headline


@pytest.mark.parametrize(
    ("objective", "says"),
    [
        ("latency", "by in-process latency (the median of the smallest request)"),
        ("throughput", "by in-process throughput (rows a second at the best batch size measured)"),
        ("memory", "by in-process memory (the peak of the measuring process)"),
    ],
)
def test_a_choice_by_measurement_names_what_was_measured(
    built: Path, tmp_path: Path, objective: str, says: str
) -> None:
    (built / f"{objective}.yaml").write_text(
        "models:\n  - name: classifier\n    source: {path: digits.onnx}\n"
        "    samples: {path: digits.npz, labels: label}\n"
        f"    targets: [onnxruntime:fp32, openvino:int8]\n    objective: {objective}\n",
        encoding="utf-8",
    )
    repository = tmp_path / "repo"
    ran = build(f"{objective}.yaml", "-o", repository, "--json", cwd=built)
    assert ran.code == 0, ran.err
    choice = ran.document["models"][0]["choice"]
    found = model(read_facts(repository), "classifier")
    assert found.why.startswith(f"No tuning: best of 2 passing targets {says}; next: build-repo tune {objective}.yaml")
    best = (max if objective == "throughput" else min)(choice["values"], key=choice["values"].get)
    assert found.served == best
    units = {"latency": "a request in process", "throughput": "rows/s in process", "memory": "of memory in process"}
    assert units[objective] in found.headline


def test_what_the_build_found_of_a_model_and_of_all_is_there(repository: Path) -> None:
    """A model's: what is expected of a deferred target. Of all: nothing here, so one is written into the manifest."""
    manifest = read_manifest(repository)
    assert manifest is not None
    (prior,) = [finding for finding in manifest.run.findings if finding.check == "serve.prior"]
    assert str(repository) not in str(manifest.run.findings)
    everywhere = Finding("warning", "repository.release", "built for two releases", "build them again")
    ensembles = Finding("info", "ensemble.unproven", "nobody knows", model="pipeline")
    found = (*manifest.run.findings, everywhere, ensembles)
    write_manifest(repository, replace(manifest, run=replace(manifest.run, findings=found)))
    facts = read_facts(repository)
    assert prior in model(facts, "lossy").findings
    assert facts.findings == (everywhere,)
    assert ensembles in facts.ensembles[0].findings
    for item in facts.models:
        said = [(finding.check, finding.message) for finding in item.findings]
        assert len(said) == len(set(said)), f"{item.name}: said twice"
    for suffix in (".html", ".md"):
        text = render(facts, suffix)
        assert text.count("built for two releases") == 1
        assert "Findings of the whole build" in text
        assert "is served until then" in text


def test_what_was_found_of_a_model_stays_with_it(built: Path, repository: Path) -> None:
    """A later build that names another model only."""
    text = "models:\n  - {name: doubles, source: {path: doubles.onnx}, targets: [onnxruntime:fp32]}\n"
    (built / "doubles.yaml").write_text(text, encoding="utf-8")
    ran = build("doubles.yaml", "-o", repository, cwd=built, check="offline")
    assert ran.code == 0, ran.err
    facts = read_facts(repository)
    assert [finding.check for finding in model(facts, "lossy").findings].count("serve.prior") == 1
    assert model(facts, "doubles").findings == (), "the target that failed is gone, and so is what was said of it"


def test_the_distribution_of_errors_is_that_of_the_measurement(facts: RepositoryFacts) -> None:
    found = model(facts, "classifier")
    plot = next(plot for plot in measured_plots(found) if plot.key == "deviations")
    columns = plot.numbers.head[1:]
    assert columns == tuple(item.target for item in found.targets)
    classes = [row for row in plot.numbers.rows if all(re.fullmatch(r"[\d,]+", cell) for cell in row[1:])]
    for place, name in enumerate(columns, 1):
        elements = target(facts, "classifier", name).outputs[0].elements
        assert sum(int(row[place].replace(",", "")) for row in classes) == elements
        assert f"{elements:,} numbers" in plot.says
    worst = [row for row in plot.numbers.rows if row[0] == "largest error"]
    assert worst[0][1:] == tuple(percent(item.error) for item in found.targets)
    assert "onnxruntime:fp32" in plot.says


def test_a_tuned_model_is_compared_on_the_live_server(tuned: RepositoryFacts, facts: RepositoryFacts) -> None:
    plots = {plot.key: plot for plot in measured_plots(model(tuned, "classifier"))}
    speed = plots["speed-accuracy"]
    assert speed.says == "Nothing is faster on the live server than openvino:int8, which is served."
    assert speed.reads.endswith("The search did not serve openvino:fp16.")
    assert [row[1] for row in speed.numbers.rows] == ["655 rows/s", "1,010 rows/s", "1,320 rows/s"]
    (untuned,) = [plot for plot in measured_plots(model(facts, "classifier")) if plot.key == "speed-accuracy"]
    assert untuned.numbers.head[1] == "one request"
    assert len(untuned.numbers.rows) == 4


def test_a_tuned_model_is_held_against_its_default(tuned: RepositoryFacts) -> None:
    found = model(tuned, "classifier")
    assert found.served == "openvino:int8"
    assert found.headline.startswith(
        "Served as openvino:int8: 1,320 rows/s with 8 users over gRPC, p99 \u2264 50 ms, "
        "3.2\u00d7 the throughput of the default setting (412 rows/s), top-1 "
    )
    assert found.why.startswith(
        "Setting: openvino:int8, no batching, 2 instances, 1 thread each; by default: onnxruntime:fp32, batches up to 8"
    )
    assert "8 settings of 148 served and measured; no other setting can beat it" in found.why
    values = {card.name: (card.value, card.more) for card in found.cards}
    assert values["Throughput"] == ("1,320 rows/s", "8 users over gRPC; p99 10.9 ms of 50 ms allowed")
    assert values["Gain"] == ("3.2\u00d7", "the default setting's 412 rows/s; 95 %: 3.1\u00d7 to 3.3\u00d7")
    assert target(tuned, "classifier", "openvino:int8").served.rows_per_s == 1320.0
    assert target(tuned, "classifier", "openvino:fp16").served is None
    assert "1 of 5 tuned" in tuned.headline


def test_a_tuning_that_chose_another_target_than_is_served_is_not_praised(repository: Path) -> None:
    with_tuning(repository, "classifier")
    found = model(read_facts(repository), "classifier")
    assert found.served == "onnxruntime:fp32"
    assert "It chose openvino:int8, but onnxruntime:fp32 is served: the spec names it" in found.why
    assert "1,320" not in found.headline
    assert "Gain" not in {card.name for card in found.cards}


def test_a_tuning_of_another_version_of_the_model_counts_for_nothing(repository: Path) -> None:
    with_tuning(repository, "classifier", served="openvino:int8", export_key="0" * 32)
    found = model(read_facts(repository), "classifier")
    assert found.tuning is None
    assert found.why.startswith("Its settings are of a tuning of another model")
    assert found.findings[0].check == "report.tuning"
    assert "0 of 5 tuned, 1 by an outdated tuning" in read_facts(repository).headline


def test_what_the_build_said_of_a_tuning_is_not_said_again(repository: Path) -> None:
    changed = with_tuning(repository, "classifier", served="openvino:int8", export_key="0" * 32)
    told = Finding("warning", "tuning.changed", "m.tuning.yaml was measured with another model", "", "classifier")
    run = replace(changed.run, findings=(*changed.run.findings, told))
    write_manifest(repository, replace(changed, run=run))
    found = model(read_facts(repository), "classifier")
    assert [item for item in found.findings if "tuning" in item.check] == [told]


def test_a_tuning_of_another_machine_is_a_finding(repository: Path) -> None:
    with_tuning(repository, "classifier", served="openvino:int8")
    assert "report.tuning" not in {item.check for item in model(read_facts(repository), "classifier").findings}
    with_tuning(repository, "classifier", served="openvino:int8", machine={"cpu": "Other", "cores": "64"})
    found = model(read_facts(repository), "classifier")
    (finding,) = [item for item in found.findings if item.check == "report.tuning"]
    assert finding.message.startswith("tuned on another machine than it was built on (cpu Other, built on ")
    assert "cores 64, built on " in finding.message
    assert found.tuning is not None, "its figures are shown all the same"


def test_an_slo_that_held_only_with_fewer_users_says_with_how_many(repository: Path) -> None:
    tuned = tuned_model("classifier", "")
    fewer = tuple(
        replace(item, point=replace(item.point, users=3)) if item.setting == CHOSEN else item for item in tuned.tried
    )
    with_tuning(repository, "classifier", served="openvino:int8", tried=fewer)
    found = model(read_facts(repository), "classifier")
    assert "1,320 rows/s with 3 users over gRPC" in found.headline
    assert found.cards[0].more.startswith("3 users over gRPC")


@pytest.mark.parametrize(
    ("objective", "gain", "said"),
    [
        (replace(OBJECTIVE, word="latency", users=1, slo=()), 2.0, "2\u00d7 as quick as the default setting (412 ms)"),
        (replace(OBJECTIVE, word="memory", slo=()), 1.5, "1.5\u00d7 as small as the default setting (412 B)"),
        (OBJECTIVE, 1.0, "as good as the default setting"),
    ],
)
def test_every_objective_has_its_words(repository: Path, objective: object, gain: float, said: str) -> None:
    with_tuning(repository, "classifier", served="openvino:int8", objective=objective, gain=gain)
    facts = read_facts(repository)
    assert said in model(facts, "classifier").headline
    assert render(facts, ".html").count("data-plot") > 8


def test_a_file_that_is_not_as_built_is_a_finding(repository: Path) -> None:
    (repository / "lossy/1/model.onnx").write_bytes(b"other")
    (repository / "doubles/config.pbtxt").unlink()
    facts = read_facts(repository)
    said = {item.name: [f.message for f in item.findings if f.check == "report.changed"] for item in facts.models}
    assert "1 file not as the build left them: 1/model.onnx" in said["lossy"][0]
    assert "config.pbtxt" in said["doubles"][0]
    assert said["classifier"] == said["linear"] == []


def test_versions_and_ensembles_are_there(facts: RepositoryFacts) -> None:
    linear = model(facts, "linear")
    assert [version.version for version in linear.versions] == [1]
    assert linear.versions[0].targets[0].error is not None
    assert linear.versions[0].targets[0].latency_ms is not None
    (pipeline,) = facts.ensembles
    assert [step.member for step in pipeline.steps] == ["linear", "best"]
    assert (
        pipeline.headline
        == "One request through linear \u2192 best; its answers are held against its members' sources."
    )


def test_folders_of_others_are_named(repository: Path) -> None:
    (repository / "foreign/1").mkdir(parents=True)
    facts = read_facts(repository)
    assert facts.others == ("foreign",)
    assert "1 other folder" in facts.headline
    assert "foreign" in render(facts, ".md")


def test_commands_can_be_typed(facts: RepositoryFacts, built: Path) -> None:
    lines = {command.line for command in facts.provenance.commands}
    assert "build-repo build models.yaml -o repo --defer --check offline" in lines
    assert "build-repo tune models.yaml" in lines
    (pins,) = [line for line in lines if line.startswith("pip install ")]
    assert f"onnxruntime=={facts.provenance.libraries['onnxruntime'][0]}" in pins.split()
    assert "absent" not in pins


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("build-repo build 'my models.yaml' -o repo --jobs 1", "build-repo tune 'my models.yaml'"),
        (
            "build-repo build --targets onnxruntime:fp32 a.onnx b.onnx --strict",
            "build-repo tune a.onnx b.onnx --targets onnxruntime:fp32",
        ),
        ("build-repo build a.onnx -o=r --triton=26.07", "build-repo tune a.onnx --triton 26.07"),
        ("build-repo build a.onnx --tuning b.yaml --defer", "build-repo tune a.onnx -o b.yaml"),
        ("build-repo build a.onnx --tuning=none", "build-repo tune a.onnx"),
        (
            "build-repo build a.pt --input x:float32:batch,3 --serve best",
            "build-repo tune a.pt --input x:float32:batch,3",
        ),
        ("something else", "build-repo tune models.yaml"),
        ("build-repo build 'unclosed", "build-repo tune models.yaml"),
    ],
)
def test_the_next_command_is_made_of_the_last(built: Path, command: str, expected: str) -> None:
    manifest = read_manifest(built / "repo")
    assert manifest is not None
    assert tune_command(replace(manifest, run=replace(manifest.run, command=command))) == expected


def test_the_search_can_be_made_again(tuned: RepositoryFacts) -> None:
    """Of the one model that was tuned, with its objective and load."""
    lines = [command.line for command in tuned.provenance.commands if " tune " in command.line]
    again = "build-repo tune models.yaml --objective throughput --users 8 --slo p99=50ms --model classifier"
    assert lines == ["build-repo tune models.yaml", again]


def test_json_holds_every_fact_and_reads_back(tuned: RepositoryFacts) -> None:
    document = json.loads(render(tuned, ".json"))
    assert from_json(RepositoryFacts, document) == tuned
    tuning = next(item for item in document["models"] if item["name"] == "classifier")["tuning"]
    assert (tuning["chosen"]["target"], tuning["default"]["target"]) == (CHOSEN.target, DEFAULT.target)
    assert len(tuning["tried"]) == 8


@pytest.mark.parametrize("suffix", [".html", ".md", ".json"])
def test_the_same_repository_gives_the_same_report(tuned_repository: Path, suffix: str) -> None:
    assert render(read_facts(tuned_repository), suffix) == render(read_facts(tuned_repository), suffix)


def test_figures_that_are_no_numbers_are_shown_as_such(repository: Path) -> None:
    """Infinite errors, and times that were too short to be measured, break no plot and win nothing."""
    manifest = read_manifest(repository)
    assert manifest is not None
    record = manifest.models["lossy"]
    bad = record.targets[1]
    assert bad.numbers is not None
    outputs = (
        replace(bad.numbers.outputs[0], max_relative=float("inf"), max_absolute=float("inf"), cosine=float("nan")),
    )
    targets = (record.targets[0], replace(bad, numbers=replace(bad.numbers, outputs=outputs)), *record.targets[2:])
    timings = dict(manifest.run.timings["lossy"])
    first = timings["onnxruntime:fp32"]
    timings["onnxruntime:fp32"] = replace(first, latency=tuple(replace(item, median_ms=0.0) for item in first.latency))
    models = {**manifest.models, "lossy": replace(record, targets=targets)}
    run = replace(manifest.run, timings={**manifest.run.timings, "lossy": timings})
    write_manifest(repository, replace(manifest, models=models, run=run))
    facts = read_facts(repository)
    assert target(facts, "lossy", "openvino:fp16").error == float("inf")
    assert "not finite" in render(facts, ".md")
    page = render(facts, ".html")
    assert "1 error that is not finite cannot be drawn" in page
    assert not re.search(r'(?:d|transform)="[^"]*(?:NaN|Infinity)', page)
    assert json.loads(render(facts, ".json"))["models"]


def test_a_page_of_too_many_models_says_what_it_leaves_out(tuned: RepositoryFacts) -> None:
    whole = render_page(tuned)
    assert "To keep this page small" not in whole
    part = render_page(tuned, budget_bytes=100_000)
    left_out = re.search(r"To keep this page small, (\d) of 6 are shown without plots and details: ([^.]+)", part)
    assert left_out is not None
    names = left_out[2].split(", ")
    assert len(names) == int(left_out[1]) > 0
    articles = part.split("<article")[1:]
    assert len(articles) == 6, "all are there"
    for article in articles:
        name = re.search(r"<h2[^>]*>([^<]+)", article)[1]
        body = article.partition("</article>")[0]
        assert ("<details id=" in body) == (name not in names), name
        assert ("Targets side by side" in body) == (name != "pipeline")
    assert len(part) < len(whole)


def test_every_plot_survives_a_search_that_found_nothing(repository: Path) -> None:
    """Interrupted at once: no curves, one setting, predicted by nobody."""
    only = tuple(replace(item, predicted=0.0) for item in tuned_model("classifier", "").tried[:1])
    with_tuning(repository, "classifier", chosen=DEFAULT, tried=only, default_curve=(), chosen_curve=(), gain=1.0)
    facts = read_facts(repository)
    assert "1 setting of 148 served and measured" in model(facts, "classifier").why
    page = render(facts, ".html")
    assert 'data-plot="load"' not in page
    assert not re.search(r'(?:d|transform)="[^"]*(?:NaN|Infinity)', page)
    with_tuning(repository, "classifier", chosen=DEFAULT, tried=(), default_curve=(), chosen_curve=(), gain=1.0)
    assert "0 settings of 148" in render(read_facts(repository), ".md")


def test_no_manifest_is_an_error_with_a_way_on(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no such folder"):
        read_facts(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(SpecError, match="is a file"):
        read_facts(tmp_path / "file")
    with pytest.raises(SpecError, match=r"has no build-repo\.json") as caught:
        read_facts(tmp_path)
    assert "build-repo validate" in caught.value.remedy


def test_a_rejected_target_that_is_faster_is_called_rejected(facts: RepositoryFacts) -> None:
    found = model(facts, "lossy")
    quick = tuple(replace(item, latency_ms=0.001 if item.target == "openvino:fp16" else 1.0) for item in found.targets)
    (speed,) = [plot for plot in measured_plots(replace(found, targets=quick)) if plot.key == "speed-accuracy"]
    assert speed.says == "onnxruntime:fp32 is served; in process openvino:fp16 is faster, and was rejected."


def test_a_small_error_is_no_power_of_ten_in_a_sentence(facts: RepositoryFacts) -> None:
    chosen = next(item for item in model(facts, "lossy").targets if item.chosen)
    for error, said in ((4.4e-7, "0.001 %"), (0.0052, "0.52 %")):
        standing = Standing("m", [replace(chosen, error=error)], "best", "latency", None, "build-repo tune m.yaml")
        assert headline(standing).endswith(f"answers within {said} of the source's.")


def test_a_busy_machine_is_said_where_two_figures_of_one_load_differ(tuned: RepositoryFacts) -> None:
    found = model(tuned, "classifier").tuning
    assert found is not None
    calm, *_ = tuning_plots(found)
    assert "not steady" not in calm.reads
    slow = tuple(replace(item, rows_per_s=0.7 * item.rows_per_s) for item in found.chosen_curve)
    busy, *_ = tuning_plots(replace(found, chosen_curve=slow))
    assert "with 8 users the search measured 1,320 rows/s" in busy.reads
    assert "the machine was not steady" in busy.reads


@pytest.mark.parametrize(
    ("points", "place"),
    [
        ([], ("left", "above")),
        ([(11.0, 2.2)], ("right", "above")),
        ([(11.0, 2.2), (95.0, 2.1)], ("left", "below")),
    ],
)
def test_the_name_of_a_line_stands_where_no_point_is(points: list[tuple[float, float]], place: tuple[str, str]) -> None:
    x, y = log_axis("speed", "", [15.0, 70.0]), log_axis("accuracy", "", [0.1, 10.0])
    rows = [{"speed": across, "accuracy": up} for across, up in points]
    assert roomiest(x, y, 2.0, "allowed 2 %", rows) == place


def test_a_slowdown_of_all_settings_is_no_wrong_prediction(tuned: RepositoryFacts) -> None:
    found = model(tuned, "classifier").tuning
    assert found is not None

    def says(factor: float) -> str:
        tried = tuple(replace(item, value=item.value * factor) for item in found.tried)
        (plot,) = [plot for plot in tuning_plots(replace(found, tried=tried)) if plot.key == "settings"]
        return plot.says

    assert says(1.0).endswith("How they compare was predicted within 6 % in the median.")
    slower = says(0.5)
    assert "within 6 % in the median; all together were measured at 0.4" in slower
    assert slower.endswith(" of what was predicted, which changes no choice.")


def test_users_are_said_where_an_slo_held_with_fewer(tuned: RepositoryFacts) -> None:
    found = model(tuned, "classifier").tuning
    assert found is not None
    assert "users" not in settings_table(found).head
    first = replace(found.tried[0], point=replace(found.tried[0].point, users=2))
    table = settings_table(replace(found, tried=(first, *found.tried[1:])))
    column = table.head.index("users")
    assert sorted(row[column] for row in table.rows) == ["2", *["8"] * 7]


def test_rows_of_a_request_are_said(tuned: RepositoryFacts) -> None:
    found = model(tuned, "classifier").tuning
    assert found is not None
    assert words.load(replace(found.objective, rows=4)) == "8 users over gRPC, 4 rows a request, p99 ≤ 50 ms"


def test_what_several_models_decided_is_said_beside_the_figures(repository: Path) -> None:
    together = "called at once, each in its share of the cores is 1.21 times the best alone"
    with_tuning(repository, "classifier", served="openvino:int8", gain=0.8, together=together)
    found = model(read_facts(repository), "classifier")
    assert "0.8\u00d7 the throughput of the default setting" in found.headline
    assert f"Of several models {together}." in found.why
