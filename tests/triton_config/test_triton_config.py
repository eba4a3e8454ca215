"""`config.pbtxt`: golden texts, the proto's verdict, the native backends' rules, and overrides."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from builder.backends import BACKENDS, backend_module
from builder.errors import BuildError, SpecError
from builder.measurement import Sequencing
from builder.native_rules import refusals
from builder.native_warnings import warnings
from builder.samples import Request
from builder.scan import FILENAMES
from builder.spec_serving import (
    BatchingSpec,
    InstancesSpec,
    PrioritiesSpec,
    QueueSpec,
    ResourceSpec,
    SequenceSpec,
    StateSpec,
    VersionsSpec,
)
from builder.tensors import Dim, Signature, Tensor
from builder.triton_config import (
    CAN_BATCH,
    TRITON_WORDS,
    ConfigRequest,
    SequenceRequest,
    WarmupInput,
    WarmupRequest,
    config_to_text,
    initial_state_files,
    parse_config,
    render_config,
    warmup_files,
    warmup_from_samples,
)

GOLDEN = Path(__file__).parent / "golden"


def tensor(name: str, dtype: str, *shape: Dim) -> Tensor:
    return Tensor(name, dtype, shape)


def make_request(
    backend: str, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], **changes: Any
) -> ConfigRequest:
    signature = Signature(inputs, outputs)
    request = ConfigRequest(
        name="model",
        backend=backend,
        release="26.07",
        signature=signature,
        ports=signature,
        batch_proven=True,
        batching=BatchingSpec(),
        instances=(InstancesSpec(),),
    )
    return replace(request, **changes)


def resnet(backend: str, **changes: Any) -> ConfigRequest:
    image, logits = tensor("image", "float32", "batch", 3, 224, 224), tensor("logits", "float32", "batch", 1000)
    return make_request(backend, (image,), (logits,), **({"name": "resnet50"} | changes))


BERT = (
    (tensor("input_ids", "int64", "batch", "length"), tensor("attention_mask", "int64", "batch", "length")),
    (tensor("hidden", "float32", "batch", "length", 384), tensor("pooled", "float32", "batch", 384)),
)
ODD = 'a/b "quoted"\n{"k": [1]} é'
TEXT = ((tensor("text", "string", "batch", 1),), (tensor("label", "string", "batch", 2),))
PIXELS = np.arange(2 * 3 * 2 * 2, dtype=np.float32).reshape(2, 3, 2, 2)
WARM = (
    WarmupRequest("sample_0", (WarmupInput("image", "float32", (2, 3, 2, 2), PIXELS),)),
    WarmupRequest("zeros", (WarmupInput("image", "float32", (1, 3, 2, 2)),), count=3),
    WarmupRequest("noise", (WarmupInput("image", "float32", (16, 3, 2, 2), fill="random"),)),
)
SMALL = ((tensor("image", "float32", "batch", 3, 2, 2),), (tensor("logits", "float32", "batch", 10),))

FIRST = np.arange(4, dtype=np.float32).tobytes()
RECURRENT = (
    (tensor("x", "float32", "n", 3), tensor("h", "float32", "n", 4)),
    (tensor("y", "float32", "n", 2), tensor("k", "float32", "n", 4)),
)
VOICE = (
    (tensor("input", "float32", "n", "length"), tensor("state", "float32", 2, "n", 128), tensor("sr", "int64")),
    (tensor("output", "float32", "n", 1), tensor("stateN", "float32", 2, "n", 128)),
)
CONTROLLED = (
    (
        tensor("x", "float32", "n", 3), tensor("h", "float32", "n", 4), tensor("c", "float16", "n", 4),
        tensor("START", "int32", "n", 1), tensor("END", "bool", "n", 1), tensor("CORRID", "uint64", "n", 1),
    ),
    (tensor("y", "float32", "n", 2), tensor("hn", "float32", "n", 4), tensor("cn", "float16", "n", 4)),
)  # fmt: skip


def stateful(
    ports: Any,
    states: tuple[tuple[str, str], ...],
    initial: Any = None,
    *,
    controls: tuple[tuple[str, str], ...] = (),
    sizes: tuple[tuple[str, int], ...] = (),
    batching: BatchingSpec | None = None,
    same_buffer: bool = False,
    **words: Any,
) -> ConfigRequest:
    declared = tuple(StateSpec(input=one, output=other, same_buffer=same_buffer) for one, other in states)
    spec = SequenceSpec(states=declared, **words)
    sequence = SequenceRequest(spec, Sequencing(states, controls, sizes), initial or {})
    return make_request("onnxruntime", *ports, batching=batching or BatchingSpec(), sequence=sequence)


CASES: dict[str, ConfigRequest] = {
    "resnet_onnxruntime": resnet("onnxruntime"),
    "resnet_openvino": resnet("openvino"),
    "resnet_tensorrt": resnet("tensorrt"),
    "resnet_pytorch": resnet("pytorch", instances=(InstancesSpec(kind="gpu"),)),
    "resnet_not_proven": resnet("onnxruntime", batch_proven=False),
    "fixed_batch": make_request(
        "onnxruntime", (tensor("image", "float32", 1, 3, 416, 416),), (tensor("boxes", "float32", 1, 3549, 6),)
    ),
    "fixed_batch_openvino": make_request(
        "openvino", (tensor("image", "float32", 1, 3, 416, 416),), (tensor("boxes", "float32", 1, 3549, 6),)
    ),
    "bert_onnxruntime": make_request("onnxruntime", *BERT, batching=BatchingSpec(max_batch_size=16)),
    "bert_openvino": make_request("openvino", *BERT),
    "batching_words": resnet(
        "onnxruntime",
        batching=BatchingSpec(max_batch_size=16, preferred=(16, 4), max_queue_delay_us=500),
        instances=(InstancesSpec(count=2, kind="gpu"),),
    ),
    "batching_off": resnet("onnxruntime", batching=BatchingSpec(max_batch_size=0)),
    "batch_of_one": resnet("onnxruntime", batching=BatchingSpec(max_batch_size=1)),
    "not_dynamic": resnet("onnxruntime", batching=BatchingSpec(dynamic=False)),
    "strings": make_request("onnxruntime", *TEXT),
    "python": make_request("python", *TEXT, batching=BatchingSpec(max_batch_size=16, preferred=(16,))),
    "python_rank_one": make_request("python", (tensor("text", "string", "n"),), (tensor("length", "int64", "n"),)),
    "scalar": make_request(
        "onnxruntime",
        (tensor("chunk", "float32", "n", 512), tensor("rate", "int64")),
        (tensor("speech", "float32", "n", 1), tensor("mean", "float32")),
    ),
    "rank_one": make_request("onnxruntime", (tensor("x", "float32", "n"),), (tensor("y", "float32", "n", 2),)),
    "rank_one_batched": make_request(
        "onnxruntime",
        (tensor("x", "float32", "n"),),
        (tensor("y", "float32", "n"),),
        batching=BatchingSpec(max_batch_size=4),
    ),
    "odd_names": make_request(
        "onnxruntime", (tensor(ODD, "float32", "batch", 2),), (tensor("output:0", "bool", "batch", 2),)
    ),
    "labels": resnet("onnxruntime", label_files={"logits": "imagenet labels.txt"}),
    "warm_up": make_request("onnxruntime", *SMALL, warmup=WARM),
    "warm_up_openvino": make_request("openvino", *SMALL, warmup=WARM),
    "sequence": stateful(RECURRENT, (("h", "k"),), batching=BatchingSpec(max_batch_size=16, preferred=(8,))),
    "sequence_first_value": stateful(RECURRENT, (("h", "k"),), {"h": FIRST}, strategy="oldest"),
    "sequence_direct": stateful(
        CONTROLLED,
        (("c", "cn"), ("h", "hn")),
        controls=(("corrid", "CORRID"), ("end", "END"), ("start", "START")),
        batching=BatchingSpec(max_queue_delay_us=500),
        strategy="direct",
        max_idle_us=60_000_000,
    ),
    "sequence_unbatched": stateful(VOICE, (("state", "stateN"),), sizes=(("n", 1),), max_candidate_sequences=16),
    "sequence_unbatched_rows": stateful(RECURRENT, (("h", "k"),), batching=BatchingSpec(max_batch_size=0)),
    "queues": resnet(
        "onnxruntime",
        batching=BatchingSpec(
            max_batch_size=16,
            preferred=(8, 16),
            queue=QueueSpec(max_size=64, timeout_us=100_000, allow_override=True),
            priorities=PrioritiesSpec(
                levels=3,
                default=2,
                queues={1: QueueSpec(timeout_us=5_000), 3: QueueSpec(timeout_us=9, on_timeout="delay")},
            ),
        ),
    ),
    "queue_of_openvino": resnet("openvino", batching=BatchingSpec(max_batch_size=0, queue=QueueSpec(max_size=8))),
    "ordered": resnet("onnxruntime", batching=BatchingSpec(preserve_ordering=True), response_cache=True),
    "instance_groups": resnet(
        "onnxruntime",
        instances=(
            InstancesSpec(count=2, gpus=(0,), name="fast", host_policy="numa_0"),
            InstancesSpec(
                kind="cpu",
                passive=True,
                resources=(ResourceSpec(name="R1", count=4), ResourceSpec(name="R2", count=1, shared=True)),
                priority=2,
            ),
        ),
    ),
    "profiles": resnet("tensorrt", instances=(InstancesSpec(profiles=(0, 1)),)),
    "profiles_of_others": resnet("onnxruntime", instances=(InstancesSpec(profiles=(0, 1)),)),
    "versions_all": resnet("onnxruntime", versions=VersionsSpec(keep=3, serve="all")),
    "versions_latest": resnet("onnxruntime", versions=VersionsSpec(keep=3, serve=2)),
    "versions_listed": resnet("onnxruntime", versions=VersionsSpec(keep=3, serve=(3, 1))),
    "sequence_words": stateful(
        RECURRENT,
        (("h", "k"),),
        batching=BatchingSpec(max_queue_delay_us=500),
        strategy="direct",
        min_slot_utilization=0.5,
        same_buffer=True,
    ),
    "overrides": resnet(
        "onnxruntime",
        default_model_filename="net.onnx",
        overrides={
            "parameters": {"intra_op_thread_count": {"string_value": "1"}},
            "optimization": {"graph": {"level": 1}, "execution_accelerators": {}},
            "dynamic_batching": {"preserve_ordering": True},
            "input": [{"name": "image", "format": "FORMAT_NCHW"}],
            "instance_group": [{"count": 3, "kind": "KIND_CPU", "host_policy": "numa_0"}],
            "response_cache": {"enable": True},
            "version_policy": {"specific": {"versions": [2, 3]}},
            "metric_tags": {"team": 'vision "A"'},
        },
    ),
}  # fmt: skip


def ports_of(request: ConfigRequest) -> dict[str, Any]:
    sides = (("inputs", request.ports.inputs), ("outputs", request.ports.outputs))
    return {
        word: [{"name": port.name, "dtype": port.dtype, "shape": list(port.wire_shape)} for port in ports]
        for word, ports in sides
    }


@pytest.mark.parametrize("case", sorted(CASES))
def test_golden(case: str) -> None:
    """`UPDATE_GOLDEN=1 pytest tests/triton_config` writes them anew: read the diff."""
    text = render_config(CASES[case]).text
    file = GOLDEN / f"{case}.pbtxt"
    if os.environ.get("UPDATE_GOLDEN"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


def test_no_stale_golden_file() -> None:
    assert {file.stem for file in GOLDEN.glob("*.pbtxt")} == set(CASES)


@pytest.mark.parametrize("case", sorted(CASES))
@pytest.mark.parametrize("auto_complete", [False, True])
def test_the_native_backend_takes_it(case: str, auto_complete: bool) -> None:
    request = CASES[case]
    config = parse_config(render_config(request).text)
    assert refusals(request.backend, config, ports_of(request), auto_complete=auto_complete, gpus=1) == []
    assert warnings(request.backend, config, ports_of(request)) == []


@pytest.mark.parametrize("case", sorted(CASES))
def test_the_proto_reads_what_was_decided(case: str) -> None:
    request = CASES[case]
    message = text_format.Parse(render_config(request).text, model_config_pb2.ModelConfig())
    assert message.name == request.name
    assert [port.name for port in message.input] == [port.name for port in request.served.inputs]
    assert [port.name for port in message.output] == [port.name for port in request.served.outputs]
    assert all(group.count for group in message.instance_group)
    assert "max_batch_size:" in render_config(request).text


@pytest.mark.parametrize("case", sorted(CASES))
def test_deterministic_and_readable_again(case: str) -> None:
    text = render_config(CASES[case]).text
    assert text == render_config(CASES[case]).text
    assert parse_config(config_to_text(parse_config(text))) == parse_config(text)


def test_dims_are_the_artefacts_and_names_the_sources() -> None:
    request = resnet("openvino")
    fixed = Signature((tensor("image", "float32", "batch", 3, 224, 224),), (tensor("logits", "float16", "any", 1000),))
    config = parse_config(render_config(replace(request, ports=fixed)).text)
    assert config["output"] == [{"name": "logits", "data_type": "TYPE_FP32", "dims": ["-1", "1000"]}]


def test_an_artefact_without_a_tensor_of_the_source() -> None:
    request = resnet("onnxruntime")
    ports = Signature(request.signature.inputs, (tensor("other", "float32", "batch", 1000),))
    with pytest.raises(BuildError, match="has no output 'logits'; it has other"):
        render_config(replace(request, ports=ports))


# Findings


def findings(request: ConfigRequest) -> list[tuple[str, str, str]]:
    return [(found.severity, found.check, found.message) for found in render_config(request).findings]


def test_defaults_make_no_finding() -> None:
    assert findings(resnet("onnxruntime")) == []
    assert findings(resnet("openvino")) == []
    assert findings(CASES["fixed_batch"]) == []


@pytest.mark.parametrize(
    ("request_", "word"),
    [
        (resnet("openvino", batching=BatchingSpec(preferred=(4,))), "compiles for one batch size"),
        (resnet("onnxruntime", batch_proven=False, batching=BatchingSpec(max_batch_size=4)), "not proven"),
        (replace(CASES["fixed_batch"], batching=BatchingSpec(max_batch_size=4)), r"boxes|image float32\[1,3"),
        (replace(CASES["scalar"], batching=BatchingSpec(max_queue_delay_us=5)), "'rate' is a scalar"),
    ],
)
def test_batching_that_cannot_be_is_dropped_with_a_warning(request_: ConfigRequest, word: str) -> None:
    rendered = render_config(request_)
    (found,) = rendered.findings
    assert (found.severity, found.check, found.model) == ("warning", "config.batching", request_.name)
    assert found.file == f"{request_.name}/config.pbtxt"
    assert re.search(word, found.message)
    assert found.remedy
    assert "max_batch_size: 0\n" in rendered.text
    assert "dynamic_batching" not in rendered.text


def test_batching_off_is_no_wish_that_is_dropped() -> None:
    assert findings(resnet("openvino", batching=BatchingSpec(max_batch_size=0))) == []


def test_rank_one_is_served_unbatched_and_says_so() -> None:
    ((severity, check, message),) = findings(CASES["rank_one"])
    assert (severity, check) == ("info", "config.batching")
    assert "x float32[n]" in message
    assert findings(CASES["rank_one_batched"]) == []


@pytest.mark.parametrize(("backend", "kind"), [("openvino", "gpu"), ("tensorrt", "cpu")])
def test_a_kind_that_the_backend_lacks(backend: str, kind: Any) -> None:
    rendered = render_config(resnet(backend, instances=(InstancesSpec(count=2, kind=kind),)))
    assert [found.check for found in rendered.findings] == ["config.instances"]
    assert parse_config(rendered.text)["instance_group"][0]["count"] == 2


def test_an_accelerator_of_config_is_not_called_measured() -> None:
    overrides = {"optimization": {"execution_accelerators": {"cpu_execution_accelerator": [{"name": "openvino"}]}}}
    ((severity, check, message),) = findings(resnet("onnxruntime", overrides=overrides))
    assert (severity, check) == ("warning", "config.unmeasured")
    assert "openvino" in message


def test_label_of_an_unknown_output() -> None:
    with pytest.raises(SpecError, match="no output 'scores' to label; the outputs are logits"):
        render_config(resnet("onnxruntime", label_files={"scores": "x.txt"}))


# Warm-up


def test_warm_up_files_hold_one_row_with_batching_and_all_without() -> None:
    batched, whole = warmup_files(CASES["warm_up"]), warmup_files(CASES["warm_up_openvino"])
    assert batched == {"warmup/sample_0.0": PIXELS[0].tobytes()}
    assert whole == {"warmup/sample_0.0": PIXELS.tobytes()}


@pytest.mark.parametrize("case", ["warm_up", "warm_up_openvino"])
def test_warm_up_file_sizes_fit_the_dims(case: str) -> None:
    config = parse_config(render_config(CASES[case]).text)
    entry = config["model_warmup"][0]["inputs"]["image"]
    content = warmup_files(CASES[case])[f"warmup/{entry['input_data_file']}"]
    assert len(content) == 4 * int(np.prod([int(dim) for dim in entry["dims"]]))


def test_strings_carry_their_length() -> None:
    values = np.array([["ab"], ["é"]], dtype=object)
    warm = WarmupRequest("s/0", (WarmupInput("text", "string", (2, 1), values),))
    request = make_request("onnxruntime", *TEXT, warmup=(warm,), batch_proven=False)
    assert warmup_files(request) == {"warmup/s_0.0": b"\x02\0\0\0ab\x02\0\0\0\xc3\xa9"}
    assert parse_config(render_config(request).text)["model_warmup"][0]["inputs"]["text"]["dims"] == ["2", "1"]


def test_bfloat16_and_scalars() -> None:
    import ml_dtypes

    half = np.array([[1.0, -2.0]], dtype=ml_dtypes.bfloat16)
    warm = WarmupRequest(
        "s", (WarmupInput("x", "bfloat16", (1, 2), half), WarmupInput("k", "int64", (), np.int64(7)))
    )  # fmt: skip
    inputs = (tensor("x", "bfloat16", "n", 2), tensor("k", "int64"))
    request = make_request("onnxruntime", inputs, (tensor("y", "float32", "n"),), warmup=(warm,))
    assert warmup_files(request) == {"warmup/s.0": b"\x80?\x00\xc0", "warmup/s.1": b"\7" + bytes(7)}
    entry = parse_config(render_config(request).text)["model_warmup"][0]
    assert entry["inputs"]["k"]["dims"] == ["1"]


def test_warm_up_from_samples() -> None:
    request = CASES["warm_up"]
    samples = [Request({"image": PIXELS}, {}, rows=2), Request({"image": PIXELS[:1]}, {}, rows=1)]
    made = warmup_from_samples(request.signature, samples, 1)
    assert [(item.name, item.inputs[0].shape) for item in made] == [("sample_0", (2, 3, 2, 2))]
    assert warmup_files(replace(request, warmup=made)) == {"warmup/sample_0.0": PIXELS[0].tobytes()}


# Sequences


def test_states_that_start_with_values_have_their_file() -> None:
    request = CASES["sequence_first_value"]
    assert request.sequence is not None
    assert initial_state_files(request.sequence) == {"initial_state/state_0": FIRST}
    (state,) = parse_config(render_config(request).text)["sequence_batching"]["state"]
    assert state["initial_state"][0]["data_file"] == "state_0"
    zero = CASES["sequence"].sequence
    assert zero is not None
    assert initial_state_files(zero) == {}


def test_words_of_the_sequence_batcher_can_be_overridden() -> None:
    changes = {"sequence_batching": {"max_sequence_idle_microseconds": 10, "oldest": {"preserve_ordering": True}}}
    config = parse_config(render_config(replace(CASES["sequence"], overrides=changes)).text)["sequence_batching"]
    assert config["max_sequence_idle_microseconds"] == "10"
    assert config["oldest"] == {
        "max_candidate_sequences": 1024, "preferred_batch_size": [8], "preserve_ordering": True,
    }  # fmt: skip
    assert len(config["state"]) == 1


def test_a_direct_scheduler_without_batches_takes_one_sequence_at_a_time() -> None:
    request = stateful(VOICE, (("state", "stateN"),), sizes=(("n", 1),), strategy="direct")
    config = parse_config(render_config(request).text)
    (text,) = warnings("onnxruntime", config, ports_of(request))
    assert "one sequence at a time" in text


# Overrides


@pytest.mark.parametrize(
    ("overrides", "message", "remedy"),
    [
        ({"dynamic_batchin": {}}, "config.dynamic_batchin: .*did you mean 'dynamic_batching'", "dynamic_batching"),
        ({"dynamicBatching": {}}, "config.dynamicBatching: .*did you mean 'dynamic_batching'", ""),
        ({"optimization": {"cuda": {"graph": True}}}, "optimization.cuda.graph: .*'graphs'", "busy_wait_events"),
        ({"instance_group": [{"cnt": 1}]}, r"config.instance_group\[0\].cnt: .*'count'", ""),
        ({"parameters": ["k"]}, "config.parameters: expected keys and values", "KEY: VALUE"),
        ({"parameters": {"k": ["v"]}}, "config.parameters: ", "model_config.proto"),
        ({"parameters": {"k": {"string": "v"}}}, "config.parameters.k.string: .*'string_value'", ""),
        ({"dynamic_batching": {"preferred_batch_size": "4"}}, "config.dynamic_batching: ", "model_config.proto"),
        ({"instance_group": [{"kind": "CPU"}]}, "config.instance_group: ", "model_config.proto"),
        ({"max_batch_size": 4}, "config.max_batch_size: .*another word", "batching: "),
        ({"name": "x"}, "config.name: .*another word", "name"),
        ({"input": [{"name": "img"}]}, r"config.input\[0\]: the model has no input 'img'", "image"),
        ({"input": {"name": "image"}}, "config.input: ", ""),
    ],
)  # fmt: skip
def test_bad_overrides(overrides: dict[str, Any], message: str, remedy: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        render_config(resnet("onnxruntime", overrides=overrides))
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    ("overrides", "path", "before", "since"),
    [
        ({"model_metrics": {}}, "config.model_metrics", "24.10", "24.11"),
        ({"input": [{"name": "image", "is_non_linear_format_io": True}]},
         r"config.input\[0\].is_non_linear_format_io", "24.07", "24.08"),
    ],
)  # fmt: skip
def test_fields_that_the_release_does_not_know(overrides: dict[str, Any], path: str, before: str, since: str) -> None:
    with pytest.raises(SpecError, match=f"{path}: Triton {before} does not know this field; it came with {since}"):
        render_config(resnet("tensorrt", overrides=overrides, release=before))
    render_config(resnet("tensorrt", overrides=overrides, release=since))


def test_another_scheduler_replaces_the_dynamic_batcher() -> None:
    overrides = {"sequence_batching": {"max_sequence_idle_microseconds": 10}}
    config = parse_config(render_config(resnet("onnxruntime", overrides=overrides)).text)
    assert "dynamic_batching" not in config
    assert config["sequence_batching"] == {"max_sequence_idle_microseconds": "10"}


# Reading


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('name: "a"\nmax_batch: 3\n', "2:1: "),
        ('name: "a"\ninput [ { name: "x" } { name: "y" } ]', "2:23: "),
        ('name: "a"\nname: "b"', "2:7: "),
        ('name: "a"\n// no comment', "2:1: "),
        ('name: "a"\ninput { name: "x" data_type: FP32 }', "2:"),
        ("dynamic_batching { }\nsequence_batching { }", "2:"),
        ('name: "unclosed', "1:"),
    ],
)
def test_syntax_errors_have_a_place(text: str, place: str) -> None:
    with pytest.raises(SpecError, match=f"config.pbtxt:{place}"):
        parse_config(text)


def test_plain_text_keeps_every_field() -> None:
    text = (
        'name: "e" platform: "ensemble" max_batch_size: 2 '
        'ensemble_scheduling { step [ { model_name: "a" model_version: -1 input_map { key: "x" value: "y" } } ] }'
    )
    config = parse_config(text)
    assert parse_config(config_to_text(config)) == config


@pytest.mark.parametrize("word", sorted(BACKENDS))
def test_backends_agree(word: str) -> None:
    backend = backend_module(word)
    assert (CAN_BATCH[word], FILENAMES[TRITON_WORDS.get(word, word)]) == (backend.CAN_BATCH, backend.FILENAME)
