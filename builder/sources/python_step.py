"""A step in Python code: a function or class of the user's file, numpy arrays in and out. It is its own reference."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from builder.errors import SpecError
from builder.frameworks.python.code import callables, distribution_of, not_served, parse, read_code
from builder.records import to_json
from builder.samples import Request
from builder.sources import Description
from builder.tensors import Dim, Signature, Tensor
from builder.work import OutputShape, SourceRef

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]

LIBRARIES: Final = ("numpy",)
EXTRA: Final = ""
FORMATS: Final = ("python",)


def recognise(path: Path) -> bool:
    """A file of Python, by its name: its content may be anything."""
    return path.suffix == ".py" and path.is_file()


def describe(path: Path) -> Description:
    """The functions and classes that could be the step, with their arguments; nothing is run."""
    found = callables(parse(path))
    shown = "; ".join(f"{name}({', '.join(arguments)})" for name, arguments in found.items())
    missing = "the file does not say what goes in: inputs: gives names, dtypes and shapes"
    default = "function: names the function where it is not called run"
    notes = (f"a step in Python: {shown or 'no public function'}", f"{missing}; {default}")
    return Description(format="python", signature=None, notes=notes)


def screen(source: SourceRef) -> None:
    """The file is the user's own code, as `model: module:callable` is."""


def load(source: SourceRef, inputs: tuple[Tensor, ...], outputs: tuple[str, ...]) -> PythonStep:
    """Import the file and find the function, or make the class's object.

    Raises:
        SpecError: inputs are missing, or the file cannot be imported.
    """
    from builder.frameworks.python.model import ContractError, StepError, load_callable

    path = Path(source.path)
    if not inputs:
        raise SpecError(
            f"a step in Python ({path.name}) needs inputs: the file does not say what goes in",
            remedy="inputs: [{name: x, dtype: float32, shape: [batch, 3]}], named like the function's arguments",
        )
    if source.environment is None:
        _refuse_unserved(path)
    files = {file.name: file.path for file in source.files}
    try:
        function = load_callable(path, function_of(source), {**json.loads(source.args), **files})
    except ContractError as error:
        raise SpecError(str(error), remedy="name it with source: {function: …}") from error
    except StepError as error:
        lacks = "ModuleNotFoundError" in str(error)
        correct = f"correct {path.name}, or args: and files: in the spec"
        remedy = "add its package: source: {requirements: [NAME==VERSION]}" if lacks else correct
        raise SpecError(f"{path.name} cannot be loaded: {error}", remedy=remedy) from error
    return PythonStep(source, function, inputs, outputs or None)


def _refuse_unserved(path: Path) -> None:
    """Raises SpecError for a package that is here because build-repo needs it: the server would not find it."""
    found = not_served(read_code(path))
    if found is not None:
        raise SpecError(
            f"{found.file}, line {found.line}: {found.module} is installed here, and not where the step is served",
            remedy=f"add it: source: {{requirements: [{distribution_of(found.module)}]}}",
        )


def function_of(source: SourceRef) -> str:
    """The name of the function or class."""
    return source.function or "run"


class PythonStep:
    """The user's callable. Where neither the spec nor a dict names its outputs they are numbered."""

    def __init__(
        self,
        source: SourceRef,
        function: Any,  # noqa: ANN401 - the user's
        inputs: tuple[Tensor, ...],
        outputs: tuple[str, ...] | None,
    ) -> None:
        self.inputs = inputs
        self.output_names = outputs
        self.declared_shapes: Mapping[str, tuple[Dim | None, ...]] = {item.name: item.shape for item in source.shapes}
        self.parameters: int | None = None
        self._source = source
        self._function = function
        self._strings = {tensor.name for tensor in inputs if tensor.dtype == "string"}

    def run(self, inputs: Arrays) -> tuple[NDArray[np.generic], ...]:
        """The step's own answer; strings go in as bytes.

        Raises:
            SpecError: what it returns is no answer.
        """
        from builder.frameworks.python.model import ContractError, as_bytes, call, named

        given = {name: as_bytes(array) if name in self._strings else array.copy() for name, array in inputs.items()}
        path = Path(self._source.path)
        result = call(self._function, given, path.parent)
        try:
            answers = named(result, self.output_names)
        except ContractError as error:
            what = f"{path.name}: {function_of(self._source)}: {error}"
            raise SpecError(what, remedy="correct the function, or outputs: in the spec") from error
        self.output_names = tuple(answers)
        for declared in self._source.shapes:
            _check_declared(declared, answers.get(declared.name))
        return tuple(answers.values())

    def sample_rows(self, seed: int) -> Arrays | None:
        """What the object's method `samples` makes, where there is one.

        Raises:
            SpecError: it fails, or makes no dict.
        """
        from builder.frameworks.python.model import StepError, call

        make = getattr(self._function, "samples", None)
        if not callable(make):
            return None
        folder = Path(self._source.path).parent
        try:
            rows = call(partial(make, seed=seed), {}, folder)
        except StepError as error:
            raise SpecError(f"samples() of the step failed: {error}", remedy="give samples: in the spec") from error
        if not isinstance(rows, dict):
            what = f"samples() of the step gave a {type(rows).__name__}"
            raise SpecError(what, remedy="return a dict: an array of rows for each input")
        return rows

    def to_onnx(
        self, path: Path, *, signature: Signature, requests: Sequence[Request], opset: int, ir_version: int
    ) -> tuple[str, tuple[str, ...]]:
        """Code is no graph: `FORMATS` says so, and nobody asks."""
        raise NotImplementedError(path, signature, requests, opset, ir_version)

    def to_python(self, path: Path, *, signature: Signature) -> tuple[str, tuple[str, ...]]:
        """The step's files, and `step.json` that says how they are called."""
        from builder.frameworks.python.model import CODE_FOLDER, FACTS_FILE, FILES_FOLDER

        source = Path(self._source.path)
        code = read_code(source)
        for name in code.files:
            target = path / CODE_FOLDER / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(code.folder / name, target)
        files = {}
        for file in self._source.files:
            files[file.name] = f"{file.name}/{Path(file.path).name}"
            _copy(Path(file.path), path / FILES_FOLDER / files[file.name])
        facts = {
            "file": source.name,
            "function": function_of(self._source),
            "args": json.loads(self._source.args),
            "files": files,
            "requirements": list(self._source.requirements),
            **to_json(signature),
        }
        (path / FACTS_FILE).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        return "code", ()


def _check_declared(declared: OutputShape, array: NDArray[np.generic] | None) -> None:
    """Raises SpecError where an answer is not of the shape that the spec declares."""
    shape, sizes = declared.shape, () if array is None else array.shape
    fits = len(sizes) == len(shape) and all(
        isinstance(dim, str) or dim == size for dim, size in zip(shape, sizes, strict=True)
    )
    if array is None or not fits:
        got = "is no output" if array is None else f"has the shape {list(sizes)}"
        remedy = "correct source: shapes: in the spec"
        raise SpecError(f"output {declared.name!r} {got}, and shapes: declares {list(shape)}", remedy=remedy)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)
