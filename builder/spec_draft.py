"""A commented `models.yaml` from what the files say; what only the user can know is marked and explained."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import yaml

from builder import defaults
from builder.inspection import Inspection
from builder.spec_file import default_name
from builder.tensors import Tensor

NEEDS_CALLABLE: Final = ("torch_state_dict", "tf_checkpoint")
"""Formats that hold weights and no architecture."""
PICKLES: Final = ("torch_pickle", "sklearn")
"""Formats whose files can run code when opened."""
TELLS_WHEN_OPENED: Final = ("sklearn",)
"""Formats that tell their inputs, but only to a build, which opens them."""
CODE: Final = ("python",)
"""Formats that are code, and no network."""
ONLY: Final = {"sklearn": "onnxruntime"}
"""Formats whose operators (ai.onnx.ml) one backend alone has."""


def draft_spec(found: Sequence[Inspection], folder: Path) -> str:
    """The text of a spec that lies in `folder`."""
    return "\n".join(_lines(found, folder)) + "\n"


def to_fill_in(found: Sequence[Inspection]) -> tuple[str, ...]:
    """What only the user knows: `model: of classifier.pth`."""
    missing = [
        (word, Path(item.path).name)
        for item in found
        for word, asked in (
            ("model:", _needs_callable(item)),
            ("allow_pickle:", item.description.format in PICKLES),
            ("inputs:", item.description.signature is None and item.description.format not in TELLS_WHEN_OPENED),
        )
        if asked
    ]
    return tuple(f"{word} of {name}" for word, name in missing)


def _needs_callable(item: Inspection) -> bool:
    what = item.description
    return what.format in NEEDS_CALLABLE or (what.format == "keras" and what.signature is None)


def _lines(found: Sequence[Inspection], folder: Path) -> Iterator[str]:
    yield "# Written by build-repo init. Every key: build-repo schema. Next: build-repo build with this file."
    yield f'triton: "{defaults.RELEASE}"          # the release of Triton this repository is for'
    yield "models:"
    names: set[str] = set()
    for item in found:
        yield from _model(item, folder, _unique(default_name(Path(item.path)), names))


def _unique(name: str, taken: set[str]) -> str:
    unique, number = name, 2
    while unique in taken:
        unique, number = f"{name}_{number}", number + 1
    taken.add(unique)
    return unique


def _model(item: Inspection, folder: Path, name: str) -> Iterator[str]:
    what = item.description
    path = os.path.relpath(Path(item.path).resolve(), folder)
    yield f"  - name: {_scalar(name)}"
    yield "    source:"
    yield f"      path: {_scalar(path)}"
    yield f"      format: {what.format}"
    if what.format in CODE:
        yield f"      # {what.notes[0]}"
        yield "      # What gets arrays named like the inputs: a function, or a class whose object does; constants."
        yield "      function: run"
        yield "      args: {}"
    if len(what.signatures) > 1:
        yield f"      signature: {_scalar(what.signatures[0])}   # or {', '.join(map(_scalar, what.signatures[1:]))}"
    if _needs_callable(item):
        yield "      # The file holds weights only: name the function that returns the network (beside this file, or"
        yield "      # installed) and its arguments."
        yield "      model: my_nets:build"
        yield "      args: {}"
    if what.format in PICKLES:
        yield "      # Opening this file can run any code: write true if you trust where it comes from."
        yield "      allow_pickle: false"
    yield from _inputs(item)
    yield "    # Real inputs, arrays named like the inputs; seeded random ones when left out:"
    yield "    # samples: {path: samples.npz, labels: label}"
    yield f"    targets: [{', '.join(_targets(item))}]"
    yield f"    serve: {defaults.SERVE}                  # the fastest target that passes; or all; or one target"
    yield f"    # accuracy: {{max_relative_error: {defaults.MAX_RELATIVE_ERROR}, min_cosine: {defaults.MIN_COSINE}}}"
    yield f"    # batching: {{max_batch_size: {defaults.MAX_BATCH_SIZE}, max_queue_delay_us: 500}}"
    yield f"    # instances: {{count: {defaults.INSTANCE_COUNT}, kind: cpu}}"


def _inputs(item: Inspection) -> Iterator[str]:
    signature = item.description.signature
    if item.description.format in TELLS_WHEN_OPENED:
        yield "    # One matrix of float32 when left out; where columns differ in type, one input for each, in order:"
        yield "    # inputs:"
        yield "    #   - {name: town, dtype: string, shape: [batch, 1]}"
        return
    if signature is None:
        yield "    # The file does not say what goes in: give every input its name, dtype and shape, in the order of"
        yield "    # its arguments; an axis of any size gets a name."
        yield "    inputs:"
        yield "      - {name: input, dtype: float32, shape: [batch, 3, 224, 224]}"
        return
    yield "    # From the file; sizes may be fixed here, names name axes of any size."
    yield "    # inputs:"
    for tensor in signature.inputs:
        yield f"    #   - {_tensor(tensor)}"
    for tensor in signature.outputs:
        yield f"    # gives {tensor.describe()}"


def _tensor(tensor: Tensor) -> str:
    shape = ", ".join(str(dim) if isinstance(dim, int) else _scalar(dim) for dim in tensor.shape)
    return f"{{name: {_scalar(tensor.name)}, dtype: {tensor.dtype}, shape: [{shape}]}}"


def _targets(item: Inspection) -> list[str]:
    if item.description.format in CODE:
        return ["python:native"]
    only = ONLY.get(item.description.format)
    taken = [target.backend for target in item.targets if not target.refusal and only in (None, target.backend)]
    return [text for text in defaults.TARGETS if text.split(":")[0] in taken] or list(defaults.TARGETS[:1])


def _scalar(text: str) -> str:
    """A YAML scalar on one line, quoted only where it must be."""
    return yaml.safe_dump(text, default_flow_style=True, width=10_000, allow_unicode=True).split("\n...")[0].strip()
