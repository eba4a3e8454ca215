"""Where `templates/` and `loadtests/` lie: beside the package in a checkout, inside it in a wheel."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def resource(name: str) -> Path:
    """The folder `name` of the checkout or of the installed wheel.

    Raises:
        FileNotFoundError: neither has it: the installation is broken.
    """
    for folder in (PACKAGE / "_resources" / name, PACKAGE.parent / name):
        if folder.is_dir():
            return folder
    msg = f"{name}/ is neither in {PACKAGE} nor beside it; reinstall build-repo"
    raise FileNotFoundError(msg)
