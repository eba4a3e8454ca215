"""What every test may use: the embedded runtime, installed once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from builder.runtime import Runtime


@pytest.fixture(scope="session")
def runtime() -> Runtime:
    """The embedded runtime of the default release; the first session on a machine installs it."""
    from builder import defaults
    from builder.runtime import install

    return install(defaults.RELEASE, progress=print)
