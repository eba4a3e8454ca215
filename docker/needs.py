"""`needs.py REPO`: the backends that a slim image for a repository must have."""

from __future__ import annotations

import sys
from pathlib import Path

from builder.servers.backend_folder import BACKENDS
from builder.servers.needs import needs_of


def main(repository: Path) -> None:
    """One line: `onnxruntime openvino`."""
    needs = needs_of(repository)
    if needs.gpu:
        listed = ", ".join(f"{model} ({reason})" for model, reason in needs.gpu.items())
        sys.exit(f"error: a slim image has no GPU, and these models need one: {listed}")
    print(*(word for word in needs.backends if word in BACKENDS))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
