"""A tuning made by hand through its records, as `tune` would write it, for a repository that was really built."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from builder.manifest import Manifest, read_manifest, write_manifest
from builder.tuning_records import LoadPoint, Objective, Setting, Tried, TunedModel

DEFAULT = Setting("onnxruntime:fp32", max_batch_size=8)
CHOSEN = Setting("openvino:int8", instances=2, threads=1)
OBJECTIVE = Objective("throughput", 8, slo=(("p99", 50.0),))


def point(users: int, rows: float, p99: float, batches: tuple[tuple[int, int], ...]) -> LoadPoint:
    """Closed loop: the median follows from users and throughput."""
    p50 = 1000 * users / rows
    return LoadPoint(
        users, requests=int(rows * 4), failures=0, requests_per_s=rows, rows_per_s=rows, p50_ms=p50, p99_ms=p99,
        queue_ms=0.4 * p50, compute_ms=0.5 * p50, batches=batches, generator_cores=0.42, server_cores=1.51,
        server_bytes=412_000_000,
    )  # fmt: skip


def curve(top: float, quick: float, batches: tuple[tuple[int, int], ...]) -> tuple[LoadPoint, ...]:
    """Saturates at `top` rows/s; alone a request takes `quick` milliseconds."""
    found = []
    for users in (1, 2, 4, 8, 16, 32):
        rows = top * users / (users + top * quick / 1000)
        found.append(point(users, rows, 1.7 * 1000 * users / rows, batches))
    return tuple(found)


def tried(setting: Setting, value: float, predicted: float, spread: float, refused: str = "") -> Tried:
    batches = ((1, 40), (2, 90), (3, 210), (4, 130), (8, 25)) if setting.max_batch_size else ((1, 1900),)
    last = point(8, value, 1.8 * 8000 / value, batches)
    return Tried(setting, value, value * (1 - spread), value * (1 + spread), predicted, 3, last, refused)


def tuned_model(name: str, export_key: str, *, machine: dict[str, str] | None = None) -> TunedModel:
    """`openvino:int8` with two instances, 3.2 times as good as the default."""
    settings = (
        tried(DEFAULT, 412.0, 430.0, 0.03),
        tried(replace(DEFAULT, instances=2, threads=1), 655.0, 700.0, 0.04),
        tried(replace(DEFAULT, max_batch_size=16, max_queue_delay_us=500), 498.0, 610.0, 0.03),
        tried(Setting("openvino:fp32", instances=2), 790.0, 770.0, 0.05),
        tried(CHOSEN, 1320.0, 1250.0, 0.02),
        tried(replace(CHOSEN, instances=1, threads=2), 1175.0, 1190.0, 0.03),
        tried(replace(CHOSEN, instances=4), 1290.0, 1400.0, 0.05, "p99 61 ms, the SLO allows 50 ms"),
        tried(Setting("onnxruntime:int8", max_batch_size=8, instances=2, threads=1), 1010.0, 900.0, 0.06),
    )
    return TunedModel(
        name=name,
        export_key=export_key,
        objective=OBJECTIVE,
        machine=machine or {"cpu": "AMD EPYC", "cores": "2"},
        triton="26.07",
        server="the embedded Triton",
        default=DEFAULT,
        chosen=CHOSEN,
        gain=3.2,
        tried=settings,
        space=148,
        measurements=27,
        seconds=141.0,
        stopped="no other setting can beat it by more than noise",
        default_curve=curve(430.0, 3.4, ((1, 40), (2, 90), (3, 210), (4, 130), (8, 25))),
        chosen_curve=curve(1390.0, 0.3, ((1, 1900),)),
        notes=("the load generator used 0.42 of 2 cores",),
    )


def built_on(manifest: Manifest, name: str) -> dict[str, str]:
    """The machine whose measurements the manifest has."""
    return dict(manifest.models[name].targets[0].works["measure"]["machine"])


def with_tuning(repository: Path, name: str, *, served: str | None = None, **changes: object) -> Manifest:
    """Write the tuning into the manifest; `served` makes that target the one that is served, as a build would."""
    manifest = read_manifest(repository)
    assert manifest is not None
    record = manifest.models[name]
    tuned = replace(tuned_model(name, record.export_key, machine=built_on(manifest, name)), **changes)
    models = dict(manifest.models)
    if served is not None:
        target = next(item.target for item in record.targets if str(item.target) == served)
        models[name] = replace(
            record, serve="best", served=tuple(replace(item, target=target) for item in record.served)
        )
    run = replace(manifest.run, tuning={**manifest.run.tuning, name: tuned})
    changed = replace(manifest, models=models, run=run)
    write_manifest(repository, changed)
    return changed
