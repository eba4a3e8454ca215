"""Packages of steps in Python for the embedded server's own Python: its copy of a repository gets a set of its own.

The set in the repository is for the release's Python, which is another one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

from builder import runtime as runtimes
from builder.cache import default_cache, open_cache
from builder.errors import MachineError, SpecError
from builder.frameworks.python.packages import Interpreter, ensure_packages, resolve
from builder.work import work_key

FACTS_FILE: Final = "step.json"
FOLDER: Final = "packages"

PackagesFor = Callable[[tuple[str, ...], tuple[str, ...]], Path]
"""Requirements and the versions that are shipped → a folder of packages."""


def packages_for(release: str) -> PackagesFor:
    """Requirements → the folder of the set for the Python of that release's embedded server.

    What is returned raises SpecError where there is no such set, MachineError where it cannot be had.
    """

    def find(requirements: tuple[str, ...], shipped: tuple[str, ...]) -> Path:
        runtime = runtimes.require(release)
        numpy = f"numpy=={runtime.record.packages['numpy']}"
        interpreter = Interpreter(str(runtime.python), runtime.record.python, (), numpy)
        cache = default_cache()
        open_cache(cache)
        work = resolve(requirements, interpreter, cache, shipped)
        return ensure_packages(work, work_key(work), cache, interpreter.pip)

    return find


def step_packages(model: Path, find: PackagesFor) -> tuple[dict[str, Path], str]:
    """Version folder → the set that takes the place of its own; and why there is none, empty where there is."""
    found: dict[str, Path] = {}
    for version in sorted(entry.name for entry in model.iterdir() if (entry / FACTS_FILE).is_file()):
        try:
            facts = json.loads((model / version / FACTS_FILE).read_text(encoding="utf-8"))
            requirements = tuple(map(str, facts.get("requirements", ())))
            if requirements:
                found[version] = find(requirements, _shipped(model / version / FOLDER))
        except (SpecError, MachineError) as error:
            return {}, f"the embedded server has no packages for it: {error.message}"
        except (OSError, ValueError, AttributeError):
            continue  # a file of that name that is not ours: the server will judge the model
    return found, ""


def _shipped(packages: Path) -> tuple[str, ...]:
    """`pillow==12.3.0` of every package in the repository's own set."""
    names = (folder.name.removesuffix(".dist-info").rpartition("-") for folder in sorted(packages.glob("*.dist-info")))
    return tuple(f"{name}=={version}" for name, _, version in names if name and name != "numpy")
