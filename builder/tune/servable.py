"""Which targets the embedded server can be asked about."""

from __future__ import annotations

from builder.findings import Finding
from builder.judge import ModelState, TargetState, candidates
from builder.servers.backend_folder import BACKENDS


def servable_targets(state: ModelState, release: str) -> tuple[tuple[TargetState, ...], list[Finding]]:
    """Targets that passed every gate and that the embedded server can run, the fastest in process first."""
    from builder.servers.embedded import lacking

    name = state.spec.name
    if state.spec.sequence is not None:
        said = "sequences are not tuned: each waits for the answer before, so there is nothing to merge or spread"
        return (), [Finding("warning", "tune.sequence", said, "try settings by hand with build-repo loadtest", name)]
    if state.older:
        said = "a model of several versions is not tuned: the load would reach the newest only"
        return (), [Finding("warning", "tune.versions", said, "tune a spec with the newest version alone", name)]
    missing = lacking(release)
    good, findings = [], []
    for target in candidates(state):
        word = target.target.backend
        reason = missing.get(word, "") if word in BACKENDS else "" if word == "python" else f"it has no {word} backend"
        if reason:
            text = f"the embedded server cannot serve {target.target}, so it was not measured: {reason}"
            findings.append(Finding("warning", "tune.unserved", text, "", name, str(target.target)))
        else:
            good.append(target)
    if not good:
        nothing = "none of its targets passed its gates and can be served here"
        findings.append(Finding("error", "tune.nothing", nothing, "build-repo build says why", name))
    return tuple(good), findings
