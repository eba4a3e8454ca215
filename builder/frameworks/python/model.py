"""A step in Python code as a model of Triton's python backend; `step.json` beside it says whose code it runs.

This file is copied into the model's version folder as it is. It needs numpy, and in the server its utilities. The same
code runs in build-repo's own process, where the answers to the samples come from.

The callable gets keyword arguments named like the inputs: numpy arrays, strings as object arrays of bytes. It returns
one array, a tuple of arrays in the order of the outputs, or a dict of them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import locale
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]
    Arrays = dict[str, Array]

FACTS_FILE = "step.json"
CODE_FOLDER = "code"
FILES_FOLDER = "files"
PACKAGES_FOLDER = "packages"
PYTHON_FILE = "PYTHON_VERSION"
"""Among the packages: the Python that they are for."""

Json = dict[str, Any]
Native = Any
"""An object of the step's code or of the server's utilities, which bring no types."""


class StepError(Exception):
    """The step's own code failed: its words, and the last of its lines that ran."""


class ContractError(Exception):
    """The step's code can be loaded or gives an answer, but not what a step must be or give."""


def load_callable(file: Path, function: str, arguments: Json) -> Native:
    """The function of the file, or of a class one object made with the arguments.

    Raises:
        StepError: the file's own code fails.
        ContractError: there is no such function.
    """
    sys.dont_write_bytecode = True  # neither the user's folder nor a repository is written to
    folder = str(file.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    module = _import(file)
    found = getattr(module, function, None)
    if found is None or not callable(found):
        public = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        own = [name for name in public if getattr(vars(module)[name], "__module__", "") == module.__name__]
        msg = f"{file.name} has no function or class {function!r}; it has {', '.join(own) or 'none'}"
        raise ContractError(msg)
    if isinstance(found, type):
        try:
            return found(**arguments)
        except (Exception, SystemExit) as error:
            raise StepError(said(error, file.parent)) from error
    return lambda **inputs: found(**inputs, **arguments)


def _import(file: Path) -> Native:
    name = file.stem if file.stem not in sys.modules else f"step_{file.stem}_{abs(hash(str(file)))}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        msg = f"{file.name} is no Python file"
        raise ContractError(msg)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise StepError(said(error, file.parent)) from error
    return module


def said(error: BaseException, folder: Path) -> str:
    """The error's own words and the last line of the user's files, not of ours or of a library's."""
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    if isinstance(error, SyntaxError):
        return text
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(folder)]
    if not own:
        return text
    last = own[-1]
    return f"{text} ({Path(last.filename).relative_to(folder)}, line {last.lineno}: {last.line})"


def call(function: Native, inputs: Arrays, folder: Path) -> Native:
    """The callable's own answer.

    Raises:
        StepError: it fails.
    """
    try:
        return function(**inputs)
    except (Exception, SystemExit) as error:
        raise StepError(said(error, folder)) from error


def named(result: Native, names: tuple[str, ...] | None) -> Arrays:
    """An answer as arrays by name; without names a dict names them itself and others are numbered.

    Raises:
        ContractError: outputs are missing, or no arrays.
    """
    if isinstance(result, dict):
        wanted = tuple(map(str, result)) if names is None else names
        missing = [name for name in wanted if name not in result]
        if missing:
            msg = (
                f"it returned a dict without {', '.join(missing)}; it holds {', '.join(map(str, result)) or 'nothing'}"
            )
            raise ContractError(msg)
        return {name: as_array(name, result[name]) for name in wanted}
    values = tuple(result) if isinstance(result, (tuple, list)) else (result,)
    wanted = tuple(f"output_{place}" for place in range(len(values))) if names is None else names
    if len(values) != len(wanted):
        msg = f"it returned {len(values)} output{'s' * (len(values) != 1)}, expected {len(wanted)}: {', '.join(wanted)}"
        raise ContractError(msg)
    return {name: as_array(name, value) for name, value in zip(wanted, values, strict=True)}


def as_array(name: str, value: Native) -> Array:
    """A numpy array; strings as objects, each of bytes.

    Raises:
        ContractError: it is none, or holds other objects.
    """
    import numpy as np

    if value is None:
        msg = f"output {name!r} is None; return an array"
        raise ContractError(msg)
    array = np.asarray(value)
    if array.dtype.kind in "SU" and not isinstance(value, np.ndarray):
        array = np.asarray(value, dtype=object)  # numpy's own strings lose zero bytes at their end
    if array.dtype.kind not in "OSU":
        return array
    items = [item.encode() if isinstance(item, str) else item for item in array.ravel().tolist()]
    others = {type(item).__name__ for item in items if not isinstance(item, bytes)}
    if others:
        msg = f"output {name!r} holds a {min(others)}; return numbers, or strings (str or bytes)"
        raise ContractError(msg)
    strings: Array = np.empty(len(items), dtype=object)
    strings[:] = items
    return strings.reshape(array.shape)


def as_bytes(array: Array) -> Array:
    """Strings as the callable gets them: exactly the bytes of the request."""
    return as_array("", array)


class Step:
    """A step loaded from its folder."""

    def __init__(self, folder: Path, packages: Path | None = None) -> None:
        """Load the code; `packages` is where what it imports lies, None where it can be imported already.

        Raises:
            StepError: the step's code fails.
            ContractError: the file has no such function.
        """
        if packages is not None and packages.is_dir():
            sys.path.insert(0, str(packages))
        facts: Json = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
        self.inputs = {tensor["name"]: tensor for tensor in facts["inputs"]}
        self.outputs = {tensor["name"]: tensor for tensor in facts["outputs"]}
        self.code = folder / CODE_FOLDER
        if (self.code / "model.py").is_file():
            sys.modules.pop("model", None)  # the name that the server gives this file
        files = {name: str(folder / FILES_FOLDER / path) for name, path in facts["files"].items()}
        self.function = load_callable(self.code / facts["file"], facts["function"], {**facts["args"], **files})

    def run(self, inputs: Arrays) -> Arrays:
        """The outputs by name, each as the model declares it.

        Raises:
            StepError: the step's code fails.
            ContractError: it gives something else than it gave when it was built.
        """
        given = {
            name: as_bytes(array) if self.inputs[name]["dtype"] == "string" else array for name, array in inputs.items()
        }
        answers = named(call(self.function, given, self.code), tuple(self.outputs))
        for name, array in answers.items():
            _check(self.outputs[name], array)
        return answers


def _check(declared: Json, array: Array) -> None:
    dtype = "string" if array.dtype.kind == "O" else array.dtype.name
    shape = [dim if isinstance(dim, int) else -1 for dim in declared["shape"]]
    fits = len(shape) == array.ndim and all(dim in (-1, size) for dim, size in zip(shape, array.shape, strict=True))
    if dtype != declared["dtype"] or not fits:
        msg = (
            f"output {declared['name']!r} is {dtype}{list(array.shape)}; the model declares {declared['dtype']}{shape}"
        )
        raise ContractError(msg)


def _other_python(packages: Path) -> str:
    """Said of a step that does not load: compiled packages are for one Python only."""
    file = packages / PYTHON_FILE
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    theirs = file.read_text(encoding="utf-8").strip() if file.is_file() else ours
    return "" if theirs == ours else f"; its packages are for Python {theirs}, and this server has {ours}"


class TritonPythonModel:
    """What the server calls."""

    def initialize(self, args: Json) -> None:
        """Load the step once for each instance."""
        import triton_python_backend_utils as pb_utils

        # Without a locale the server's Python opens text files as ASCII.
        with contextlib.suppress(locale.Error):
            locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
        self.utils: Native = pb_utils
        self.batched = int(json.loads(args["model_config"]).get("max_batch_size", 0)) > 0
        folder = Path(args["model_repository"]) / args["model_version"]
        try:
            self.step = Step(folder, folder / PACKAGES_FOLDER)
        except (StepError, ContractError) as error:
            hint = _other_python(folder / PACKAGES_FOLDER)
            raise pb_utils.TritonModelException(f"{error}{hint}") from error

    def execute(self, requests: list[Native]) -> list[Native]:
        """One response for every request, in order; requests of one form are one call where the model batches."""
        inputs = [self._inputs(request) for request in requests]
        groups: dict[object, list[int]] = {}
        for index, arrays in enumerate(inputs):
            form = tuple((name, array.shape[1:]) for name, array in arrays.items()) if self.batched else index
            groups.setdefault(form, []).append(index)
        answers: dict[int, Arrays | str] = {}
        for members in groups.values():
            answers |= self._together(members, inputs)
        return [self._response(request, answers[index]) for index, request in enumerate(requests)]

    def _inputs(self, request: Native) -> Arrays:
        arrays = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        # A scalar travels as [1].
        return {name: array if self.step.inputs[name]["shape"] else array.reshape(()) for name, array in arrays.items()}

    def _together(self, members: list[int], inputs: list[Arrays]) -> dict[int, Arrays | str]:
        """Answers, or what went wrong: where a merged call fails, each request is asked alone, to find the guilty."""
        import numpy as np

        if len(members) == 1:
            return {members[0]: self._alone(inputs[members[0]])}
        parts = [inputs[index] for index in members]
        merged = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        rows = [len(next(iter(part.values()))) for part in parts]
        try:
            whole = self.step.run(merged)
        except (StepError, ContractError):
            return {index: self._alone(inputs[index]) for index in members}
        if any(not array.ndim or len(array) != sum(rows) for array in whole.values()):
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in whole.items())
            return dict.fromkeys(members, f"a batch of {sum(rows)} rows gave {shapes}")
        ends = np.cumsum(rows)
        return {
            index: {name: array[end - count : end] for name, array in whole.items()}
            for index, count, end in zip(members, rows, ends, strict=True)
        }

    def _alone(self, inputs: Arrays) -> Arrays | str:
        try:
            return self.step.run(inputs)
        except (StepError, ContractError) as error:
            return str(error)

    def _response(self, request: Native, answer: Arrays | str) -> Native:
        import numpy as np

        if isinstance(answer, str):
            return self.utils.InferenceResponse(error=self.utils.TritonError(answer))
        wanted = set(request.requested_output_names()) or set(answer)
        tensors = [
            self.utils.Tensor(name, np.ascontiguousarray(array if array.ndim else array.reshape(1)))
            for name, array in answer.items()
            if name in wanted
        ]
        return self.utils.InferenceResponse(output_tensors=tensors)
