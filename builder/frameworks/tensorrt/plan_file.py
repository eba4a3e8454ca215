"""What a plan says of itself, read by TensorRT on the plan's own GPU: tensors and profiles as a plain record.

A plan is opened in a process of its own, because TensorRT ends the process on some damaged ones:
`python -m builder.frameworks.tensorrt.plan_file PLAN PACKAGE`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from builder.errors import BuildError
from builder.frameworks.tensorrt.library import REAL, describe, load, logger
from builder.libraries import package_root
from builder.machine import gpu
from builder.tensors import DTYPES

Json = dict[str, Any]

MODULE: Final = "builder.frameworks.tensorrt.plan_file"
OPEN_S: Final = 300.0
NUMPY: Final = {row.tensorrt: row.numpy for row in DTYPES if row.tensorrt}
"""TensorRT's names of types → numpy's."""


@cache
def cannot_read() -> str:
    """Why no plan is read on this machine; empty where one can be."""
    if gpu() is None:
        return "only TensorRT, on the plan's own GPU, reads a plan, and this machine has no NVIDIA GPU"
    return "" if find_spec(REAL) else "only TensorRT reads a plan, and the Python package tensorrt is not installed"


def plan_name(config: Json) -> str:
    """The file that the server takes on this machine's GPU: `cc_model_filenames`, else the default name."""
    found = gpu()
    named: dict[str, str] = config.get("cc_model_filenames", {})
    default = str(config.get("default_model_filename") or "model.plan")
    return named.get(found.compute_capability, default) if found else default


def read_plan(path: Path, library: str = REAL) -> Json:
    """The record of `builder.plan_rules`.

    Raises:
        BuildError: TensorRT does not load the plan, in its own words.
    """
    paths = (str(package_root()), os.environ.get("PYTHONPATH", ""))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(part for part in paths if part)}
    command = [sys.executable, "-m", MODULE, str(path), library]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, timeout=OPEN_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"TensorRT did not open {path.name} within {OPEN_S:.0f} s") from error
    try:
        answer: Json = json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else {}
    except ValueError:
        answer = {}
    if "inputs" in answer:
        return answer
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    raise BuildError(str(answer.get("error") or f"TensorRT ended ({done.returncode}): {' '.join(lines[-1:])}"))


def engine_record(engine: Any) -> Json:  # noqa: ANN401 - ICudaEngine
    """Tensors and profiles of an engine that is loaded."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name).name == "INPUT"]
    values = {name for name in names if engine.is_shape_inference_io(name)}
    profiles = [
        {name: _range(engine, name, number, values=name in values) for name in inputs}
        for number in range(engine.num_optimization_profiles)
    ]
    ports = {name: _port(engine, name, values=name in values) for name in names}
    return {
        "inputs": [ports[name] for name in inputs],
        "outputs": [ports[name] for name in names if name not in inputs],
        "profiles": [{name: sizes for name, sizes in held.items() if sizes} for held in profiles],
    }


def _port(engine: Any, name: str, *, values: bool) -> Json:  # noqa: ANN401
    dtype = NUMPY.get(engine.get_tensor_dtype(name).name, "")
    return {"name": name, "dtype": dtype, "shape": list(engine.get_tensor_shape(name)), "values": values}


def _range(engine: Any, name: str, number: int, *, values: bool) -> list[list[int]]:  # noqa: ANN401
    """Smallest, best and largest; empty where the profile says nothing of this input."""
    # The two calls take their arguments in opposite orders.
    asked = engine.get_tensor_profile_values(number, name) if values else engine.get_tensor_profile_shape(name, number)
    parts = [list(part) for part in asked or ()]
    return parts if all(parts) else []


def _main(path: str, package: str) -> int:
    try:
        answer = _opened(Path(path), package)
    except BuildError as error:
        answer = {"error": error.message}
    sys.stdout.write(json.dumps(answer) + "\n")
    return int("error" in answer)


def _opened(path: Path, package: str) -> Json:
    library = load(package)
    # A version-compatible plan holds code for the host, which is not run for a file that is only looked at.
    engine = library.Runtime(logger(library)).deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        said = "; ".join(logger(library).errors[-2:]) or "it gave no reason"
        raise BuildError(f"{describe(library)} does not load it: {said}")
    return engine_record(engine)


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
