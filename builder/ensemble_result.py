"""What became of each ensemble of a build, for tables and JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from builder.assemble_ensembles import StagedEnsemble
from builder.compare import Gates, merge_errors
from builder.ensembles.states import EnsembleState
from builder.findings import Finding, has_errors
from builder.measurement import OutputError
from builder.tensors import Signature
from builder.verify import LiveVerdict

EnsembleStatus = Literal["built", "failed", "rejected", "unchecked"]


@dataclass(frozen=True, slots=True)
class EnsembleResult:
    """One ensemble: `failed` has no reference, `rejected` a check said no to, `unchecked` was not compared live.

    `outputs` are the worst errors over both protocols, alone and in a crowd. `gates` are None where nothing was staged.
    """

    name: str
    status: EnsembleStatus
    members: tuple[str, ...]
    signature: Signature
    max_batch_size: int | None
    gates: Gates | None
    outputs: tuple[OutputError, ...]


def ensemble_results(
    states: Sequence[EnsembleState],
    staged: Sequence[StagedEnsemble],
    live: Mapping[str, LiveVerdict],
    findings: Sequence[Finding],
) -> Iterator[EnsembleResult]:
    """Each ensemble of the spec, in its order."""
    for state in states:
        item = next((item for item in staged if item.name == state.name), None)
        outputs = _outputs(live.get(state.name))
        mine = [finding for finding in findings if finding.model == state.name]
        members = tuple(dict.fromkeys(step.member for step in state.wiring.steps))
        yield EnsembleResult(
            name=state.name,
            status=_status(state, mine, outputs),
            members=members,
            signature=state.wiring.signature,
            max_batch_size=item.max_batch_size if item else None,
            gates=item.gates if item else None,
            outputs=outputs,
        )


def _status(state: EnsembleState, findings: Sequence[Finding], outputs: Sequence[OutputError]) -> EnsembleStatus:
    if state.error is not None:
        return "failed"
    if has_errors(findings):
        return "rejected"
    return "built" if outputs else "unchecked"


def _outputs(verdict: LiveVerdict | None) -> tuple[OutputError, ...]:
    conditions = verdict.result.conditions if verdict and verdict.result else ()
    return merge_errors([condition.outputs for condition in conditions]) if conditions else ()
