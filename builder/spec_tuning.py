"""The words of a tuning file: one more layer below what a spec says of a model and in its `defaults`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from builder.spec import ModelSpec, OnnxRuntimeSpec, OpenVinoSpec, PyTorchSpec, RepoSpec, Tuned
from builder.spec_serving import BatchingSpec, Instances, Part
from builder.work import parse_target

RUN_WORDS: Final = ("batching", "instances", "onnxruntime", "openvino", "pytorch")
"""Those that say how a target runs; `serve` says which one."""


class TunedWords(Part):
    """What a tuning file says of a model."""

    serve: str | None = None
    batching: BatchingSpec | None = None
    instances: Instances | None = None
    onnxruntime: OnnxRuntimeSpec | None = None
    openvino: OpenVinoSpec | None = None
    pytorch: PyTorchSpec | None = None

    def said(self) -> dict[str, Any]:
        """The words of `RUN_WORDS` that are there, as plain data."""
        return {
            word: value
            for word, value in self.model_dump(exclude_unset=True, include=set(RUN_WORDS)).items()
            if value is not None
        }


def with_tuned_words(data: Mapping[str, Any], tuned: Mapping[str, TunedWords]) -> dict[str, Any]:
    """A spec as the file has it, with each tuned word that neither the model nor `defaults` says."""
    models, given = data.get("models"), data.get("defaults")
    if not tuned or not isinstance(models, list):
        return dict(data)
    common = given if isinstance(given, Mapping) else {}
    return {**data, "models": [_filled(model, common, tuned) for model in models]}


def _filled(model: object, common: Mapping[str, Any], tuned: Mapping[str, TunedWords]) -> object:
    words = tuned.get(str(model.get("name"))) if isinstance(model, dict) else None
    if words is None or not isinstance(model, dict):
        return model
    return {**{word: value for word, value in words.said().items() if word not in common}, **model}


def marked(spec: RepoSpec, data: Mapping[str, Any], tuned: Mapping[str, TunedWords]) -> RepoSpec:
    """The completed spec, whose models know what of them is tuned; `data` is what the user wrote."""
    if not tuned:
        return spec
    common = data.get("defaults") or {}
    models = tuple(
        _marked(model, {*common, *written}, tuned[model.name]) if model.name in tuned else model
        for model, written in zip(spec.models, data.get("models") or (), strict=True)
    )
    return spec.model_copy(update={"models": models})


def _marked(model: ModelSpec, written: set[str], words: TunedWords) -> ModelSpec:
    target = str(parse_target(words.serve)) if words.serve else None
    free = model.serve == "best" and target in (model.targets or ())
    return model.with_tuned(
        Tuned(tuple(word for word in words.said() if word not in written), target if free else None)
    )
