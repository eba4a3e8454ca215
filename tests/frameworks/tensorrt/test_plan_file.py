"""Reading a plan without a GPU: what is said, and that nothing of it reaches this process."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from builder.errors import BuildError
from builder.frameworks.tensorrt.library import REAL, STAND_IN
from builder.frameworks.tensorrt.plan_file import NUMPY, cannot_read, plan_name, read_plan
from builder.machine import gpu
from builder.plan_rules import PLAN_TYPES
from builder.tensors import BY_NUMPY


@pytest.mark.skipif(gpu() is not None, reason="this machine has an NVIDIA GPU")
def test_without_a_gpu_the_reason_is_said() -> None:
    assert "this machine has no NVIDIA GPU" in cannot_read()
    assert plan_name({"cc_model_filenames": {"8.9": "ada.plan"}}) == "model.plan"
    assert plan_name({"default_model_filename": "m.plan"}) == "m.plan"


@pytest.mark.skipif(find_spec(REAL) is not None, reason="the package tensorrt is installed")
def test_a_missing_package_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="the Python package tensorrt does not import"):
        read_plan(tmp_path / "model.plan")


@pytest.mark.skipif(find_spec(STAND_IN) is None, reason="tensorrt-rtx is not installed")
def test_what_tensorrt_cannot_open_ends_only_its_own_process(tmp_path: Path) -> None:
    (tmp_path / "model.plan").write_bytes(b"ftrt" * 100)
    with pytest.raises(BuildError) as error:
        read_plan(tmp_path / "model.plan", STAND_IN)
    assert "TensorRT" in error.value.message or "tensorrt" in error.value.message


def test_the_types_of_plans_are_those_of_the_backend() -> None:
    assert {BY_NUMPY[name].triton.removeprefix("TYPE_") for name in NUMPY.values()} == set(PLAN_TYPES)
