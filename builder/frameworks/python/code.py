"""The files that a step in Python is made of, found by reading them; nothing is run."""

from __future__ import annotations

import ast
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Final

from builder.errors import SpecError

IN_THE_SERVER: Final = ("numpy", "triton_python_backend_utils")
"""What every Python model of Triton can import beside the standard library."""
GUARDS: Final = ("TYPE_CHECKING",)


@dataclass(frozen=True, slots=True)
class Import:
    """An imported module that is neither the step's own nor of the standard library, and where it is imported."""

    module: str
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class StepCode:
    """The step's file with those of its folder that it imports, relative to the folder, and what else it imports."""

    folder: Path
    files: tuple[str, ...]
    foreign: tuple[Import, ...]


def read_code(path: Path) -> StepCode:
    """Follow the imports of the file through its folder.

    Raises:
        SpecError: a file is no Python.
    """
    folder = path.parent
    pending, files, foreign = [path], {path.name}, list[Import]()
    while pending:
        file = pending.pop()
        inside = str(file.relative_to(folder))
        for line, module, certain in _imports(parse(file), inside):
            found = _own_files(folder, module)
            new = [item for item in found if str(item.relative_to(folder)) not in files]
            files |= {str(item.relative_to(folder)) for item in new}
            pending += [item for item in new if item.suffix == ".py"]
            top = module.partition(".")[0]
            if certain and not found and top not in sys.stdlib_module_names and top not in IN_THE_SERVER:
                foreign.append(Import(top, inside, line))
    return StepCode(folder, tuple(sorted(files)), tuple(foreign))


def not_served(code: StepCode) -> Import | None:
    """An import that works here and not in the server: a package that is only installed beside build-repo."""
    ours = [Path(sysconfig.get_path(word)).resolve() for word in ("purelib", "platlib")]
    for item in code.foreign:
        try:
            found = importlib.util.find_spec(item.module)
        except (ImportError, ValueError):
            continue
        places = [*(found.submodule_search_locations or ()), found.origin or ""] if found else []
        if any(Path(place).resolve().is_relative_to(folder) for place in places if place for folder in ours):
            return item
    return None


def distribution_of(module: str) -> str:
    """What pip would have to install, as it is installed here: `pillow==13.0.0`."""
    names = packages_distributions().get(module, ())
    return f"{names[0]}=={version(names[0])}" if names else module


def parse(file: Path, python: tuple[int, int] | None = None) -> ast.Module:
    """The file's syntax tree; with `python` for an older one than this.

    Raises:
        SpecError: it is no Python.
    """
    try:
        return ast.parse(file.read_bytes(), feature_version=python)
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        said = error.msg if isinstance(error, SyntaxError) else str(error)
        major, minor = python or sys.version_info[:2]
        remedy = f"the file must be Python {major}.{minor} or older"
        raise SpecError(f"{file.name}{line}: {said}", remedy=remedy) from error


def callables(tree: ast.Module) -> dict[str, tuple[str, ...]]:
    """Public functions and classes with the names of their arguments (a class: of `__call__`), as written."""
    found: dict[str, tuple[str, ...]] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = _arguments(node)
        elif isinstance(node, ast.ClassDef):
            methods = {item.name: item for item in node.body if isinstance(item, ast.FunctionDef)}
            if "__call__" in methods:
                found[node.name] = _arguments(methods["__call__"])[1:]
    return {name: arguments for name, arguments in found.items() if not name.startswith("_")}


def init_arguments(tree: ast.Module, name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What making an object of the class takes, by keyword, and what of that must be given."""
    made = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    init = next(node for node in made.body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    words = list(zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True))
    return tuple(word.arg for word, _ in words), tuple(word.arg for word, default in words if default is None)


def _arguments(node: ast.FunctionDef) -> tuple[str, ...]:
    every = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
    return tuple(argument.arg for argument in every)


def _imports(tree: ast.Module, inside: str) -> Iterator[tuple[int, str, bool]]:
    """(line, module, whether it must succeed: not in `try` or for type checkers) of every import."""
    package = Path(inside).parent.parts
    certain = set(_certain(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, node in certain
        elif isinstance(node, ast.ImportFrom):
            base = (
                ".".join((*package[: len(package) - node.level + 1], node.module or "")) if node.level else node.module
            )
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}".lstrip("."), node in certain


def _certain(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Try) or (isinstance(child, ast.If) and _is_guard(child.test)):
            continue
        yield child
        yield from _certain(child)


def _is_guard(test: ast.expr) -> bool:
    return any(name in ast.unparse(test) for name in GUARDS)


def _own_files(folder: Path, module: str) -> tuple[Path, ...]:
    """The files of the folder that importing the module may need: a module's, or a whole package's."""
    top = module.partition(".")[0]
    single, package = folder / f"{top}.py", folder / top
    if package.is_dir() and any(package.rglob("*.py")):
        every = (item for item in package.rglob("*") if item.is_file() and "__pycache__" not in item.parts)
        return tuple(sorted(every))
    return (single,) if single.is_file() else ()
