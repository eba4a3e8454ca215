"""What every test may use: the embedded runtime, installed once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from builder.runtime import Runtime


# Machines of CI are slow now and then, and a red build must be red again when it is looked at.
settings.register_profile("build-repo", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("build-repo")


@pytest.fixture(scope="session")
def runtime() -> Runtime:
    """The embedded runtime of the default release; the first session on a machine installs it."""
    from builder import defaults
    from builder.runtime import install

    return install(defaults.RELEASE, progress=print)


@pytest.fixture(scope="session")
def runtime_with_torch(runtime: Runtime) -> Runtime:
    """The same where it serves the pytorch backend too; set-up installs that."""
    if "torch" not in runtime.record.packages:
        pytest.skip("the runtime has no torch: build-repo runtime install --with pytorch")
    return runtime


@pytest.fixture(scope="session")
def slim_image() -> str:
    """The slim image of this checkout; skips where no Docker engine answers."""
    from docker_images import build_slim_image, require_engine

    require_engine()
    return build_slim_image()


@pytest.fixture(scope="session", autouse=True)
def work_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One cache of works for the whole session, never the user's own."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("BUILD_REPO_CACHE")
    os.environ["BUILD_REPO_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["BUILD_REPO_CACHE"]
    else:
        os.environ["BUILD_REPO_CACHE"] = before
