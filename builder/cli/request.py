"""The arguments that `build` and `plan` share → a complete spec."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from builder.errors import SpecError
from builder.spec import RepoSpec

if TYPE_CHECKING:
    from builder.spec_tuning import TunedWords
    from builder.tuning_file import Applied

NO_TUNING: Final = "none"
"""The word of --tuning that leaves every tuning file out."""


def parse_input(text: str) -> dict[str, Any]:
    """`NAME:DTYPE:D1,D2,…`, split from the right so that a name may hold colons; no dimensions is rank 0.

    Raises:
        SpecError: the text has another form.
    """
    parts = text.rsplit(":", 2)
    if len(parts) != 3 or not parts[0] or not parts[1]:  # noqa: PLR2004 - name, dtype, dimensions
        raise SpecError(
            f"--input {text!r} is not NAME:DTYPE:D1,D2,…", remedy="for example --input image:float32:batch,3,224,224"
        )
    name, dtype, dims = parts
    shape = [_dim(item.strip()) for item in dims.split(",")] if dims.strip() else []
    return {"name": name, "dtype": dtype, "shape": shape}


def _dim(text: str) -> int | str:
    return int(text) if re.fullmatch(r"-?[0-9]+", text) else text


def load_request(
    models: list[Path],
    *,
    targets: str | None,
    triton: str | None,
    name: str | None,
    inputs: list[str],
    samples: Path | None,
    serve: str | None,
    tuned: Mapping[str, TunedWords] | None = None,
) -> RepoSpec:
    """One spec file with overrides, or bare model files; `tuned` are a tuning file's words by model.

    Raises:
        SpecError: the arguments do not go together, or the spec is wrong.
    """
    from builder.spec_file import is_spec, load_spec, spec_from_models

    overrides: dict[str, Any] = {}
    if targets is not None:
        overrides["targets"] = [item.strip() for item in targets.split(",") if item.strip()]
    if triton is not None:
        overrides["triton"] = triton
    if serve is not None:
        overrides["serve"] = serve
    if any(is_spec(path) for path in models):
        if len(models) > 1:
            raise SpecError("give one spec file, or model files, not both", remedy="put the models into the spec")
        if name or inputs or samples:
            raise SpecError("--name, --input and --samples go with a model file; a spec says them itself")
        return load_spec(models[0], overrides, tuned)
    if name and len(models) > 1:
        raise SpecError(f"--name goes with one model, got {len(models)}", remedy="write a spec: build-repo init MODEL…")
    return spec_from_models([_model(path, name, inputs, samples) for path in models], overrides, tuned)


def load_tuned_request(
    models: list[Path],
    tuning: str | None,
    **arguments: Any,  # noqa: ANN401 - those of load_request
) -> tuple[RepoSpec, Applied | None]:
    """The same with what a tuning file says: the one that `tuning` names, none, or the one beside the spec.

    Raises:
        SpecError: as `load_request`, or the tuning file is wrong.
    """
    from builder.tuning_file import apply_tuning, read_tuning, tuning_beside

    named = Path(tuning) if tuning not in (None, NO_TUNING) else None
    path = tuning_beside(models) if tuning is None else named
    if path is None:
        return load_request(models, **arguments), None
    found = read_tuning(path)
    spec = load_request(models, **arguments, tuned=found.words)
    return spec, apply_tuning(spec, found)


def _model(path: Path, name: str | None, inputs: list[str], samples: Path | None) -> dict[str, Any]:
    from builder.spec_file import default_name

    model: dict[str, Any] = {"name": name or default_name(path), "source": {"path": str(path)}}
    if inputs:
        model["inputs"] = [parse_input(text) for text in inputs]
    if samples:
        model["samples"] = {"path": str(samples)}
    return model
