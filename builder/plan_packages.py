"""The sets of packages that a step in Python needs: for the release's Python, which is served, and for this one."""

from __future__ import annotations

from collections.abc import Sequence

from builder.cache import default_cache
from builder.errors import MachineError, SpecError
from builder.frameworks.python.packages import Interpreter, release_python, resolve, this_python
from builder.spec import ModelSpec
from builder.work import Packages


def served_packages(model: ModelSpec, release: str) -> Packages | None:
    """What is copied into the version folder; None where the step imports nothing, or has an environment of its own.

    Raises:
        SpecError: there is no such set.
        MachineError: nobody can be asked.
    """
    if model.source.environment is not None:
        return None
    return _resolved(model, release_python(release))


def packages_here(model: ModelSpec, release: str) -> Packages | None:
    """What the step is computed with: the versions that are served, where this Python has them.

    Raises:
        SpecError, MachineError: as `served_packages`.
    """
    served = served_packages(model, release)
    like = [f"{pin.name}=={pin.version}" for pin in served.pins] if served else []
    return _resolved(model, this_python(), like)


def _resolved(model: ModelSpec, interpreter: Interpreter, like: Sequence[str] = ()) -> Packages | None:
    requirements = model.source.package_list
    if not requirements:
        return None
    try:
        return resolve(requirements, interpreter, default_cache(), like)
    except (SpecError, MachineError) as error:
        raise type(error)(f"{model.name}: {error.message}", remedy=error.remedy) from error


def other_versions(here: Packages, served: Packages) -> tuple[str, ...]:
    """Packages that are measured in one version and served in another: `scipy 1.18.1, served 1.17.1`."""
    mine = {pin.name: pin.version for pin in here.pins}
    return tuple(
        f"{pin.name} {mine[pin.name]}, served {pin.version}"
        for pin in served.pins
        if mine.get(pin.name, pin.version) != pin.version
    )
