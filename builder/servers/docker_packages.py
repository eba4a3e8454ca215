"""Packages of steps in Python for a slim image's own Python: they are mounted over the repository's.

The set in the repository is for the release's Python, which NVIDIA's images have; a slim image has its base's.
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
from pathlib import Path
from typing import Any, Final

from builder.cache import default_cache, open_cache
from builder.errors import ServeError
from builder.frameworks.python.packages import Interpreter, ensure_packages, older_platforms, release_python, resolve
from builder.servers.docker_owner import OWNER_LABEL, own_label
from builder.servers.step_packages import FACTS_FILE, FOLDER, step_packages
from builder.work import work_key

RECORD: Final = "/opt/tritonserver/runtime.json"
GLIBC_MINOR: Final = 35
"""The oldest that a slim image's base may have."""

Client = Any
"""docker.DockerClient, which brings no types."""


def own_packages(client: Client, image: str, label: str, repository: Path, release: str) -> dict[str, Path]:
    """`MODEL/VERSION/packages` → the folder to mount there; nothing for an image without `label`, which is not ours.

    Raises:
        ServeError: a step's packages are not to be had for the image's Python.
    """
    models = sorted({file.parent.parent for file in repository.glob(f"*/*/{FACTS_FILE}")})
    if not models or label not in (client.images.get(image).labels or {}):
        return {}
    record = _record(client, image)
    version = str(record["python"])
    if version == release_python(release).version:
        return {}
    numpy = f"numpy=={record['packages']['numpy']}"
    interpreter = Interpreter(sys.executable, version, older_platforms(GLIBC_MINOR), numpy)

    def find(requirements: tuple[str, ...], shipped: tuple[str, ...]) -> Path:
        cache = default_cache()
        open_cache(cache)
        work = resolve(requirements, interpreter, cache, shipped)
        return ensure_packages(work, work_key(work), cache, interpreter.pip)

    mounts: dict[str, Path] = {}
    for model in models:
        found, reason = step_packages(model, find)
        if reason:
            why = reason.partition(": ")[2]
            msg = f"image {image} has Python {version}, for which model {model.name} gets no packages: {why}"
            raise ServeError(msg, remedy="serve it with NVIDIA's image of the release")
        mounts |= {f"{model.name}/{number}/{FOLDER}": folder for number, folder in found.items()}
    return mounts


def _record(client: Client, image: str) -> dict[str, Any]:
    """What the image's server is made of, read from a container that is never started."""
    made = client.containers.create(image, labels={OWNER_LABEL: own_label()})
    try:
        chunks, _ = made.get_archive(RECORD)
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
            member = tar.extractfile(tar.next())  # type: ignore[arg-type]
            found: dict[str, Any] = json.loads(member.read()) if member else {}
    finally:
        made.remove(force=True)
    return found
