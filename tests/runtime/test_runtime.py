"""The embedded runtime: preflight, installing, finding, removing."""

from __future__ import annotations

import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from builder import runtime as runtimes
from builder.errors import MachineError, SpecError
from builder.records import read_record, write_record
from builder.runtime import RECORD_FILE, Runtime, RuntimeRecord
from builder.runtime.packages import install_near, nearest_patch
from builder.runtime.preflight import (
    bash_check,
    glibc_check,
    libpython_check,
    machine_checks,
    own_version,
    platform_check,
    python_check,
    shared_libpython,
    shared_memory_check,
    stub_problem,
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, empty."""
    monkeypatch.setenv("BUILD_REPO_HOME", str(tmp_path))
    return tmp_path


def test_the_runtime_holds_what_the_release_bundles(runtime: Runtime) -> None:
    assert runtime.release == "26.07"
    assert runtime.record.packages["onnxruntime"] == "1.27.0"
    assert runtime.record.packages["openvino"] == "2026.2.0"
    assert runtime.record.packages["numpy"].startswith("1.")
    assert not [note for note in runtime.record.notes if not note.startswith("torch ")]


def test_its_interpreter_imports_the_libraries(runtime: Runtime) -> None:
    code = "import numpy, onnxruntime, openvino; print(numpy.__version__, onnxruntime.__version__)"
    done = subprocess.run([runtime.python, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [runtime.record.packages["numpy"], runtime.record.packages["onnxruntime"]]


def test_installing_what_is_installed_does_nothing(runtime: Runtime) -> None:
    said: list[str] = []
    before = (runtime.folder / RECORD_FILE).stat().st_mtime_ns
    assert runtimes.install(runtime.release, progress=said.append) == runtime
    assert said == []
    assert (runtime.folder / RECORD_FILE).stat().st_mtime_ns == before


def test_the_stub_of_the_runtime_loads(runtime: Runtime) -> None:
    runtimes.check_stub(runtime)
    assert runtime in runtimes.list_runtimes()


def test_a_stub_without_its_library_is_found_out_before_the_server_would_hang(runtime: Runtime, tmp_path: Path) -> None:
    foreign = runtime.server_folder / "python_backend_stubs" / "3.8" / "triton_python_backend_stub"
    assert "libpython3.8.so.1.0" in stub_problem(foreign, runtimes.library_path(runtime))
    assert stub_problem(tmp_path / "absent", "")


def test_a_missing_runtime_says_what_to_type(home: Path) -> None:
    assert runtimes.find("26.07") is None
    with pytest.raises(MachineError, match=r"26\.07 is not installed") as caught:
        runtimes.require("26.07")
    assert caught.value.remedy == "build-repo runtime install --triton 26.07"
    with pytest.raises(SpecError):
        runtimes.require("20.01")
    assert runtimes.list_runtimes() == ()


def test_a_folder_without_its_record_is_a_left_over(home: Path) -> None:
    (home / "runtimes" / "26.07" / "bin").mkdir(parents=True)
    assert runtimes.find("26.07") is None
    assert runtimes.list_runtimes() == ()
    assert runtimes.remove("26.07")
    assert not (home / "runtimes" / "26.07").exists()
    assert not runtimes.remove("26.07")


def test_a_record_of_another_version_is_not_taken(home: Path) -> None:
    folder = home / "runtimes" / "26.07"
    folder.mkdir(parents=True)
    (folder / RECORD_FILE).write_text('{"release": "26.07", "surprise": 1}', encoding="utf-8")
    assert runtimes.find("26.07") is None


def test_a_runtime_whose_interpreter_is_gone_is_not_taken(home: Path, runtime: Runtime) -> None:
    folder = home / "runtimes" / "26.07"
    folder.mkdir(parents=True)
    write_record(folder / RECORD_FILE, runtime.record)
    assert runtimes.find("26.07") is None
    assert read_record(RuntimeRecord, folder / RECORD_FILE) == runtime.record


def test_removing_waits_for_an_installation_that_is_running(home: Path) -> None:
    from filelock import FileLock

    folder = home / "runtimes" / "26.07"
    folder.mkdir(parents=True)
    removal = threading.Thread(target=runtimes.remove, args=("26.07",))
    with FileLock(home / "runtimes" / "26.07.lock"):
        removal.start()
        removal.join(0.3)
        assert removal.is_alive()
        assert folder.exists()
    removal.join(10)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("wanted", "available", "near"),
    [
        ("1.17.2", ("1.18.0", "1.17.3", "1.17.1", "1.17.0"), "1.17.3"),
        ("1.23.1", ("1.23.2", "1.23.0rc1", "1.22.0"), "1.23.2"),
        ("2026.2.0", ("2026.3.0", "2026.2.1"), "2026.2.1"),
        ("1.16.3", ("1.17.0",), None),
        ("2024.0.0", (), None),
    ],
)
def test_the_nearest_patch_release(wanted: str, available: tuple[str, ...], near: str | None) -> None:
    assert nearest_patch(wanted, available) == near


def test_a_version_that_the_index_lacks_is_replaced_and_said(runtime: Runtime, tmp_path: Path) -> None:
    subprocess.run([runtime.python, "-m", "venv", tmp_path / "env"], check=True)
    python = tmp_path / "env" / "bin" / "python"
    said: list[str] = []
    note = install_near(python, "flatbuffers", "25.2.9999", said.append)
    assert "stands for 25.2.9999" in note
    assert note in said
    with pytest.raises(MachineError, match=r"flatbuffers 0\.0\.1 cannot be installed"):
        install_near(python, "flatbuffers", "0.0.1", said.append)


def test_this_machine_can_run_the_embedded_server() -> None:
    assert [check.name for check in machine_checks() if not check.ok] == []
    assert runtimes.checks() == machine_checks()


def test_the_shared_libpython_is_the_one_of_this_interpreter() -> None:
    library = shared_libpython(own_version())
    assert library is not None
    assert library.name == f"libpython{own_version()}.so.1.0"


def test_a_missing_libpython_names_the_line_that_installs_it() -> None:
    check = libpython_check("3.99")
    assert not check.ok
    assert "libpython3.99.so.1.0 is missing" in check.detail
    assert check.remedy.startswith(
        ("PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install", "apt-get install", "dnf install")
    )


def test_a_machine_without_bash(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    check = bash_check()
    assert (check.ok, check.remedy) == (False, "apt-get install bash")
    with pytest.raises(MachineError, match="bash is missing") as caught:
        runtimes.require_machine()
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("check", "words"),
    [
        (python_check("3.13"), "CPython 3.11 or 3.12, this is CPython 3.13"),
        (platform_check("Linux aarch64"), "built for Linux x86_64, this is Linux aarch64"),
        (glibc_check("glibc", "2.31"), "needs glibc 2.35 or newer, this machine has glibc 2.31"),
        (glibc_check("", ""), "this machine has another"),
        (shared_memory_check(Path("/proc/nowhere")), "cannot be written"),
    ],
)
def test_other_machines_are_refused_with_a_remedy(check: object, words: str) -> None:
    assert words in check.detail  # type: ignore[attr-defined]
    assert not check.ok  # type: ignore[attr-defined]
    assert check.remedy  # type: ignore[attr-defined]


def test_nothing_is_made_before_the_machine_was_looked_at(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("bash") is None
    with pytest.raises(MachineError, match="bash is missing"):
        runtimes.install("26.07", progress=print)
    assert not (home / "runtimes").exists()


def test_what_can_be_added_is_named(runtime: Runtime) -> None:
    with pytest.raises(SpecError, match="there is no --with tensorflow") as caught:
        runtimes.install(runtime.release, progress=print, backends=["tensorflow"])
    assert "pytorch" in caught.value.remedy


def test_torch_in_the_runtime_works_with_its_numpy(runtime_with_torch: Runtime) -> None:
    assert runtimes.install(runtime_with_torch.release, progress=print, backends=["pytorch"]) == runtime_with_torch
    code = "import numpy, torch; print(numpy.__version__[0], torch.from_numpy(numpy.arange(3.0)).sum().numpy())"
    done = subprocess.run([runtime_with_torch.python, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "3.0"]


def test_torch_is_the_one_that_wrote_the_files() -> None:
    pins = (Path(__file__).parents[2] / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in pins if line.startswith("torch==")] == [runtimes.WITH["pytorch"][0]]
