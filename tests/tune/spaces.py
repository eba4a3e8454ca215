"""A model's space of settings, and profiles that follow a simple law."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from builder.profiling import ProfiledRun
from builder.spec import ModelSpec
from builder.spec_file import load_spec
from builder.tune.space import Candidate, Load, space
from builder.tuning_records import Objective, Setting

LOAD = Load(8, 1)
CANDIDATES = (
    Candidate("onnxruntime:fp32", can_batch=True),
    Candidate("onnxruntime:int8", can_batch=True),
    Candidate("openvino:fp32", can_batch=False),
    Candidate("openvino:int8", can_batch=False),
)


def model_spec(folder: Path, **words: Any) -> ModelSpec:
    """The spec of a linear model with these words."""
    from tiny_models import linear

    linear(folder / "m.onnx")
    text = yaml.safe_dump({"models": [{"name": "m", "source": {"path": "m.onnx"}, **words}]})
    (folder / "models.yaml").write_text(text, encoding="utf-8")
    return load_spec(folder / "models.yaml").models[0]


def whole_space(spec: ModelSpec, word: str = "throughput", load: Load = LOAD, cores: int = 2) -> tuple[Setting, ...]:
    return space(spec, CANDIDATES, load, Objective(word, load.users), cores)


def law(row_ms: float, threads: int, largest: int = 16) -> tuple[ProfiledRun, ...]:
    """A run of n rows takes 0.3 + 0.7 n of a row's time; two threads take 0.6 of one's."""
    share = 1.0 if threads == 1 else 0.6
    sizes = [size for size in (1, 2, 4, 8, 16, 32) if size <= largest]
    walls = [row_ms * (0.3 + 0.7 * size) * share for size in sizes]
    return tuple(ProfiledRun(size, wall, wall * threads) for size, wall in zip(sizes, walls, strict=True))
