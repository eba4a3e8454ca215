"""What decides a source model's content, as digests: its files, and the code behind `module:callable`."""

from __future__ import annotations

import hashlib
import importlib.util
import mmap
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from builder.errors import SpecError
from builder.frameworks.python.code import read_code
from builder.frameworks.pytorch.files import foreign_names

LOCATION: Final = re.compile(rb"\x0a\x08location\x12(.)", re.DOTALL)
"""The start of an external data entry in an ONNX protobuf (`key: "location"`, then the length of the value)."""
LONGEST_LOCATION: Final = 127


def path_digest(path: Path) -> str:
    """SHA-256 of a file with the files that belong to it (ONNX data, a checkpoint's parts), or of a folder's files.

    Raises:
        SpecError: there is no such file or folder.
    """
    if path.is_dir():
        return _files_digest(path, sorted(file for file in path.rglob("*") if file.is_file()))
    if not path.is_file():
        raise SpecError(f"no such file: {path}", remedy="check the path; it is relative to the spec file")
    data = (*data_files(path), *_checkpoint_files(path))
    return _files_digest(path.parent, [path, *data]) if data else _file_digest(path)


def _checkpoint_files(path: Path) -> tuple[Path, ...]:
    """A TensorFlow checkpoint is named by its index; the graph and the values lie in files of the same prefix."""
    if path.suffix != ".index":
        return ()
    return tuple(sorted(file for file in path.parent.glob(f"{path.stem}.*") if file.is_file() and file != path))


def data_files(path: Path) -> tuple[Path, ...]:
    """The external data files beside an ONNX model, found in its bytes: neither parsed nor with onnx imported."""
    with path.open("rb") as stream:
        if stream.read(1) != b"\x08":
            return ()
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            names = set(_locations(content))
    folder = path.parent.resolve()
    files = {(folder / name).resolve() for name in names}
    return tuple(sorted(file for file in files if file.is_file() and file.is_relative_to(folder)))


def _locations(content: mmap.mmap) -> Iterator[str]:
    for match in LOCATION.finditer(content):
        length = match.group(1)[0]
        if length <= LONGEST_LOCATION:
            name = content[match.end() : match.end() + length]
            if b"\0" not in name:
                yield name.decode("utf-8", "replace")


def callable_digest(model: str, import_root: Path) -> str:
    """The digest of the code behind `module:callable`, found without importing it.

    A module of `import_root` stands for all Python files of its folder, a package for all its Python files, an
    installed distribution for its name and version.

    Raises:
        SpecError: the module is nowhere.
    """
    top = model.partition(":")[0].partition(".")[0]
    package = import_root / top
    if (import_root / f"{top}.py").is_file():
        return _files_digest(import_root, sorted(import_root.glob("*.py")))
    if package.is_dir() and any(package.rglob("*.py")):
        return _files_digest(import_root, sorted(package.rglob("*.py")))
    installed = _distribution(top)
    if installed:
        return hashlib.sha256(installed.encode()).hexdigest()
    return _found_elsewhere(top, model, import_root)


def step_digest(path: Path) -> str:
    """The digest of a step's file and of the files of its folder that it imports.

    Raises:
        SpecError: one is no Python.
    """
    code = read_code(path)
    return _files_digest(code.folder, [code.folder / name for name in code.files])


def pickled_code_digest(path: Path, import_root: Path) -> str:
    """The digest of the code of every class that a pickle names; nothing is opened or imported."""
    tops = sorted({name.partition(".")[0] for name in foreign_names(path)} - {"__main__"})
    digest = hashlib.sha256()
    for top in tops:
        # A class that is nowhere is named by the export, which cannot import it.
        with suppress(SpecError):
            digest.update(f"{top} {callable_digest(top, import_root)}\n".encode())
    return digest.hexdigest()


def _distribution(top: str) -> str | None:
    """`name==version` of what installed the module, found in the lists of installed files without parsing metadata."""
    from importlib.metadata import distributions

    single = re.compile(rf"^{re.escape(top)}\.(?:py|[^/,]*(?:so|pyd)),", re.MULTILINE)

    def owns(names: str, files: str) -> bool:
        listed = top in names.split() or f"\n{top}/" in files or files.startswith(f"{top}/")
        return listed or (f"{top}." in files and single.search(files) is not None)

    found = {
        f"{item.name}=={item.version}"
        for item in distributions()
        if owns(item.read_text("top_level.txt") or "", item.read_text("RECORD") or "")
    }
    return ",".join(sorted(found)) or None


def _found_elsewhere(top: str, model: str, import_root: Path) -> str:
    try:
        found = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        found = None
    if found is None or not found.origin:
        raise SpecError(
            f"model: {model}: there is no module {top!r} in {import_root} (looked for {top}.py and {top}/), "
            "nor among the installed packages",
            remedy=f"put {top}.py beside the spec file, or pip install the package that has it",
        )
    origin = Path(found.origin)
    files = sorted(origin.parent.rglob("*.py")) if origin.name == "__init__.py" else [origin]
    return _files_digest(origin.parent, files)


def _files_digest(root: Path, files: list[Path]) -> str:
    """Relative names and contents of the files, in the order given."""
    digest = hashlib.sha256()
    for file in files:
        name = str(file.relative_to(root)) if file.is_relative_to(root) else file.name
        digest.update(f"{name}\0{_file_digest(file)}\n".encode())
    return digest.hexdigest()


def _file_digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
