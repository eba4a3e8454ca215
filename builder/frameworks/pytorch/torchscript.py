"""PyTorch → TorchScript for Triton's pytorch backend: tensors in, a flat tuple of tensors out, in the model's order.

That backend passes inputs by their names where every name is an argument of `forward`, and else by their order; it
takes outputs by their order. So the names of a signature need not be in the file, but its order has to be.
"""

from __future__ import annotations

import keyword
import re
import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from builder.errors import BuildError
from builder.frameworks.pytorch.network import CallForm, flatten, to_numpy, to_torch
from builder.frameworks.pytorch.weights import import_torch
from builder.log import get_logger
from builder.native_rules import pytorch_places
from builder.onnx_tools.exported import judge_answers, quiet, reason_of
from builder.samples import Request
from builder.tensors import Signature

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]

Module = Any
"""A torch.nn.Module or torch.jit.ScriptModule."""
Writer = Callable[[Path], Sequence[str]]
"""Writes the file; returns notes on it."""

ROOT: Final = "model"
"""The folder inside the archive; PyTorch would name it after the file."""
NOT_NEEDED: Final = (".debug_pkl", "/.data/serialization_id")
"""Members with places in source files of this machine, or that differ from run to run."""
CONSTANTS: Final = re.compile(r"(?:^  \w+ : Final\[.*\n)+", re.MULTILINE)
"""A class's constants: PyTorch writes them in the order of a set."""


def script_by(
    routes: Mapping[str, Writer], path: Path, signature: Signature, requests: Sequence[Request]
) -> tuple[str, tuple[str, ...]]:
    """Write `path` by the first route whose result answers like the source; its word, and notes.

    Raises:
        BuildError: no route leads there; all reasons.
    """
    reasons: list[str] = []
    for route, writer in routes.items():
        try:
            with quiet():
                notes = writer(path)
                judge_answers(runner(open_script(path), signature), signature, requests)
        except Exception as error:
            get_logger().debug("the %s route to TorchScript failed", route, exc_info=True)
            reasons.append(f"{route}: {reason_of(error)}")
            path.unlink(missing_ok=True)
            continue
        return route, (*(f"TorchScript by the route {route}, because {reason}" for reason in reasons), *notes)
    raise BuildError(
        f"PyTorch could not write the model as TorchScript. {' | '.join(reasons)}",
        remedy="make the network one that torch.jit.script takes, or whose trace holds for other sizes; or remove the "
        "pytorch target",
    )


@dataclass(frozen=True, slots=True)
class Callee:
    """A network, how it is called, which of its outputs are served.

    `flat` is the same behind positional tensors and a flat tuple of these outputs.
    """

    network: Module
    form: CallForm
    chosen: Sequence[int]
    flat: Module


def network_routes(callee: Callee, signature: Signature, example: Request) -> dict[str, Writer]:
    """How a network gets there: its code compiled, which keeps every branch, else traced on a sample."""
    torch = import_torch()
    is_script = isinstance(callee.network, torch.jit.ScriptModule)

    def compiled(path: Path) -> Sequence[str]:
        script = callee.network if is_script else torch.jit.script(callee.network)
        write_script(wrapped(script, callee.form, callee.chosen, signature, example), path)
        return ()

    routes: dict[str, Writer] = {"script": compiled}
    if not is_script:
        routes["trace"] = lambda path: trace(callee.flat, path, signature, example)
    return routes


def trace(flat: Module, path: Path, signature: Signature, example: Request) -> tuple[str, ...]:
    """Record what the network does with a sample; notes say where its Python code looked at values."""
    torch = import_torch()
    with warnings.catch_warnings(record=True) as said, torch.no_grad():
        warnings.simplefilter("always")
        traced = torch.jit.trace(flat, _arguments(signature, example), check_trace=False, strict=False)
    write_script(wrapped(traced, CallForm(None, {}), range(len(signature.outputs)), signature, example), path)
    if not any(issubclass(item.category, torch.jit.TracerWarning) for item in said):
        return ()
    note = (
        "TorchScript is a trace: its Python code looks at values or sizes of tensors, and what it decides by them is "
        "fixed as on one sample; the other samples were answered alike"
    )
    return (note,)


def wrapped(script: Module, form: CallForm, chosen: Sequence[int], signature: Signature, example: Request) -> Module:
    """The module behind the signature's inputs, as tensors, and its outputs, flat and in order.

    Raises:
        BuildError: an output that no TorchScript expression reaches.
    """
    torch = import_torch()

    class Served(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.network = script

    with torch.no_grad():
        answer = form.call(script, _arguments(signature, example))
    found = list(_paths(answer))
    if len(found) != len(list(flatten(answer))) or max(chosen) >= len(found):
        raise BuildError("the network's answer holds something that TorchScript cannot index")
    names = argument_names(signature)
    given = names if form.names is None else [f"{word}={name}" for word, name in zip(form.names, names, strict=True)]
    constants = [f"{word}={value!r}" for word, value in form.constants.items()]
    results = ", ".join(f"answer_{found[place]}" for place in chosen)
    code = (
        f"def forward(self, {', '.join(f'{name}: Tensor' for name in names)}):\n"
        f"  answer_ = self.network({', '.join([*given, *constants])})\n"
        f"  return {results if len(chosen) == 1 else f'({results})'}\n"
    )
    module = torch.jit._recursive.create_script_module(  # noqa: SLF001 - torch.jit.script would need a source file
        Served().eval(), lambda _module: [], share_types=False
    )
    module.define(code)
    return module


def argument_names(signature: Signature) -> list[str]:
    """The inputs' own names where a method's arguments can have them."""
    names = [tensor.name for tensor in signature.inputs]
    fit = all(
        name.isidentifier() and name.isascii() and not keyword.iskeyword(name) and name not in ("self", "answer_")
        for name in names
    )
    # Names that all say their places are looked up as such, which sequences need; a like argument would undo that.
    by_place = all("__" in name for name in names) and pytorch_places(names, None) == list(range(len(names)))
    return names if fit and not by_place else [f"input_{place}" for place in range(len(names))]


def _paths(answer: Any, path: str = "") -> Iterator[str]:  # noqa: ANN401
    """The index expressions of the tensors in an answer, in the order of `flatten`."""
    torch = import_torch()
    if isinstance(answer, torch.Tensor):
        yield path
    elif isinstance(answer, Mapping):
        for key, value in answer.items():
            yield from _paths(value, f"{path}[{key!r}]")
    elif isinstance(answer, (tuple, list)):
        for place, value in enumerate(answer):
            yield from _paths(value, f"{path}[{place}]")


def write_script(module: Module, path: Path) -> None:
    """Save so that equal modules give equal bytes and nothing of this machine."""
    scratch = path.with_name(f".{path.name}")
    import_torch().jit.save(module, str(scratch))
    try:
        with zipfile.ZipFile(scratch) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as target:
            for name in source.namelist():
                if not name.endswith(NOT_NEEDED):
                    _copy(source, target, name)
    finally:
        scratch.unlink()


def _copy(source: zipfile.ZipFile, target: zipfile.ZipFile, name: str) -> None:
    entry = zipfile.ZipInfo(f"{ROOT}/{name.partition('/')[2]}")
    if name.endswith(".py"):
        code = source.read(name).decode("utf-8")
        target.writestr(entry, CONSTANTS.sub(lambda lines: "".join(sorted(lines[0].splitlines(keepends=True))), code))
        return
    entry.file_size = source.getinfo(name).file_size
    with source.open(name) as reader, target.open(entry, "w") as writer:
        shutil.copyfileobj(reader, writer)


def copy_archive(archive: Path, signature: Signature, path: Path) -> Sequence[str]:
    """The user's own file, where Triton's backend takes it as it is.

    Raises:
        BuildError: its arguments, its answer or its mode are other than that backend needs.
    """
    torch = import_torch()
    script = open_script(archive)
    if any(module.training for module in script.modules()):
        raise BuildError("it was saved in training mode")
    arguments = script.forward.schema.arguments[1:]
    if any(str(argument.type) != "Tensor" for argument in arguments):
        raise BuildError("forward has arguments that are no tensors")
    names = [tensor.name for tensor in signature.inputs]
    if pytorch_places(names, [argument.name for argument in arguments]) != list(range(len(arguments))):
        raise BuildError("forward has its arguments in another order than the inputs, or more of them")
    kind = script.forward.schema.returns[0].type
    results = kind.elements() if isinstance(kind, torch.TupleType) else [kind]
    if [str(item) for item in results] != ["Tensor"] * len(signature.outputs):
        raise BuildError(f"forward returns {kind}, not {len(signature.outputs)} tensors")
    shutil.copyfile(archive, path)
    return ()


def open_script(path: Path) -> Module:
    """The module as Triton's backend loads it: on the CPU, in the mode it was saved in.

    Raises:
        BuildError: PyTorch does not load it.
    """
    torch = import_torch()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return torch.jit.load(str(path), map_location="cpu")
        except Exception as error:
            raise BuildError(f"PyTorch {torch.__version__} does not load {path.name}: {reason_of(error)}") from error


def runner(script: Module, signature: Signature) -> Callable[[Arrays], tuple[NDArray[np.generic], ...]]:
    """Run a module as Triton's backend does: inputs in order, the answer a tensor or a tuple of them."""
    torch = import_torch()

    def run(inputs: Arrays) -> tuple[NDArray[np.generic], ...]:
        with torch.inference_mode():
            answer = script(*(to_torch(inputs[tensor.name]) for tensor in signature.inputs))
        results = answer if isinstance(answer, tuple) else (answer,)
        return tuple(to_numpy(value) for value in results[: len(signature.outputs)])

    return run


def _arguments(signature: Signature, example: Request) -> tuple[Any, ...]:
    return tuple(to_torch(example.inputs[tensor.name]) for tensor in signature.inputs)
