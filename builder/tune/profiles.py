"""The in-process measurements that predictions start from: works of the cache like any other."""

from __future__ import annotations

from collections.abc import Sequence

from builder.backends import backend_module
from builder.cache import Cache
from builder.joint import batch_proven
from builder.judge import ModelState, TargetState
from builder.pipeline import run_works
from builder.profiling import PROFILE_FILE, ProfiledRun, ProfileReport
from builder.progress import Progress
from builder.records import read_record
from builder.tune.settings import way_of
from builder.tune.space import Load
from builder.tuning_records import Setting
from builder.work import Profile, work_key


def can_batch(state: ModelState, target: TargetState) -> bool:
    """Rows were proven independent, and the native backend can batch."""
    return backend_module(target.target.backend).CAN_BATCH and batch_proven(state, target)


def profiles(  # noqa: PLR0913, PLR0917 - what is profiled
    state: ModelState,
    targets: Sequence[TargetState],
    settings: Sequence[Setting],
    load: Load,
    cache: Cache,
    progress: Progress,
) -> dict[Setting, Sequence[ProfiledRun]]:
    """Setting → the runs of its target in its way; one process for each target.

    Raises:
        BuildError: a target could not be profiled.
    """
    ways = {setting: way_of(setting, state.spec) for setting in settings}
    works = {}
    for target in targets:
        mine = dict.fromkeys(ways[setting] for setting in settings if setting.target == str(target.target))
        works[str(target.target)] = _work(state, target, tuple(mine), load)
    keys = {word: work_key(work) for word, work in works.items()}
    labels = {keys[word]: f"{state.spec.name} {word} profile" for word in works}
    todo = {keys[word]: work for word, work in works.items()}
    for outcome in run_works(todo, labels, cache, jobs=1, fail_fast=False, progress=progress).values():
        if outcome.error is not None:
            raise outcome.error
    table = {
        (word, way.way): way.runs
        for word, key in keys.items()
        for way in read_record(ProfileReport, cache.folder("profile", key) / PROFILE_FILE).ways
    }
    return {setting: table[setting.target, ways[setting]] for setting in settings}


def _work(state: ModelState, target: TargetState, ways: tuple[str, ...], load: Load) -> Profile:
    measured = target.plan.measure
    return Profile(
        export=measured.export,
        convert=measured.convert,
        target=target.target,
        ways=ways,
        rows=load.rows,
        largest=load.largest if can_batch(state, target) else max(1, load.rows),
        machine=measured.machine,
        libraries=measured.libraries,
        code=measured.code,
        packages=measured.packages,
    )
