"""`tune`: which target, batch, delay, instances and threads serve a model best, by measurement on the real server.

In-process profiles and a queueing model say what can be best (`predict`); only that is served (`serving`), in turns
with the default setting (`race`), until nothing that was not tried can be better by more than noise (`search`). Several
models of one machine are then served together, and their shares found (`shares`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from builder.cache import Cache, default_cache, open_cache
from builder.errors import EXIT_OK, BuildError, SpecError
from builder.findings import Finding, has_errors
from builder.joint import joined
from builder.judge import ModelState, judge_model, soften
from builder.pipeline import run_works
from builder.plan import make_plan
from builder.progress import Progress
from builder.running import work_labels
from builder.spec import RepoSpec
from builder.tune.model import Answer, TuneOptions, tune_model
from builder.tune.servable import servable_targets
from builder.tune.settings import describe, free_words
from builder.tune.shares import SHARE, share_out
from builder.tuning_records import TunedModel

__all__ = ["TuneOptions", "TuneResult", "describe", "free_words", "tune"]


@dataclass(frozen=True, slots=True)
class TuneResult:
    """What was found; `findings` say what could not be tuned, and why."""

    models: tuple[TunedModel, ...]
    findings: tuple[Finding, ...]
    exit_code: int


def tune(spec: RepoSpec, options: TuneOptions, progress: Progress, answer: Answer) -> TuneResult:
    """Build the targets, then search settings for one model after the other.

    Raises:
        SpecError: the request is impossible.
        MachineError: the embedded runtime is missing, or something else of this machine.
        KeyboardInterrupt: the user ended it; what was found so far was given to `answer`.
    """
    from builder.runtime import require

    require(spec.triton)
    cache = default_cache()
    open_cache(cache)
    states, findings = build_targets(spec, options, cache, progress)
    begun, races, waiting = time.monotonic(), [], []
    for state in states:
        servable, said = servable_targets(state, spec.triton)
        findings += said
        waiting += [(state, servable)] if servable else []
    together = len(waiting) > 1 and options.objective != "memory"
    alone = replace(options, budget_s=(1 - SHARE) * options.budget_s) if together else options
    for state, servable in waiting:
        races.append(tune_model(state, servable, spec.triton, alone, cache, progress, answer))
    found = [model for model, _ in races]
    if together:
        found = share_out(races, options, cache, progress, begun + len(races) * options.budget_s)
        for model in found:
            answer(model)
    exit_code = BuildError.exit_code if has_errors(findings) else EXIT_OK
    return TuneResult(tuple(found), tuple(findings), exit_code)


def build_targets(
    spec: RepoSpec, options: TuneOptions, cache: Cache, progress: Progress
) -> tuple[list[ModelState], list[Finding]]:
    """Every target of the models, from the cache where it is there; what failed is said, the others go on."""
    models = tuple(model for model in spec.models if options.only in (None, model.name))
    if not models:
        names = ", ".join(model.name for model in spec.models)
        raise SpecError(f"there is no model {options.only!r}", remedy=f"the models are {names}")
    plan = make_plan(spec.model_copy(update={"models": models}), defer=True)
    labels = work_labels(plan)
    outcomes = run_works(plan.works(), labels, cache, jobs=options.jobs, fail_fast=False, progress=progress)
    states = [soften(joined(judge_model(model, outcomes, cache)), strict=False) for model in plan.models]
    findings = [finding for state in states for target in state.targets for finding in target.findings]
    return states, findings
