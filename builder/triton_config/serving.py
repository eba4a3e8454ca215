"""The parts of a configuration that follow the spec's words one by one: batcher and queues, instances, versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from builder.spec_serving import BatchingSpec, InstancesSpec, QueueSpec, VersionsSpec

Json = dict[str, Any]


def dynamic_batching(batching: BatchingSpec, max_batch_size: int) -> Json | None:
    """The block, or None. A queue with rules needs it even where nothing is batched: the scheduler owns the queue."""
    if not batching.dynamic or (max_batch_size <= 1 and not batching.queued):
        return None
    block: Json = {}
    if batching.preferred and max_batch_size > 1:
        block["preferred_batch_size"] = sorted({size for size in batching.preferred if size <= max_batch_size})
    if batching.max_queue_delay_us and max_batch_size > 1:
        block["max_queue_delay_microseconds"] = batching.max_queue_delay_us
    if batching.preserve_ordering:
        block["preserve_ordering"] = True
    if batching.queue is not None:
        block["default_queue_policy"] = _queue_policy(batching.queue)
    if batching.priorities is not None:
        block["priority_levels"] = batching.priorities.levels
        block["default_priority_level"] = batching.priorities.default
        own = sorted(batching.priorities.queues.items())
        if own:
            block["priority_queue_policy"] = {str(level): _queue_policy(queue) for level, queue in own}
    return block


def _queue_policy(queue: QueueSpec) -> Json:
    policy: Json = {}
    if queue.on_timeout == "delay":
        policy["timeout_action"] = "DELAY"
    if queue.timeout_us is not None:
        policy["default_timeout_microseconds"] = queue.timeout_us
    if queue.allow_override:
        policy["allow_timeout_override"] = True
    if queue.max_size is not None:
        policy["max_queue_size"] = queue.max_size
    return policy


def instance_group(group: InstancesSpec, kinds: Mapping[str, str], measured: Json, *, profiles: bool) -> Json:
    """One group; `measured` is what the backend's own settings say of it, which an asked kind stands above."""
    asked = "gpu" if group.gpus and group.kind == "auto" else group.kind
    data: Json = {"count": group.count, "kind": kinds.get(asked, kinds["auto"])}
    data |= {key: value for key, value in measured.items() if key != "kind" or asked == "auto"}
    if group.name is not None:
        data["name"] = group.name
    if group.gpus and data["kind"] == "KIND_GPU":
        data["gpus"] = list(group.gpus)
    if group.host_policy is not None:
        data["host_policy"] = group.host_policy
    if group.profiles and profiles:
        data["profile"] = [str(profile) for profile in group.profiles]
    if group.passive:
        data["passive"] = True
    limiter = _rate_limiter(group)
    if limiter:
        data["rate_limiter"] = limiter
    return data


def _rate_limiter(group: InstancesSpec) -> Json:
    limiter: Json = {}
    if group.resources:
        limiter["resources"] = [
            {"name": item.name, "count": item.count} | ({"global": True} if item.shared else {})
            for item in group.resources
        ]
    if group.priority is not None:
        limiter["priority"] = group.priority
    return limiter


def version_policy(versions: VersionsSpec) -> Json | None:
    """None where the newest version is served, which is Triton's own choice."""
    match versions.serve:
        case "all":
            return {"all": {}}
        case int(count) if count > 1:
            return {"latest": {"num_versions": count}}
        case tuple(numbers):
            return {"specific": {"versions": sorted(set(numbers))}}
        case _:
            return None
