"""`needs.py REPO`: the release that a repository is for, and the backends that a slim image needs for it."""

from __future__ import annotations

import sys
from pathlib import Path

from builder import defaults
from builder.manifest import read_manifest
from builder.servers.backend_folder import BACKENDS
from builder.servers.needs import needs_of


def main(repository: Path) -> None:
    """One line: `26.07 onnxruntime openvino`."""
    needs = needs_of(repository)
    if needs.gpu:
        listed = ", ".join(f"{model} ({reason})" for model, reason in needs.gpu.items())
        sys.exit(f"error: a slim image has no GPU, and these models need one: {listed}")
    manifest = read_manifest(repository)
    print(manifest.triton if manifest else defaults.RELEASE, *(word for word in needs.backends if word in BACKENDS))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
