"""The checksum agent: tritonserver compares the files of its copy with these sums before it loads a model."""

from __future__ import annotations

import hashlib
from pathlib import Path

from builder.triton_config.text import config_to_text, parse_config

AGENT = "checksum"


def with_checksums(text: str, folder: Path) -> str:
    """The configuration with the MD5 of every file in a version folder; its comments stay on top."""
    config = parse_config(text)
    sums = {
        f"MD5:{path.relative_to(folder)}": _md5(path) for path in sorted(folder.glob("[1-9]*/**/*")) if path.is_file()
    }
    agents = config.setdefault("model_repository_agents", {}).setdefault("agents", [])
    agents.append({"name": AGENT, "parameters": sums})
    comments = "".join(f"{line}\n" for line in text.split("\n") if line.startswith("#"))
    return comments + config_to_text(config)


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
