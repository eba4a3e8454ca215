"""The live check of models with states, against a real Triton."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import stateful_models as models
from triton_models import config, port, write_config

from builder import records
from builder.compare import Gates
from builder.live import LiveResult, LiveSubject, check_live
from builder.measurement import Sequencing
from builder.runtime import Runtime
from builder.samples import Request
from builder.servers import Endpoint, ServeOptions
from builder.servers.embedded import serve

STATES = Sequencing((("s", "t"),))
BATCHING = (
    "sequence_batching { oldest { max_candidate_sequences: 64 } max_sequence_idle_microseconds: 5000000 %s"
    'state { input_name: "s" output_name: "t" data_type: TYPE_FP32 dims: [3] '
    'initial_state { name: "first" data_type: TYPE_FP32 dims: [3] zero_data: true } } }'
)
CONTROLS = (
    'control_input { name: "START" control { kind: CONTROL_SEQUENCE_START int32_false_true: [0, 1] } } '
    'control_input { name: "CORRID" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_INT64 } } '
)


@pytest.fixture(scope="module")
def endpoint(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    repository = tmp_path_factory.mktemp("live") / "repository"
    one = ([port("x", "FP32", [3])], [port("y", "FP32", [3])])
    makers = {"summing": models.summing, "mixing": models.mixing, "controlled": models.controlled}
    for name, make in makers.items():
        make(repository / name / "1" / "model.onnx")
        more = BATCHING % (CONTROLS if name == "controlled" else "")
        write_config(repository, name, config("onnxruntime", *one, batch=8, more=more))
    with serve(repository, ServeOptions(release=runtime.release, auto_complete=False)) as served:
        yield served


def check(endpoint: Endpoint, model: str, requests: tuple[Request, ...], **changes: object) -> LiveResult:
    subject = LiveSubject(models.SUM, requests, batch_proven=True, sequence=STATES)
    return check_live(endpoint, replace(subject, **changes), Gates(), model=model)


def errors_of(result: LiveResult) -> set[str]:
    return {finding.check for finding in result.findings if finding.severity == "error"}


def test_every_step_of_every_sequence_is_compared(endpoint: Endpoint) -> None:
    requests = models.sum_steps()
    result = check(endpoint, "summing", requests)
    assert result.findings == ()
    assert result.protocols == ("http", "grpc")
    alone = [condition for condition in result.conditions if condition.mode == "sequential"]
    assert [condition.requests for condition in alone] == [len(requests)] * 2
    assert {error.name for condition in result.conditions for error in condition.outputs} == {"y"}
    assert 0 < result.executions < result.requests
    assert records.from_json(LiveResult, records.to_json(result)) == result


def test_a_lost_state_is_found(endpoint: Endpoint) -> None:
    forgetful = tuple(replace(step, outputs={**step.outputs, "y": step.inputs["x"]}) for step in models.sum_steps())
    result = check(endpoint, "summing", forgetful)
    assert "live.accuracy.error" in errors_of(result)


def test_another_first_value_is_found(endpoint: Endpoint) -> None:
    assert "live.accuracy.error" in errors_of(check(endpoint, "summing", models.sum_steps(first=2.0)))


def test_sequences_that_change_each_others_answers_are_found(endpoint: Endpoint) -> None:
    result = check(endpoint, "mixing", models.sum_steps((40, 30, 50, 20)))
    assert "live.accuracy.error" in errors_of(result)
    first = result.findings[0]
    assert "only when several clients send at once" in first.message
    assert "the states of sequences that run at once are mixed up" in first.remedy
    alone = [condition for condition in result.conditions if condition.mode == "sequential"]
    assert max(condition.outputs[0].max_relative for condition in alone) == 0.0


def test_a_model_that_answers_with_the_sequences_id(endpoint: Endpoint) -> None:
    controls = Sequencing((("s", "t"),), (("corrid", "CORRID"), ("start", "START")))
    requests = tuple(
        replace(step, outputs={"y": step.outputs["t"] + np.float32((step.sequence or 0) + 1), "t": step.outputs["t"]})
        for step in models.sum_steps()
    )
    result = check(endpoint, "controlled", requests, signature=models.CONTROLLED, sequence=controls)
    assert result.findings == ()


def test_a_model_that_shows_its_states_is_another_one(endpoint: Endpoint) -> None:
    result = check(endpoint, "summing", models.sum_steps(), sequence=Sequencing((("s", "y"),)))
    assert "live.metadata" in errors_of(result)


def test_an_unknown_model_is_an_error_finding(endpoint: Endpoint) -> None:
    assert errors_of(check(endpoint, "nobody", models.sum_steps((1,)))) == {"live.request"}
