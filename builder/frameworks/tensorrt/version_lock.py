"""An engine loads only in the TensorRT that built it: which one the target release has, and whether it is this one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from builder.releases import Release, get_release

IMAGES: Final = ("NVIDIA_TRITON_SERVER_VERSION", "NVIDIA_TENSORRT_VERSION", "NVIDIA_PYTORCH_VERSION")
"""Variables of NVIDIA's images that hold their release, `26.07`."""
VERSION: Final = "TRT_VERSION"
"""The variable that holds the TensorRT version of such an image."""


@dataclass(frozen=True, slots=True)
class Known:
    """The TensorRT of a release: `version` is empty where nobody knows it, and `source` then says why."""

    version: str
    source: str


def tensorrt_of(name: str, environment: Mapping[str, str]) -> Known:
    """What the release bundles, from the table of releases or from the image that this process runs in; no guesses."""
    release = get_release(name)
    image = next((environment[word] for word in IMAGES if environment.get(word)), "")
    if image == name and environment.get(VERSION):
        return Known(environment[VERSION], f"{VERSION} of the {image} image")
    if release.tensorrt_verified:
        return Known(release.tensorrt, f"the table of releases, read from the {name} image")
    return Known("", _unknown(release, image))


def _unknown(release: Release, image: str) -> str:
    """The table's unproven value is shown, not used."""
    where = f"this is a {image} image" if image else "this is no NVIDIA image"
    return f"the table of releases holds an unproven {release.tensorrt}, and {where}"


def mismatch(
    installed: str, release: str, environment: Mapping[str, str], *, version_compatible: bool
) -> tuple[str, str] | None:
    """Why an engine of the installed TensorRT will not load in the release's server, and the ways out; None: it will.

    A version-compatible engine loads in its own and in later versions of the same major one.
    """
    known = tensorrt_of(release, environment)
    if not known.version:
        return (
            f"which TensorRT Triton {release} bundles is not known ({known.source}), and an engine loads in no other",
            _ways(release, ""),
        )
    ours, theirs = _numbers(installed), _numbers(known.version)
    same = ours[: len(theirs)] == theirs[: len(ours)] and min(len(ours), len(theirs)) >= 3  # noqa: PLR2004
    if same or (version_compatible and ours[:1] == theirs[:1] and ours <= theirs):
        return None
    compatible = "tensorrt: {version_compatible: true} in the spec" if ours[:1] == theirs[:1] and ours <= theirs else ""
    engine = "a version-compatible engine" if version_compatible else "an engine"
    what = (
        f"{engine} of TensorRT {installed} does not load in Triton {release}, which has {known.version} "
        f"({known.source})"
    )
    return what, _ways(release, known.version, compatible)


def _ways(release: str, version: str, compatible: str = "") -> str:
    ways = [f"build inside the image nvcr.io/nvidia/tritonserver:{release}-py3"]
    if version:
        ways.append(f"pip install tensorrt=={version}")
    if compatible:
        ways.append(f"{compatible} (the server then needs --backend-config=tensorrt,version-compatible=true)")
    ways.append("use the target onnxruntime+tensorrt, which builds its engines in the server")
    return "; or ".join(ways)


def _numbers(version: str) -> tuple[int, ...]:
    """`10.7.0.post1` → (10, 7, 0)."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()
