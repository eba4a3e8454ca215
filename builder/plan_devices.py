"""GPUs that the spec asks of this machine: said before the works of a target, whose configuration would be refused."""

from __future__ import annotations

from builder.machine import gpu_count
from builder.spec import ModelSpec
from builder.triton_config import KINDS

SAY_AUTO = "build where the GPUs are, or say instances: {kind: auto} in the spec"


def lacks_gpu(model: ModelSpec, backend: str) -> tuple[str, str] | None:
    """What is lacking for the target's instances, and what to do; None where nothing is.

    A build is judged for its own machine: Triton refuses a group on a GPU that is not there.
    """
    if "gpu" not in KINDS[backend]:
        return None
    groups = [group for group in model.instances or () if group.kind == "gpu" or group.gpus]
    count = gpu_count()
    if groups and not count:
        return "instances: asks for an NVIDIA GPU, and this machine shows none", SAY_AUTO
    absent = sorted({gpu for group in groups for gpu in group.gpus if gpu >= count})
    if absent:
        listed = ", ".join(map(str, absent))
        return f"instances: asks for GPU {listed}, and this machine has {count}, numbered from 0", SAY_AUTO
    return None
