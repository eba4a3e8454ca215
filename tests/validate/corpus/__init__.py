"""Small repositories, valid and not: one module for each family, data only. What is right comes from the real server.

`@M` in paths and texts stands for the name of the case, so that hundreds of them fit into one repository.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Final

FAMILIES: Final = (
    "syntax", "names", "versions", "files", "tensors", "batching", "sequences", "instances", "warmup", "extras",
    "ensembles", "backends", "onnx_models", "odd_ensembles", "odd", "rare",
    "strange",
)  # fmt: skip
STRICT: Final = ("syntax", "names", "versions", "files", "ensembles", "odd_ensembles", "strange")
"""Families in which the validator must agree with the server in every case."""
REAL: Final = ("names_unicode", "warmup_batch_above", "warmup_unbatched_batch_two", "rare_warmup_ragged_sizes")
"""Cases of plain models that the backend itself decides: the quiet one takes any number of requests at once."""
MODEL_PY: Final = (
    "import triton_python_backend_utils as pb_utils\n\n\nclass TritonPythonModel:\n"
    "    def execute(self, requests):\n        return [pb_utils.InferenceResponse([]) for _ in requests]\n"
)
INPUT: Final = 'input [ { name: "x" data_type: TYPE_FP32 dims: [ 2 ] } ]'
OUTPUT: Final = 'output [ { name: "y" data_type: TYPE_FP32 dims: [ 2 ] } ]'
PLAIN: Final = f'backend: "python"\nmax_batch_size: 8\n{INPUT}\n{OUTPUT}\n'


@dataclass(frozen=True, slots=True)
class Case:
    """One repository.

    `engine` is `core` where no backend looks into the model files, `real` where one does, and `alone` where the server
    waits for ever.
    """

    name: str
    files: Mapping[str, str | bytes]
    engine: str = "core"
    folders: tuple[str, ...] = field(default=())


def model(
    config: str | None, *, name: str = "@M", more: Mapping[str, str | bytes] | None = None
) -> dict[str, str | bytes]:
    """The files of a Python model with one version."""
    files: dict[str, str | bytes] = {f"{name}/1/model.py": MODEL_PY, **(more or {})}
    return files if config is None else {f"{name}/config.pbtxt": config, **files}


def configs(family: str, table: Mapping[str, str]) -> list[Case]:
    """A case for each text: lines after the plain configuration's own."""
    return [Case(f"{family}_{name}", model(PLAIN + text)) for name, text in table.items()]


def whole(family: str, table: Mapping[str, str]) -> list[Case]:
    """A case for each text: the whole configuration."""
    return [Case(f"{family}_{name}", model(text)) for name, text in table.items()]


def family_of(case: Case) -> str:
    """The module that the case comes from."""
    return next(family for family in FAMILIES if case.name.startswith(f"{family}_"))


def cases() -> tuple[Case, ...]:
    """All of them, in a fixed order."""
    found = (case for family in FAMILIES for case in import_module(f"{__name__}.{family}").cases())
    return tuple(replace(case, engine="real") if case.name in REAL else case for case in found)


def write(case: Case, repository: Path) -> None:
    """Put the case's folders and files into the repository."""
    for path in case.folders:
        (repository / path.replace("@M", case.name)).mkdir(parents=True, exist_ok=True)
    for path, content in case.files.items():
        file = repository / path.replace("@M", case.name)
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            file.write_text(content.replace("@M", case.name), encoding="utf-8")
