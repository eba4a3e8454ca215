"""Which packages pip chooses for which Python; asks the package index."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.cache import Cache, open_cache
from builder.errors import MachineError, SpecError
from builder.frameworks.python.packages import install_packages, release_python, resolve, this_python
from builder.work import Packages, Pin


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    made = Cache(tmp_path / "cache")
    open_cache(made)
    return made


def names(work: Packages) -> list[str]:
    return [pin.name for pin in work.pins]


def test_markers_are_those_of_the_release_and_not_of_this_python(cache: Cache) -> None:
    old, new = (resolve(["anyio==4.9.0"], release_python(release), cache) for release in ("24.10", "26.07"))
    assert (old.python, new.python) == ("3.10", "3.12")
    assert set(names(old)) - set(names(new)) == {"exceptiongroup"}
    assert all(len(pin.sha256) == 64 for pin in old.pins)


def test_numpy_is_the_servers_unless_it_is_asked_for(cache: Cache) -> None:
    served = resolve(["scipy"], release_python("26.07"), cache)
    assert names(served) == ["scipy"]
    assert served.pins[0].version < "1.18", "from 1.18 on scipy needs numpy 2"
    assert names(resolve(["numpy==2.1.0", "scipy"], release_python("26.07"), cache)) == ["numpy", "scipy"]
    with pytest.raises(SpecError, match=r"cannot be had as wheels for Python 3.12") as caught:
        resolve(["scipy==1.18.1"], release_python("26.07"), cache)
    assert "(numpy there is <2)" in caught.value.remedy


def test_other_pythons_take_the_versions_that_are_served(cache: Cache) -> None:
    here = this_python()
    assert resolve(["idna"], here, cache, ["idna==3.9"]).pins[0].version == "3.9"
    assert resolve(["idna>3.9"], here, cache, ["idna==3.9"]).pins[0].version != "3.9"


def test_what_was_chosen_stays_chosen(cache: Cache) -> None:
    first = resolve(["idna==3.9"], this_python(), cache)
    (file,) = (cache.root / "resolved").iterdir()
    file.write_text(file.read_text().replace("3.9", "3.8"))
    assert resolve(["idna==3.9"], this_python(), cache).pins[0].version == "3.8"
    assert first.pins[0].version == "3.9"


def test_a_wheel_that_is_not_the_one_that_was_chosen_is_refused(tmp_path: Path) -> None:
    work = Packages("3.12", (), (Pin("idna", "3.9", "0" * 64),))
    with pytest.raises(MachineError, match="packages that were chosen before are no longer to be had"):
        install_packages(work, tmp_path)


def test_an_installed_set_holds_nothing_of_this_machine(tmp_path: Path, cache: Cache) -> None:
    work = resolve(["tqdm==4.67.1"], this_python(), cache)
    install_packages(work, tmp_path)
    assert sorted(path.name for path in (tmp_path / "packages").iterdir()) == [
        "PYTHON_VERSION",
        "tqdm",
        "tqdm-4.67.1.dist-info",
    ]
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".pyc"]
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or str(tmp_path).encode() not in path.read_bytes()
