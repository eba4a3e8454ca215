"""Lays out the slim image's server: `lay_out_server.py FOLDER RELEASE "BACKEND…"`, with PYTHONPATH at the checkout.

Standard library only: it runs in the image's build, with nothing installed.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from builder.errors import BuildRepoError
from builder.releases import get_release
from builder.runtime import WITH, extend, make
from builder.servers.backend_folder import BACKENDS, assemble_backends

IN_EVERY_IMAGE = ("python", "ensemble")
NOT_NEEDED = (
    "pip",
    "setuptools",
    "pkg_resources",
    "_distutils_hack",
    "distutils-precedence.pth",
    "pip-*",
    "setuptools-*",
)


def main(folder: Path, release: str, words: list[str]) -> None:
    """The runtime's own layout, the backends beside it, and short names for what lies deep inside."""
    unknown = sorted(set(words) - set(BACKENDS) - set(IN_EVERY_IMAGE))
    if unknown:
        sys.exit(f"error: no backend {', '.join(unknown)} for CPUs here; there are {', '.join(BACKENDS)}")
    libraries = [word for word in words if word in BACKENDS and word not in WITH]
    runtime = make(folder, get_release(release), print, libraries)
    runtime = extend(runtime, [word for word in words if word in WITH], print)
    assemble_backends(folder / "backends", runtime.backend_folder, runtime.record.packages)
    (folder / "server").symlink_to(runtime.server_folder)
    (folder / "libraries").symlink_to(runtime.server_libraries)
    for pattern in NOT_NEEDED:
        for path in runtime.site_packages.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), sys.argv[2], sys.argv[3].split())
    except BuildRepoError as error:
        sys.exit(f"error: {error}\n  try: {error.remedy}")
