"""Steps that are ready to use: ordinary files of Python that become ordinary steps, with what a spec need not say.

A new one is a file here, which imports nothing of build-repo, and a row below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from builder.resources import PACKAGE
from builder.tensors import Dim, Tensor

Files = Mapping[str, Path]


@dataclass(frozen=True, slots=True)
class ReadyStep:
    """`inputs` may depend on the files that the spec gives; `files` must be given, `optional` ones may.

    Requirements are versions that have wheels for every Python that a release or build-repo runs on.
    """

    function: str
    inputs: Callable[[Files], tuple[Tensor, ...]]
    requirements: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


def _logits(files: Files) -> tuple[Tensor, ...]:
    """As many classes as labels."""
    classes: Dim = "classes"
    if "labels" in files:
        classes = len(files["labels"].read_text(encoding="utf-8").splitlines())
    return (Tensor("logits", "float32", ("batch", classes)),)


STEPS: Final[dict[str, ReadyStep]] = {
    "image": ReadyStep("Image", lambda _: (Tensor("image", "string", ("batch",)),), requirements=("pillow==12.3.0",)),
    "tokenizer": ReadyStep(
        "Tokenizer",
        lambda _: (Tensor("text", "string", ("batch",)),),
        # What it depends on is for downloading, which no step does.
        requirements=("--no-deps", "tokenizers==0.23.3"),
        files=("tokenizer",),
    ),
    "top_k": ReadyStep("TopK", _logits, optional=("labels",)),
}
"""Word in the spec → what the file of that name needs."""


def step_file(word: str) -> Path:
    """The step's code."""
    return PACKAGE / "steps" / f"{word}.py"
