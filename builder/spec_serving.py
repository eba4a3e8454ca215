"""The words of the spec that say how Triton serves a model: batching, instances, sequences, versions, warm-up.

What can be seen in a word alone is refused here; what needs the model's targets, in `builder.spec_conflicts`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from builder import defaults

ZERO = "zero"
"""A state that starts with zeros."""


class Part(BaseModel):
    """A part of the spec: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)


class QueueSpec(Part):
    """How many requests wait for the model, and for how long."""

    max_size: int | None = Field(None, ge=1, description="More are refused at once; no limit when left out")
    timeout_us: int | None = Field(None, ge=1, description="A request that waits longer has timed out")
    on_timeout: Literal["reject", "delay"] = Field("reject", description="delay: answer it after all others")
    allow_override: bool = Field(default=False, description="A request may ask for a shorter timeout of its own")

    @model_validator(mode="after")
    def _has_a_timeout(self) -> QueueSpec:
        given = "on_timeout: delay" if self.on_timeout == "delay" else "allow_override" if self.allow_override else ""
        if given and self.timeout_us is None:
            msg = f"{given} does nothing without timeout_us: Triton only takes what is shorter than that"
            raise ValueError(msg if given == "allow_override" else f"{given} does nothing without timeout_us")
        return self


class PrioritiesSpec(Part):
    """Levels of priority, 1 the highest; a request names its own with the parameter `priority`."""

    levels: int = Field(ge=1)
    default: int = Field(ge=1, description="The level of a request that names none")
    queues: dict[int, QueueSpec] = Field(default_factory=dict, description="A level's own queue")

    @model_validator(mode="after")
    def _levels_exist(self) -> PrioritiesSpec:
        for word, level in (("default", self.default), *(("queues", key) for key in self.queues)):
            if not 1 <= level <= self.levels:
                msg = f"{word}: {level} is no level; the levels are 1 to {self.levels}"
                raise ValueError(msg)
        return self


class BatchingSpec(Part):
    """Triton's dynamic batcher and its queues."""

    max_batch_size: int | None = Field(None, ge=0, description="0: no batching, full dims")
    preferred: tuple[int, ...] = Field((), strict=False)
    max_queue_delay_us: int | None = Field(None, ge=0)
    dynamic: bool = True
    preserve_ordering: bool = Field(default=False, description="Answers leave in the order of their requests")
    queue: QueueSpec | None = None
    priorities: PrioritiesSpec | None = None

    @property
    def queued(self) -> bool:
        """The queue has rules of its own, which also hold where nothing is batched."""
        return self.queue is not None or self.priorities is not None

    @model_validator(mode="after")
    def _preferred_fits(self) -> BatchingSpec:
        if any(size < 1 for size in self.preferred):
            msg = "preferred batch sizes must be at least 1"
            raise ValueError(msg)
        limit = defaults.MAX_BATCH_SIZE if self.max_batch_size is None else self.max_batch_size
        if self.preferred and max(self.preferred) > limit:
            msg = f"preferred size {max(self.preferred)} is larger than max_batch_size {limit}"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _queues_fit(self) -> BatchingSpec:
        words = {"queue": self.queue is not None, "priorities": self.priorities is not None}
        words["preserve_ordering"] = self.preserve_ordering
        given = next((word for word, said in words.items() if said), None)
        if given and not self.dynamic:
            msg = f"{given} belongs to the dynamic batcher, which dynamic: false leaves out"
            raise ValueError(msg)
        if self.preserve_ordering and self.priorities is not None and self.priorities.levels > 1:
            msg = "preserve_ordering allows one level of priority only: leave one of the two out"
            raise ValueError(msg)
        queues = [self.queue, *(self.priorities.queues.values() if self.priorities else ())]
        if self.preserve_ordering and any(queue and queue.on_timeout == "delay" for queue in queues):
            msg = "preserve_ordering cannot stand beside on_timeout: delay, which answers late requests last"
            raise ValueError(msg)
        return self


class ResourceSpec(Part):
    """What an instance must hold while it runs: Triton's rate limiter gives it out."""

    name: str = Field(min_length=1)
    count: int = Field(ge=1)
    shared: bool = Field(default=False, description="One pool for all devices instead of one for each")


class InstancesSpec(Part):
    """One of Triton's instance groups."""

    count: int = Field(defaults.INSTANCE_COUNT, ge=1, description="Instances, on each GPU where there are several")
    kind: Literal["auto", "cpu", "gpu"] = "auto"
    gpus: tuple[Annotated[int, Field(ge=0, strict=True)], ...] = Field((), strict=False, description="GPUs by number")
    name: str | None = Field(None, min_length=1)
    host_policy: str | None = Field(None, min_length=1, description="A policy of tritonserver --host-policy")
    profiles: tuple[Annotated[int, Field(ge=0, strict=True)], ...] = Field(
        (), strict=False, description="tensorrt: the engine's optimisation profiles that this group runs"
    )
    passive: bool = Field(default=False, description="Loaded, and no request is given to it")
    resources: tuple[ResourceSpec, ...] = Field(
        (), strict=False, description="tritonserver --rate-limit: what it needs"
    )
    priority: int | None = Field(None, ge=1, description="Of its turns among all models, 1 the highest")

    @model_validator(mode="after")
    def _gpus_fit(self) -> InstancesSpec:
        if self.gpus and self.kind == "cpu":
            msg = "gpus belong to kind: gpu"
            raise ValueError(msg)
        names = [resource.name for resource in self.resources]
        double = next((name for name in names if names.count(name) > 1), None)
        if double is not None:
            msg = f"resource {double!r} is listed twice"
            raise ValueError(msg)
        return self


def one_or_more(value: Any) -> Any:  # noqa: ANN401 - whatever the YAML holds
    """A mapping is a list of one."""
    return (value,) if isinstance(value, (dict, InstancesSpec)) else value


Instances = Annotated[
    tuple[InstancesSpec, ...],
    Field(strict=False, min_length=1),
    BeforeValidator(one_or_more, json_schema_input_type=InstancesSpec | tuple[InstancesSpec, ...]),
]


class StateSpec(Part):
    """An input that takes the state, and the output that gives the next one."""

    input: str = Field(min_length=1)
    output: str = Field(min_length=1)
    initial: str = Field(ZERO, min_length=1, description="zero, or an .npy file with the first value of a sequence")
    same_buffer: bool = Field(default=False, description="The next state is written where the last one was read")
    growable: bool = Field(default=False, description="On GPUs: memory that grows with the state; needs same_buffer")

    @model_validator(mode="after")
    def _grows(self) -> StateSpec:
        if self.growable and not self.same_buffer:
            msg = "growable needs same_buffer: true"
            raise ValueError(msg)
        return self


class SequenceSpec(Part):
    """Triton's sequence batcher with implicit state: the server keeps what the model needs of earlier requests."""

    states: tuple[StateSpec, ...] = Field(strict=False, min_length=1)
    controls: dict[Literal["start", "end", "ready", "corrid"], str] = Field(
        default_factory=dict, description="Inputs of the model that Triton sets: where a sequence starts and ends …"
    )
    strategy: Literal["oldest", "direct"] = Field(
        defaults.SEQUENCE_STRATEGY,
        description="oldest: batches of whichever sequences wait; direct: a fixed place in the batch for each",
    )
    max_candidate_sequences: int | None = Field(None, ge=1, description="oldest: sequences that an instance takes")
    max_idle_us: int = Field(defaults.SEQUENCE_IDLE_US, ge=1, description="A sequence silent for longer is ended")
    min_slot_utilization: float | None = Field(
        None, gt=0, le=1, description="direct: the share of places that must wait before max_queue_delay_us is over"
    )

    @model_validator(mode="after")
    def _fits(self) -> SequenceSpec:
        if self.strategy == "direct" and self.max_candidate_sequences is not None:
            msg = "max_candidate_sequences belongs to strategy oldest; direct takes as many as max_batch_size"
            raise ValueError(msg)
        if self.strategy == "oldest" and self.min_slot_utilization is not None:
            msg = "min_slot_utilization belongs to strategy direct; with oldest write batching: {preferred: […]}"
            raise ValueError(msg)
        for word in ("input", "output"):
            names = [getattr(state, word) for state in self.states]
            double = next((name for name in names if names.count(name) > 1), None)
            if double is not None:
                msg = f"{word} {double!r} belongs to two states"
                raise ValueError(msg)
        inputs = [*(state.input for state in self.states), *self.controls.values()]
        double = next((name for name in inputs if inputs.count(name) > 1), None)
        if double is not None:
            msg = f"input {double!r} has two parts to play"
            raise ValueError(msg)
        return self


class WarmupSpec(Part):
    """Requests that Triton runs at load, made from the samples."""

    samples: int = Field(1, ge=0)
    count: int = Field(1, ge=1, description="How often each of them runs")


def check_served(value: Any) -> Any:  # noqa: ANN401 - whatever the YAML holds
    """`latest`, `all`, how many of the latest, or version numbers; a policy that serves nothing is refused."""
    numbers = value if isinstance(value, (list, tuple)) else (value,)
    whole = bool(numbers) and all(
        isinstance(item, int) and not isinstance(item, bool) and item >= 1 for item in numbers
    )
    if value not in ("latest", "all") and not whole:
        msg = f"{value!r}: write latest, all, how many of the latest, or a list of version numbers such as [1, 3]"
        raise ValueError(msg)
    return tuple(value) if isinstance(value, list) else value


Served = Annotated[
    str | int | tuple[int, ...],
    BeforeValidator(
        check_served, json_schema_input_type=Literal["latest", "all"] | Annotated[int, Field(ge=1)] | tuple[int, ...]
    ),
]


class VersionsSpec(Part):
    """Which versions of a model stay in the repository, and which of them are served."""

    keep: int = Field(defaults.VERSIONS_KEPT, ge=1, description="So many version folders stay")
    serve: Served = Field("latest", description="latest, all, how many of the latest, or a list of version numbers")

    @model_validator(mode="after")
    def _serves_something(self) -> VersionsSpec:
        if isinstance(self.serve, int) and self.serve > self.keep:
            msg = f"serve: {self.serve} asks for more versions than keep: {self.keep} leaves"
            raise ValueError(msg)
        if isinstance(self.serve, tuple) and len(set(self.serve)) > self.keep:
            msg = f"serve: {list(self.serve)} names more versions than keep: {self.keep} leaves"
            raise ValueError(msg)
        return self
