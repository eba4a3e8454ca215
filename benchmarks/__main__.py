"""`make bench`: the machine, the versions, and a verdict on every figure. Exit code 1 where one is missed."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import psutil

from benchmarks.figure import Figure, lines
from builder import __version__
from builder.libraries import library_versions
from builder.machine import machine_facts

BENCHMARKS = (
    "help_time", "validate", "rebuild", "cold_build", "large_model", "precision", "embedded_server", "live_check",
    "load_test", "cpu_image", "tune", "tune_baselines",
)  # fmt: skip
LIBRARIES = ("onnx", "onnxruntime", "openvino", "torch", "tritonclient", "locust", "numpy")
BUSY = 0.5


def main() -> int:
    """Run the benchmarks that were named, all where none was."""
    options = _options()
    facts = machine()
    for name, value in facts.items():
        print(f"{name}: {value}")
    if os.getloadavg()[0] > BUSY:
        print(f"note: the machine was not idle before this run (load {os.getloadavg()[0]:.1f}): times are longer")
    print(flush=True)
    figures: list[Figure] = []
    for name in options.names or BENCHMARKS:
        for figure in import_module(f"benchmarks.{name}").run(quick=options.quick):
            figures.append(figure)
            print("\n".join(lines(figure)), flush=True)
    missed = [figure for figure in figures if not figure.reached]
    print(f"\n{len(figures) - len(missed)} of {len(figures)} figures reached")
    if options.output:
        rows = [{**asdict(figure), "reached": figure.reached} for figure in figures]
        options.output.write_text(json.dumps({"machine": facts, "figures": rows}, indent=2) + "\n", encoding="utf-8")
    return 1 if missed else 0


def machine() -> dict[str, str]:
    """What the figures depend on."""
    cpu = machine_facts()
    runtimes = import_module("builder.runtime").list_runtimes()
    return {
        "machine": f"{cpu['cpu']}, {cpu['cores']} cores, {psutil.virtual_memory().total / 1e9:.0f} GB memory",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "build-repo": __version__,
        "libraries": ", ".join(f"{name} {version}" for name, version in library_versions(LIBRARIES).items()),
        "embedded server": "; ".join(
            f"Triton {item.record.server} for {item.release}, onnxruntime {item.record.packages.get('onnxruntime')}"
            for item in runtimes
        ),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; all when left out")
    parser.add_argument("--quick", action="store_true", help="fewer repeats and smaller models: a look, not a verdict")
    parser.add_argument("--output", type=Path, help="write the figures as JSON too")
    options = parser.parse_args()
    for name in options.names:
        if name not in BENCHMARKS:
            parser.error(f"no benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
