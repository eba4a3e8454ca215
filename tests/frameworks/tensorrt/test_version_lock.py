"""Which TensorRT a release has, where that is known from, and what is said when it is another one."""

from __future__ import annotations

import pytest

from builder.frameworks.tensorrt.version_lock import mismatch, tensorrt_of

TRITON = {"NVIDIA_TRITON_SERVER_VERSION": "26.08", "TRT_VERSION": "11.4.0.106"}


@pytest.mark.parametrize(
    ("release", "environment", "version"),
    [
        ("26.07", {}, "11.1.0.106"),
        ("25.09", {}, "10.13.3.9"),
        ("26.08", {}, ""),
        ("25.01", {}, ""),
        ("26.06", {}, ""),
        ("26.08", TRITON, "11.4.0.106"),
        ("26.08", {"NVIDIA_TENSORRT_VERSION": "26.08", "TRT_VERSION": "11.4.0.106"}, "11.4.0.106"),
        ("26.08", {"TRT_VERSION": "11.4.0.106"}, ""),
        ("26.08", {"NVIDIA_TRITON_SERVER_VERSION": "26.08"}, ""),
        ("26.06", TRITON, ""),
        ("26.07", TRITON, "11.1.0.106"),
        ("26.07", {"NVIDIA_TRITON_SERVER_VERSION": "26.07", "TRT_VERSION": "11.1.0.200"}, "11.1.0.200"),
    ],
)
def test_the_version_is_proven_or_unknown(release: str, environment: dict[str, str], version: str) -> None:
    assert tensorrt_of(release, environment).version == version


@pytest.mark.parametrize(
    ("installed", "release", "compatible", "loads"),
    [
        ("11.1.0.106", "26.07", False, True),
        ("11.1.0", "26.07", False, True),
        ("11.1", "26.07", False, False),
        ("11.1.0.107", "26.07", False, False),
        ("11.0.0.5", "26.07", False, False),
        ("11.0.0.5", "26.07", True, True),
        ("11.4.0.106", "26.07", True, False),
        ("10.16.1.11", "26.07", True, False),
        ("10.1.0.27", "24.06", False, True),
        ("10.1.0.post12", "24.06", False, True),
        ("10.0.1.6", "24.06", True, True),
        ("11.1.0.106", "26.08", False, False),
        ("11.1.0.106", "26.08", True, False),
        ("absent", "26.07", False, False),
    ],
)
def test_only_the_releases_own_version_loads(installed: str, release: str, compatible: bool, loads: bool) -> None:
    assert (mismatch(installed, release, {}, version_compatible=compatible) is None) == loads


def test_a_mismatch_says_both_versions_where_from_and_the_ways_out() -> None:
    found = mismatch("11.0.0.5", "26.07", {}, version_compatible=False)
    assert found is not None
    what, remedy = found
    assert "TensorRT 11.0.0.5 does not load in Triton 26.07, which has 11.1.0.106" in what
    assert "read from the 26.07 image" in what
    for way in (
        "build inside the image nvcr.io/nvidia/tritonserver:26.07-py3",
        "pip install tensorrt==11.1.0.106",
        "tensorrt: {version_compatible: true}",
        "version-compatible=true",
        "onnxruntime+tensorrt",
    ):
        assert way in remedy


def test_version_compatible_is_no_way_out_of_a_newer_or_another_major() -> None:
    for installed in ("11.4.0.106", "10.16.1.11"):
        found = mismatch(installed, "26.07", {}, version_compatible=False)
        assert found is not None
        assert "version_compatible" not in found[1]


def test_an_unknown_version_is_not_guessed() -> None:
    found = mismatch("11.4.0.106", "26.08", {"NVIDIA_PYTORCH_VERSION": "26.05"}, version_compatible=True)
    assert found is not None
    what, remedy = found
    assert "which TensorRT Triton 26.08 bundles is not known" in what
    assert "an unproven 11.x, and this is a 26.05 image" in what
    assert "pip install tensorrt==" not in remedy
    assert "tritonserver:26.08-py3" in remedy
