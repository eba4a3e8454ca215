"""The embedded server's own virtual environment, one per target release: made, found, listed, removed.

It stays apart because the server's Python stub needs numpy 1 (with numpy 2 results are silently wrong), and because it
holds the onnxruntime and openvino that the target release bundles.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from builder.errors import MachineError, SpecError
from builder.records import RecordError, read_record, write_record
from builder.releases import Release, get_release
from builder.runtime.packages import install_near, installed_versions, pip_install, run_tool
from builder.runtime.preflight import (
    Check,
    libpython_check,
    machine_checks,
    require_machine,
    shared_libpython,
    stub_problem,
)

RECORD_FILE: Final = "runtime.json"
LAYOUT: Final = 1
SERVER_WHEEL: Final = "nvidia-pytriton"
SERVER_WHEEL_VERSION: Final = "0.7.0"
STUB_FILE: Final = "triton_python_backend_stub"
PLAIN_PACKAGES: Final = ("numpy<2", "packaging", "protobuf<7", "flatbuffers")
"""What the server's stub, onnxruntime and openvino import beside themselves."""

WITH: Final = {"pytorch": ("torch==2.13.0", "typing_extensions")}
"""Backends that are large and asked for by name, with what they need."""
CPU_BUILD: Final = "https://download.pytorch.org/whl/cpu"

Progress = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class RuntimeRecord:
    """`runtime.json`, written last: a folder without it is a left-over. `notes` say what differs from the release."""

    release: str
    python: str
    server: str
    packages: dict[str, str]
    notes: tuple[str, ...] = ()
    layout: int = LAYOUT


@dataclass(frozen=True, slots=True)
class Runtime:
    """An installed runtime: its folder and what is in it."""

    folder: Path
    record: RuntimeRecord

    @property
    def release(self) -> str:
        """The target release, `YY.MM`."""
        return self.record.release

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def site_packages(self) -> Path:
        """Where its packages lie."""
        return self.folder / "lib" / f"python{self.record.python}" / "site-packages"

    @property
    def server_folder(self) -> Path:
        """The server's files inside the wheel."""
        return self.site_packages / "pytriton" / "tritonserver"

    @property
    def server_libraries(self) -> Path:
        """The libraries that the wheel brings for the server."""
        return self.site_packages / "nvidia_pytriton.libs"

    @property
    def stub(self) -> Path:
        """The process that runs one model of a Python-based backend."""
        return self.backend_folder / STUB_FILE

    @property
    def backend_folder(self) -> Path:
        """Triton's Python backend with the stub of this interpreter beside it, as the server wants them."""
        return self.folder / "python-backend"


def home() -> Path:
    """The folder of everything this tool installs; `BUILD_REPO_HOME` moves it."""
    if moved := os.environ.get("BUILD_REPO_HOME"):
        return Path(moved).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_data_path("build-repo"))


def find(release: str) -> Runtime | None:
    """The installed runtime of the release; None where it is absent, half made or no longer runs."""
    folder = _folder(release)
    try:
        record = read_record(RuntimeRecord, folder / RECORD_FILE)
    except (OSError, RecordError):
        return None
    runtime = Runtime(folder=folder, record=record)
    usable = record.layout == LAYOUT and runtime.python.exists() and runtime.stub.exists()
    return runtime if usable else None


def require(release: str) -> Runtime:
    """The installed runtime of the release.

    Raises:
        SpecError: no such release.
        MachineError: it is not installed.
    """
    get_release(release)
    runtime = find(release)
    if runtime is None:
        msg = f"the embedded server for Triton {release} is not installed"
        raise MachineError(msg, remedy=f"build-repo runtime install --triton {release}")
    return runtime


def list_runtimes() -> tuple[Runtime, ...]:
    """Every usable runtime, oldest release first."""
    if not _root().is_dir():
        return ()
    found = (find(entry.name) for entry in sorted(_root().iterdir()) if entry.is_dir())
    return tuple(runtime for runtime in found if runtime is not None)


def remove(release: str) -> bool:
    """Delete the release's runtime, or what is left of one; False where there was nothing."""
    from filelock import FileLock

    folder = _folder(release)
    if not folder.exists():
        return False
    with FileLock(_lock_file(release)):
        _delete(folder)
    return True


def install(release: str, *, progress: Progress, backends: Sequence[str] = ()) -> Runtime:
    """Make the release's runtime, or return the one that stands, with what `backends` of `WITH` it lacks.

    Two at a time wait for each other.

    Raises:
        SpecError: no such release, or no such backend.
        MachineError: this machine lacks something, or a package cannot be had.
    """
    from filelock import FileLock

    wanted = get_release(release)
    for word in backends:
        if word not in WITH:
            raise SpecError(f"there is no --with {word}", remedy=f"it adds {', '.join(WITH)}; all else is always there")
    if (present := find(release)) is not None and not _absent(present, backends):
        return present
    require_machine()
    _root().mkdir(parents=True, exist_ok=True)
    with FileLock(_lock_file(release)):
        return extend(find(release) or _install_new(wanted, progress), backends, progress)


def _absent(runtime: Runtime, backends: Sequence[str]) -> tuple[str, ...]:
    """What `backends` need and the runtime has not, as pip's requirements; other versions will do."""
    needed = (requirement for word in backends for requirement in WITH[word])
    return tuple(item for item in needed if item.partition("==")[0] not in runtime.record.packages)


def extend(runtime: Runtime, backends: Sequence[str], progress: Progress) -> Runtime:
    """The runtime with what `backends` of `WITH` it lacks."""
    absent = _absent(runtime, backends)
    if not absent:
        return runtime
    progress(f"installing {', '.join(absent)} for {', '.join(backends)}")
    pip_install(runtime.python, *absent)
    try:
        run_tool([str(runtime.python), "-c", "import torch"], "import torch in the runtime")
    except MachineError as error:
        run_tool([str(runtime.python), "-m", "pip", "uninstall", "-q", "-y", "torch"], "remove torch again")
        command = f"build-repo runtime install --triton {runtime.release} --with pytorch"
        remedy = f"a build of torch for CUDA does not load without CUDA: PIP_EXTRA_INDEX_URL={CPU_BUILD} {command}"
        raise MachineError(error.message, remedy=remedy) from error
    packages = installed_versions(runtime.python)
    note = f"torch {packages['torch']} stands for the release's own build, which is on no package index"
    record = replace(runtime.record, packages=packages, notes=tuple(dict.fromkeys((*runtime.record.notes, note))))
    write_record(runtime.folder / RECORD_FILE, record)
    return replace(runtime, record=record)


def checks() -> tuple[Check, ...]:
    """What the embedded server needs of this machine, for `doctor`: name, ok, detail, remedy."""
    return machine_checks()


def check_stub(runtime: Runtime) -> None:
    """Start the runtime's stub alone: a library it misses would otherwise hang the server without a word.

    Raises:
        MachineError: a library is missing.
    """
    problem = stub_problem(runtime.stub, library_path(runtime))
    if problem:
        msg = f"the embedded server for Triton {runtime.release} cannot run models: {problem}"
        raise MachineError(msg, remedy=f"build-repo runtime install --triton {runtime.release}")


def library_path(runtime: Runtime) -> str:
    """LD_LIBRARY_PATH of the server and its stubs."""
    return f"{runtime.server_libraries}:{libpython_folder(runtime)}"


def libpython_folder(runtime: Runtime) -> Path:
    """A folder of the runtime that holds only a link to the shared libpython.

    Raises:
        MachineError: the library is nowhere to be found.
    """
    folder = runtime.folder / "libpython"
    link = folder / f"libpython{runtime.record.python}.so.1.0"
    if link.exists():
        return folder
    library = shared_libpython(runtime.record.python)
    if library is None:
        check = libpython_check(runtime.record.python)
        raise MachineError(check.detail, remedy=check.remedy)
    folder.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(library)
    return folder


def _root() -> Path:
    return home() / "runtimes"


def _folder(release: str) -> Path:
    return _root() / release


def _lock_file(release: str) -> Path:
    return _root() / f"{release}.lock"


def _delete(folder: Path) -> None:
    """Remove the record first, so that an interrupted removal leaves a left-over and not a broken runtime."""
    (folder / RECORD_FILE).unlink(missing_ok=True)
    shutil.rmtree(folder)


def _install_new(wanted: Release, progress: Progress) -> Runtime:
    folder = _folder(wanted.release)
    if folder.exists():
        progress(f"removing a half-made runtime in {folder}")
        _delete(folder)
    return make(folder, wanted, progress)


def make(
    folder: Path, wanted: Release, progress: Progress, libraries: Sequence[str] = ("onnxruntime", "openvino")
) -> Runtime:
    """A runtime in a new folder, with these inference libraries. Standard library only: images are made with it.

    Raises:
        MachineError: a package cannot be had, or the server's stub does not start.
    """
    progress(f"making a virtual environment for Triton {wanted.release} in {folder}")
    run_tool([sys.executable, "-m", "venv", str(folder)], "make a virtual environment")
    python = folder / "bin" / "python"
    plain = (f"{SERVER_WHEEL}=={SERVER_WHEEL_VERSION}", *PLAIN_PACKAGES)
    progress(f"installing the Triton server ({SERVER_WHEEL} {SERVER_WHEEL_VERSION})")
    pip_install(python, *plain)
    notes = tuple(
        note
        for package, version in (("onnxruntime", wanted.onnxruntime), ("openvino", wanted.openvino))
        if package in libraries and (note := install_near(python, package, version, progress))
    )
    record = RuntimeRecord(
        release=wanted.release,
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        server="2.51.0",
        packages=installed_versions(python),
        notes=notes,
    )
    runtime = Runtime(folder=folder, record=record)
    _gather_backend(runtime)
    check_stub(runtime)
    run_tool([str(python), "-c", f"import {', '.join(('numpy', *libraries))}"], "import the runtime's libraries")
    write_record(folder / RECORD_FILE, record)
    return runtime


def _gather_backend(runtime: Runtime) -> None:
    # Links would not do: the server refuses a library whose real path is outside its backend's folder.
    wheel = runtime.server_folder
    runtime.backend_folder.mkdir()
    for file in (
        wheel / "backends" / "python" / "libtriton_python.so",
        wheel / "backends" / "python" / "triton_python_backend_utils.py",
        wheel / "python_backend_stubs" / runtime.record.python / STUB_FILE,
    ):
        shutil.copy(file, runtime.backend_folder)
