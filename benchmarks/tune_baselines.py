"""A tuned ResNet-50 against what people serve without this tool: the plain ONNX file, and TorchScript."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.figure import Figure
from benchmarks.measuring import PYTHON, ROOT, run_command, scratch_folder
from benchmarks.tuning import LOOSE, USERS, Bench, say
from builder.defaults import RELEASE
from builder.loadtest import LoadOptions, LoadSubject
from builder.loadtest.records import LoadResult, Turn
from builder.loadtest.turns import run_turns
from builder.samples import Request
from builder.servers import Endpoint, ServeOptions
from builder.servers.embedded import serve
from builder.tune.serving import Tuned, requests_for, served
from builder.tune.settings import describe, way_of
from builder.tuning_records import Setting, TunedModel
from builder.work import parse_target, work_key

OVER_PLAIN, OVER_PLAIN_AMX = 4.0, 8.0
OVER_TORCH, OVER_TORCH_AMX = 6.0, 10.0
OF_PROCESS, BASELINE = 0.8, 0.8
ROUNDS, SECONDS = 3, 6.0
PROTOCOL: Final = "http"
"""For all. An image is 600 kB: gRPC in Python takes the generator twice the time for it, on the cores of the server."""
SAMPLES = 32
TORCHSCRIPT = """
platform: "pytorch_libtorch"
max_batch_size: 8
dynamic_batching {}
input [{ name: "image" data_type: TYPE_FP32 dims: [3, 224, 224] }]
output [{ name: "logits__0" data_type: TYPE_FP32 dims: [1000] }]
instance_group [{ kind: KIND_CPU }]
"""
PLAIN_INSTANCES = 2
ONE_INSTANCE = "instance_group [{ count: 1 kind: KIND_CPU }]"
"""Triton gives an ONNX file two instances on a CPU, each with threads for all cores: what that costs is shown too."""
TRACE = """
import sys, torch
from benchmarks.resnet import resnet50
torch.manual_seed(0)
torch.jit.trace(resnet50().eval(), torch.zeros(1, 3, 224, 224)).save(sys.argv[1])
"""


def run(*, quick: bool) -> list[Figure]:
    """Tuned once; then all three under the same load, in turns."""
    rounds, seconds = (1, 2.0) if quick else (ROUNDS, SECONDS)
    with scratch_folder() as folder:
        plain = _plain(folder / "plain")
        shutil.copy(plain / "plain" / "1" / "model.onnx", folder / "resnet50.onnx")
        images = np.random.default_rng(0).standard_normal((SAMPLES, 3, 224, 224)).astype(np.float32)
        np.savez(folder / "samples.npz", image=images)
        bench = Bench(folder, _model())
        found = bench.search(60.0 if quick else 300.0, PROTOCOL)
        loads = _loads(bench, found, folder, rounds, seconds)
        return list(_figures(bench, found, plain, loads, seconds))


def _model() -> dict[str, Any]:
    targets = ["onnxruntime:fp32", "openvino:int8", "openvino:bf16"]
    words = {"targets": targets, "samples": {"path": "samples.npz"}, "accuracy": LOOSE}
    return {"name": "resnet50", "source": {"path": "resnet50.onnx"}} | words


def _plain(repository: Path) -> Path:
    """The ONNX file alone, which Triton completes a configuration for, and TorchScript with a usual one.

    `one` is the plain file again, in one instance.
    """
    for name in ("plain", "torchscript", "one"):
        (repository / name / "1").mkdir(parents=True)
    run_command([PYTHON, "-m", "benchmarks.resnet", str(repository / "plain" / "1" / "model.onnx")])
    run_command([PYTHON, "-c", TRACE, str(repository / "torchscript" / "1" / "model.pt")])
    os.link(repository / "plain" / "1" / "model.onnx", repository / "one" / "1" / "model.onnx")
    (repository / "one" / "config.pbtxt").write_text(ONE_INSTANCE, encoding="utf-8")
    (repository / "torchscript" / "config.pbtxt").write_text(TORCHSCRIPT, encoding="utf-8")
    return repository


def _loads(bench: Bench, found: TunedModel, folder: Path, rounds: int, seconds: float) -> dict[str, list[LoadResult]]:
    """Rows a second are the results'; one server at a time, in turns."""
    images = np.random.default_rng(1).standard_normal((SAMPLES, 1, 3, 224, 224)).astype(np.float32)
    requests = tuple(Request({"image": image}, {}, 1) for image in images)
    results: dict[str, list[LoadResult]] = {"plain": [], "torchscript": [], "one": [], "tuned": []}
    for number in range(rounds):
        with serve(folder / "plain", ServeOptions(release=RELEASE)) as endpoint:
            for name, result in _called(
                endpoint, ("plain", "torchscript", "one"), requests, folder / "report", seconds
            ):
                results[name].append(result)
        with _tuned(bench, found.chosen) as (endpoint, name):
            for _, result in _called(endpoint, (name,), requests, folder / "report", seconds):
                results["tuned"].append(result)
        say(f"round {number + 1}: " + ", ".join(f"{name} {one[-1].rows_per_s:.1f}" for name, one in results.items()))
    return results


@contextmanager
def _tuned(bench: Bench, setting: Setting) -> Iterator[tuple[Endpoint, str]]:
    requests, rows = requests_for(bench.state, bench.cache, 1)
    variant = (Tuned(bench.state, bench.spec.triton, requests, rows), setting)
    with served([variant], bench.cache) as (endpoint, names):
        yield endpoint, names[0]


def _called(
    endpoint: Endpoint, names: Sequence[str], requests: tuple[Request, ...], report: Path, seconds: float
) -> Iterator[tuple[str, LoadResult]]:
    subjects = [LoadSubject(name, requests) for name in names]
    turns = [Turn((name,), USERS, seconds) for name in names]
    for taken in run_turns(endpoint, subjects, turns, LoadOptions(report, protocol=PROTOCOL), progress=lambda _: None):
        if taken.result is None or taken.result.failures:
            raise RuntimeError(f"{taken.turn.models}: {taken.result and taken.result.failure_texts}")
        yield taken.turn.models[0], taken.result


def _figures(
    bench: Bench, found: TunedModel, plain: Path, loads: dict[str, list[LoadResult]], seconds: float
) -> Iterator[Figure]:
    speeds = {name: [result.rows_per_s for result in results] for name, results in loads.items()}
    middle = {name: statistics.median(values) for name, values in speeds.items()}
    amx = "amx_int8" in Path("/proc/cpuinfo").read_text(encoding="ascii")
    last = loads["tuned"][-1]
    share = last.generator_cores / last.machine_cores
    details = (
        f"tuned: {describe(found.chosen)}, {middle['tuned']:.1f} rows/s (p50 {last.p50_ms:.0f} ms)",
        *(f"{name}: {middle[name]:.1f} rows/s" for name in ("plain", "torchscript")),
        (
            f"load generator: {share:.0%} of the machine; AMX: {'yes' if amx else 'no'}; "
            f"{found.measurements} measurements in {found.seconds:.0f} s"
        ),
    )
    for name, what, limits in (
        ("plain", "Triton's default for the plain ONNX file", (OVER_PLAIN, OVER_PLAIN_AMX)),
        ("torchscript", "TorchScript on the pytorch backend", (OVER_TORCH, OVER_TORCH_AMX)),
    ):
        over = statistics.median(a / b for a, b in zip(speeds["tuned"], speeds[name], strict=True))
        text = f"ResNet-50, {USERS} clients: tuned over {what}"
        yield Figure("tune_baselines", text, over, limits[amx], "", "at least", details)
    own = _in_process(bench, found.chosen, seconds)
    text = "tuned and served over the same artefact in process, with the same instances and threads"
    more = (f"in process {own:.1f} rows/s", details[-1])
    yield Figure("tune_baselines", text, middle["tuned"] / own, OF_PROCESS, "", "at least", more)
    for name, code in (("plain", ORT), ("torchscript", TORCH)):
        alone = _alone(code, next((plain / name / "1").iterdir()), seconds)
        text = f"{name} served over its library in process at batch 1"
        more = (f"{alone:.1f} rows/s in process",)
        more += (f"in one instance {middle['one'] / alone:.2f}: Triton's own choice is two",) * (name == "plain")
        yield Figure("tune_baselines", text, middle[name] / alone, BASELINE, "", "at least", more)
    both = _alone(ORT, next((plain / "plain" / "1").iterdir()), seconds, sessions=PLAIN_INSTANCES)
    text = "plain served over as many sessions of its library at once in process at batch 1"
    more = (f"{PLAIN_INSTANCES} sessions: {both:.1f} rows/s in process",)
    yield Figure("tune_baselines", text, middle["plain"] / both, BASELINE, "", "at least", more)


def _in_process(bench: Bench, setting: Setting, seconds: float) -> float:
    """As many processes as instances at a time, each on cores of its own where there are enough."""
    target = next(item for item in bench.targets if str(item.target) == setting.target)
    cores, threads = sorted(os.sched_getaffinity(0)), setting.threads or len(os.sched_getaffinity(0))
    merged = 1
    asked = {
        "export": str(bench.cache.folder("export", work_key(bench.state.plan.export))),
        "artefact": str(bench.cache.folder("convert", work_key(target.plan.convert))),
        "target": str(parse_target(setting.target)),
        "way": json.loads(way_of(setting, bench.spec.models[0])),
        "rows": merged,
        "seconds": seconds,
    }
    processes = []
    for number in range(setting.instances):
        own = [cores[(number * threads + place) % len(cores)] for place in range(min(threads, len(cores)))]
        text = json.dumps(asked | {"cores": own})
        command = [PYTHON, "-m", "benchmarks.tuned_artefact", text]
        processes.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True))
    return sum(json.loads(process.communicate()[0])["rows_per_s"] for process in processes)


ORT = """
import onnxruntime
def opened():
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"image": image})
"""
TORCH = """
import torch
def opened():
    script, tensor = torch.jit.load(sys.argv[1]), torch.from_numpy(image)
    def run():
        with torch.inference_mode(): script(tensor)
    return run
"""
LOOP = """
runs = [opened() for _ in range(int(sys.argv[3]))]
for run in runs:
    for _ in range(10): run()
counts, started = [0] * len(runs), time.perf_counter()
def work(place):
    while time.perf_counter() - started < float(sys.argv[2]):
        runs[place]()
        counts[place] += 1
threads = [threading.Thread(target=work, args=(place,)) for place in range(1, len(runs))]
for thread in threads: thread.start()
work(0)
for thread in threads: thread.join()
print(sum(counts) / (time.perf_counter() - started))
"""
HEAD = """
import sys, threading, time
import numpy as np
image = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
"""


def _alone(code: str, file: Path, seconds: float, sessions: int = 1) -> float:
    """Images a second, one after the other with the library's own threads; in several sessions at once."""
    command = [PYTHON, "-c", HEAD + code + LOOP, str(file), str(seconds), str(sessions)]
    return float(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True).stdout)
