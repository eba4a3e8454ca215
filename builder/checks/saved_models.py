"""A TensorFlow SavedModel against its configuration: the names and types of its signature, read without TensorFlow.

Up to 25.02 the server compares them when it loads the model; later they are what a conversion has to serve.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from builder.errors import SpecError
from builder.findings import Finding, Severity
from builder.frameworks.tensorflow.saved_model_file import choose_signature, is_saved_model, read_saved_model
from builder.native_rules import SIDES, TRITON
from builder.release_rules import TENSORFLOW_UNTIL
from builder.scan import ModelDir, backend_of, joined, line_of, scan_repository, served_versions

if TYPE_CHECKING:
    from builder.checks import CheckContext

Json = dict[str, Any]
FILE: Final = "model.savedmodel"
SIGNATURE: Final = "TF_SIGNATURE_DEF"
"""The parameter that names another signature than `serving_default`."""


def check(repository: Path, context: CheckContext) -> Iterator[Finding]:
    """What the configuration says and the signature does not have."""
    severity: Severity = "error" if context.release <= TENSORFLOW_UNTIL else "warning"
    for model in scan_repository(repository):
        if model.config is None or backend_of(model) != "tensorflow":
            continue
        name = model.config.get("default_model_filename") or FILE
        for version in served_versions(model):
            path = joined(model.path / str(version), name)
            if is_saved_model(path):
                yield from _version(model, path, severity)


def _version(model: ModelDir, path: Path, severity: Severity) -> Iterator[Finding]:
    config = model.config or {}
    wanted = config.get("parameters", {}).get(SIGNATURE, {}).get("string_value")
    try:
        _, signature = choose_signature(path, read_saved_model(path), wanted)
    except SpecError as error:
        file = str(path.relative_to(model.path.parent))
        yield Finding(severity, "saved_models.file", error.message, error.remedy, model=model.name, file=file)
        return
    for side, plural in SIDES:
        known = {port.name: port.dtype for port in getattr(signature, plural)}
        for io in config.get(side, ()):
            message = _problem(side, io, known)
            if message:
                line = line_of(model, f'"{io.get("name", "")}"')
                remedy = f"the signature's {plural} are {', '.join(f'{name} {kind}' for name, kind in known.items())}"
                yield Finding(
                    severity, "saved_models", message, remedy, model=model.name, file=model.config_file, line=line
                )


def _problem(side: str, io: Json, known: dict[str, str]) -> str:
    name = str(io.get("name", ""))
    if name not in known:
        return f"unexpected inference {side} '{name}', allowed {side}s are: {', '.join(known)}"
    given = f"TYPE_{TRITON.get(known[name], 'INVALID')}"
    if io.get("data_type") != given:
        return f"configuration expects datatype {io.get('data_type')} for {side} '{name}', model provides {given}"
    return ""
