from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder import swap as swap_module
from builder.errors import MachineError
from builder.swap import Staging, staging, swap


def fill(folder: Path, text: str, *models: str) -> None:
    for model in models:
        (folder / model / "1").mkdir(parents=True)
        (folder / model / "1" / "model.onnx").write_text(text, encoding="utf-8")
    (folder / "build-repo.json").write_text(text, encoding="utf-8")


def texts(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text(encoding="utf-8") for p in folder.rglob("*") if p.is_file()}


NEW = {"a/1/model.onnx": "new", "b/1/model.onnx": "new", "build-repo.json": "new"}


@pytest.fixture
def output(tmp_path: Path) -> Path:
    made = tmp_path / "repo"
    made.mkdir()
    fill(made, "old", "a", "gone")
    return made


def test_the_whole_repository_is_exchanged_in_one_step(output: Path) -> None:
    before = output.stat().st_ino
    with staging(output) as place:
        place.staged.mkdir()
        fill(place.staged, "new", "a", "b")
        swap(place)
        assert texts(place.staged)["build-repo.json"] == "old", "the old one left in one piece"
    assert texts(output) == NEW
    assert output.stat().st_ino != before
    assert [item.name for item in output.parent.iterdir()] == ["repo"]


def test_a_new_output_appears_as_a_whole(tmp_path: Path) -> None:
    with staging(tmp_path / "deep" / "repo") as place:
        place.staged.mkdir()
        fill(place.staged, "new", "a", "b")
        assert not (tmp_path / "deep" / "repo").exists()
        swap(place)
    assert texts(tmp_path / "deep" / "repo") == NEW
    assert [item.name for item in (tmp_path / "deep").iterdir()] == ["repo"]


def test_a_build_that_ends_without_a_swap_changes_nothing(output: Path) -> None:
    before = texts(output)
    with staging(output) as place:
        place.staged.mkdir()
        fill(place.staged, "new", "a")
    assert texts(output) == before
    assert [item.name for item in output.parent.iterdir()] == ["repo"]


def test_the_outputs_permissions_stay(output: Path) -> None:
    output.chmod(0o2775)
    with staging(output) as place:
        place.staged.mkdir()
        swap(place)
    assert output.stat().st_mode & 0o7777 == 0o2775


def test_a_linked_output_stays_a_link(output: Path) -> None:
    link = output.parent / "link"
    link.symlink_to(output)
    with staging(link) as place:
        place.staged.mkdir()
        fill(place.staged, "new", "a", "b")
        swap(place)
    assert link.is_symlink()
    assert texts(link) == NEW


def test_a_second_build_of_the_same_output_is_refused(output: Path) -> None:
    with staging(output) as place:
        with pytest.raises(MachineError, match="another build is writing") as error, staging(output):
            pass
        assert error.value.exit_code == 4
        assert place.workshop.is_dir(), "the refused build took nothing away"
    with staging(output):
        pass


def test_what_a_killed_build_left_is_removed(output: Path) -> None:
    left = output.parent / ".build-repo-repo"
    fill_left = left / "staged"
    fill_left.mkdir(parents=True)
    fill(fill_left, "half", "x")
    (left / "lock").write_text("", encoding="utf-8")
    with staging(output) as place:
        assert not place.staged.exists()
    assert not left.exists()


@pytest.fixture(params=["whole-folder", "no-exchange"])
def inside(request: pytest.FixtureRequest, output: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Staging]:
    """A workshop inside the output, on a kernel with and without an exchange."""
    if request.param == "no-exchange":
        monkeypatch.setattr(swap_module, "NO_EXCHANGE", (*swap_module.NO_EXCHANGE, 0))
        monkeypatch.setattr(swap_module, "RENAME_EXCHANGE", 1 << 30)  # a flag that no kernel knows: EINVAL
    workshop = output / ".build-repo-repo"
    (workshop / "staged").mkdir(parents=True)
    fill(workshop / "staged", "new", "a", "b")
    yield Staging(output, workshop)


def test_item_by_item_the_result_is_the_same(inside: Staging) -> None:
    assert inside.inside
    swap(inside)
    shutil.rmtree(inside.workshop)
    assert texts(inside.output) == NEW
    assert sorted(item.name for item in inside.output.iterdir()) == ["a", "b", "build-repo.json"]


@pytest.mark.parametrize("moment", range(12))
def test_a_kill_between_two_items_loses_no_model(inside: Staging, moment: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next build finds every model of the old or the new repository, whole."""
    calls = 0

    def counted(function):
        def call(*arguments):
            nonlocal calls
            calls += 1
            if calls > moment:
                raise KeyboardInterrupt
            return function(*arguments)

        return call

    monkeypatch.setattr(swap_module.os, "replace", counted(os.replace))
    monkeypatch.setattr(Path, "rename", counted(Path.rename))
    try:
        swap(inside)
        finished = True
    except KeyboardInterrupt:
        finished = False
    monkeypatch.undo()
    swap_module._recover(inside.workshop, inside.output)
    found = texts(inside.output)
    if finished:
        assert found == NEW
        return
    assert found["a/1/model.onnx"] in ("old", "new")
    assert found["build-repo.json"] in ("old", "new")
    if found["build-repo.json"] == "new":
        assert (found["a/1/model.onnx"], found["b/1/model.onnx"]) == ("new", "new"), "the manifest comes last"
    else:
        assert found["gone/1/model.onnx"] == "old"


def mounted(folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a file system")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"cannot mount a tmpfs here: {done.stderr.decode().strip()}")


def test_an_output_that_is_a_mount_point_is_replaced_from_inside(tmp_path: Path) -> None:
    output = tmp_path / "volume"
    output.mkdir()
    mounted(output)
    try:
        fill(output, "old", "a", "gone")
        with staging(output) as place:
            assert place.inside
            place.staged.mkdir()
            fill(place.staged, "new", "a", "b")
            swap(place)
        assert texts(output) == NEW
        assert sorted(item.name for item in output.iterdir()) == ["a", "b", "build-repo.json"]
        assert os.path.ismount(output)
    finally:
        subprocess.run(["umount", str(output)], check=True)


def test_a_read_only_place_is_the_machines_fault(tmp_path: Path) -> None:
    place = tmp_path / "volume"
    place.mkdir()
    mounted(place)
    try:
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        with pytest.raises(MachineError, match="cannot write") as error, staging(place / "repo"):
            pass
        assert error.value.exit_code == 4
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_file_where_a_folder_should_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(MachineError, match="cannot write"), staging(tmp_path / "file" / "repo"):
        pass
