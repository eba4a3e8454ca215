"""Settings on the real server: staged side by side, measured by the load test's engine with the samples' shapes."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from builder.cache import Cache, session
from builder.compare import Gates
from builder.errors import ServeError
from builder.judge import ModelState, TargetState, served_gates
from builder.loadtest import LoadOptions, LoadResult, LoadSubject
from builder.loadtest.records import Turn
from builder.loadtest.turns import Taken, run_turns
from builder.measurement import served_signature
from builder.plan import make_plan
from builder.rendering import FolderRequest, render_folder
from builder.samples import Request, load_requests
from builder.samples.batch_proof import cut
from builder.samples.stored import store_samples
from builder.scratch import temporary_folder
from builder.servers import Endpoint, ServeOptions
from builder.spec import RepoSpec
from builder.trees import link
from builder.triton_client import Protocol
from builder.tune.settings import with_setting
from builder.tuning_records import LoadPoint, Setting
from builder.verify import serving
from builder.work import parse_target, work_key

VERSION = "1"
MOST_REQUESTS = 64
"""Different requests that are sent, over and over."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """A model that is tuned: judged, with what it is sent."""

    state: ModelState
    release: str
    requests: tuple[Request, ...]
    rows: int

    @property
    def name(self) -> str:
        """The model's."""
        return self.state.spec.name

    def target(self, setting: Setting) -> TargetState:
        """The state of a setting's target."""
        return next(target for target in self.state.targets if str(target.target) == setting.target)

    def gates(self, setting: Setting) -> Gates:
        """What every answer must reach."""
        return served_gates(self.state, parse_target(setting.target))


@dataclass(frozen=True, slots=True)
class Measured:
    """A load; `windows` are rows a second in equal parts of the time, `latencies_ms` medians in them.

    `speeds` are rows a second of each model that was called.
    """

    point: LoadPoint
    windows: tuple[float, ...]
    latencies_ms: tuple[float, ...]
    wrong: str = ""
    speeds: tuple[float, ...] = ()


def requests_for(state: ModelState, cache: Cache, rows: int) -> tuple[tuple[Request, ...], int]:
    """Sample requests of `rows` rows each; as they are, and 0, where the model has no proven batch axis."""
    report = state.report
    if report is None:
        msg = f"{state.spec.name} was never exported"
        raise ValueError(msg)
    file = store_samples(cache, "export", work_key(state.plan.export), report.signature)
    requests = load_requests(file, report.signature)
    if not report.batch.proven or not all(request.rows for request in requests):
        return requests[:MOST_REQUESTS], 0
    found = [part for request in requests for part in _parts(request, rows)]
    return tuple(found[:MOST_REQUESTS]) or requests[:MOST_REQUESTS], rows


def _parts(request: Request, rows: int) -> Iterator[Request]:
    """A request's rows, so many at a time; one of fewer rows goes round."""
    for start in range(0, max(1, request.rows - rows + 1), rows):
        places = range(start, start + rows)
        yield Request(cut(request.inputs, places), cut(request.outputs, places), rows)


Variant = tuple[Tuned, Setting]


@contextmanager
def served(variants: Sequence[Variant], cache: Cache) -> Iterator[tuple[Endpoint, tuple[str, ...]]]:
    """One server with a model for each variant, and their names; idle ones cost memory, not time.

    Raises:
        ServeError: a setting does not load.
    """
    with session(cache) as scratch:
        repository = scratch / "repository"
        names = tuple(f"{tuned.name}-{number}" for number, (tuned, _) in enumerate(variants))
        for (tuned, setting), name in zip(variants, names, strict=True):
            _stage(tuned, setting, name, repository, cache)
        options = ServeOptions(release=variants[0][0].release, auto_complete=False)
        with serving(repository, None, options) as (endpoint, unchecked):
            if endpoint.grpc is None:
                raise ServeError(f"{', '.join(names)} cannot be served here: {'; '.join(unchecked)}")
            yield endpoint, names


def _stage(tuned: Tuned, setting: Setting, name: str, repository: Path, cache: Cache) -> None:
    """A model folder with links to the artefact in the cache: it is only read, and not copied for each setting."""
    state, target = tuned.state, tuned.target(setting)
    spec = with_setting(state.spec, setting, name)
    planned = make_plan(RepoSpec(triton=tuned.release, models=(spec,)), defer=True).models[0]
    plan = next(item for item in planned.targets if item.target == target.target)
    if state.report is None or target.converted is None or work_key(plan.convert) != work_key(target.plan.convert):
        msg = f"{name}: {setting.target} is not what was built"
        raise ValueError(msg)
    samples = store_samples(cache, "export", work_key(state.plan.export), state.report.signature)
    request = FolderRequest(
        folder=name,
        state=replace(state, plan=replace(state.plan, spec=spec)),
        target=replace(target, plan=plan),
        report=state.report,
        samples=samples,
        label_file=None,
        release=tuned.release,
    )
    rendering, files = render_folder(request, cache)
    folder = repository / name
    (folder / VERSION).mkdir(parents=True)
    (folder / "config.pbtxt").write_text(rendering.text, encoding="utf-8")
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    artefact = cache.folder("convert", work_key(target.plan.convert))
    for path in target.converted.files:
        place = folder / VERSION / path
        place.parent.mkdir(parents=True, exist_ok=True)
        link(str(artefact / path), str(place))


@dataclass(frozen=True, slots=True)
class Slot:
    """A turn of some variants, by their places; users are shared out to them."""

    places: tuple[int, ...]
    users: int
    seconds: float


Placed = TypeVar("Placed")


def there_and_back(items: Sequence[Placed], rounds: int) -> list[tuple[int, Placed]]:
    """Number of the round and item: every second round goes backwards, so that a steady drift hits all alike."""
    return [(number, item) for number in range(rounds) for item in (items if number % 2 == 0 else items[::-1])]


def measure(
    endpoint: Endpoint, names: Sequence[str], variants: Sequence[Variant], slots: Sequence[Slot], protocol: Protocol
) -> tuple[Measured | None, ...]:
    """Closed loads, one after the other; None where nothing was answered.

    Raises:
        KeyboardInterrupt: the user ended it.
        ServeError: the server is gone.
    """
    places = dict.fromkeys(place for slot in slots for place in slot.places)
    subjects = [_subject(names[place], *variants[place]) for place in places]
    turns = [Turn(tuple(names[place] for place in slot.places), slot.users, slot.seconds) for slot in slots]
    with temporary_folder("tune-load") as folder:
        options = LoadOptions(folder, protocol=protocol)
        taken = run_turns(endpoint, subjects, turns, options, progress=lambda _: None)
    rows = {name: max(1, tuned.rows) for name, (tuned, _) in zip(names, variants, strict=True)}
    return tuple(_measured(one, [rows[name] for name in one.turn.models]) for one in taken)


def _subject(name: str, tuned: Tuned, setting: Setting) -> LoadSubject:
    report = tuned.state.report
    signature = served_signature(report.signature, report.sequence) if report else None
    return LoadSubject(name, tuned.requests, signature, tuned.gates(setting))


def _measured(taken: Taken, rows: Sequence[int]) -> Measured | None:
    result = taken.result
    if result is None or not any(window.requests_per_s for window in result.windows):
        return None
    figures = {item.name: item for item in result.model_figures}
    speeds = [figures[name].requests / result.duration_s for name in taken.turn.models]
    return Measured(
        point=_point(result, taken.turn),
        windows=tuple(rows[0] * window.requests_per_s for window in result.windows),
        latencies_ms=tuple(window.p50_ms for window in result.windows if window.p50_ms is not None),
        wrong=_wrong(result),
        speeds=tuple(speed * size for speed, size in zip(speeds, rows, strict=True)),
    )


def _point(result: LoadResult, turn: Turn) -> LoadPoint:
    batches = next((item.batches for item in result.model_figures if item.name == turn.models[0]), ())
    memory = result.machine.server_bytes
    return LoadPoint(
        users=turn.users,
        requests=result.requests,
        failures=result.failures,
        requests_per_s=result.requests_per_s,
        rows_per_s=result.rows_per_s,
        p50_ms=result.p50_ms,
        p99_ms=result.p99_ms,
        queue_ms=result.queue_ms,
        compute_ms=result.compute_ms,
        batches=batches,
        generator_cores=result.generator_cores,
        server_cores=result.machine.server_cores,
        server_bytes=memory[1] if memory else None,
        other_cores=None if result.machine.server_cores is None else result.machine.other_cores,
    )


def _wrong(result: LoadResult) -> str:
    """Why the setting cannot be chosen: a fast wrong answer is an error."""
    if result.failures:
        return f"{result.failures} of {result.requests + result.failures} requests failed: {result.failure_texts[0]}"
    if result.answers.wrong:
        return f"{result.answers.wrong} of {result.answers.compared} answers were wrong: {result.answers.texts[0]}"
    return ""


def merged(points: Sequence[LoadPoint]) -> LoadPoint:
    """Turns of one load as one: sums of counts, medians of all else."""
    batches: dict[int, int] = {}
    for point in points:
        for size, count in point.batches:
            batches[size] = batches.get(size, 0) + count

    def middle(name: str) -> float:
        return float(statistics.median(getattr(point, name) for point in points))

    def known(name: str) -> float | None:
        values = [value for point in points if (value := getattr(point, name)) is not None]
        return statistics.median(values) if values else None

    return replace(
        points[-1],
        requests=sum(point.requests for point in points),
        failures=sum(point.failures for point in points),
        batches=tuple(sorted(batches.items())),
        requests_per_s=middle("requests_per_s"),
        rows_per_s=middle("rows_per_s"),
        p50_ms=middle("p50_ms"),
        p99_ms=middle("p99_ms"),
        generator_cores=middle("generator_cores"),
        queue_ms=known("queue_ms"),
        compute_ms=known("compute_ms"),
        server_cores=known("server_cores"),
        other_cores=known("other_cores"),
    )
