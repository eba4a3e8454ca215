"""What is rendered loads: many kinds of models and words on one embedded server, auto-complete off, each asked once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from triton_models import client, onnx_bytes

from builder.measurement import Sequencing
from builder.native_rules import refusals
from builder.runtime import Runtime
from builder.samples import Request
from builder.servers import Endpoint, ServeOptions
from builder.servers.embedded import serve
from builder.servers.live_copy import live_copy
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
from builder.tensors import BY_NUMPY, Dim, Signature, Tensor
from builder.triton_config import (
    ConfigRequest,
    SequenceRequest,
    initial_state_files,
    parse_config,
    render_config,
    warmup_files,
    warmup_from_samples,
)

pytestmark = [pytest.mark.live, pytest.mark.slow]


@dataclass(frozen=True)
class Case:
    """`ports` are copied to outputs of the same kind; `words` go into the request for a configuration."""

    backend: str
    ports: tuple[Tensor, ...]
    words: dict[str, Any] = field(default_factory=dict)
    warm: bool = False
    labels: bool = False
    versions: tuple[int, ...] = (1,)
    states: bool = False


def tensor(dtype: str, *shape: Dim, name: str = "x") -> Tensor:
    return Tensor(name, dtype, shape)


ROWS = (tensor("float32", "n", 4),)
QUEUE = QueueSpec(max_size=64, timeout_us=5_000_000, allow_override=True)
LEVELS = PrioritiesSpec(levels=3, default=2, queues={1: QueueSpec(timeout_us=4_000_000), 3: QueueSpec(max_size=9)})
CASES: dict[str, Case] = {
    "plain": Case("onnxruntime", ROWS),
    "images": Case("onnxruntime", (tensor("uint8", "n", 3, 8, 8),), warm=True),
    "half": Case("onnxruntime", (tensor("float16", "n", 2, "length"),)),
    "double_unbatched": Case("onnxruntime", (tensor("float64", 2, 3),), warm=True),
    "tokens": Case("onnxruntime", (tensor("int64", "n", "length"), tensor("int32", "n", "length", name="mask"))),
    "texts": Case("onnxruntime", (tensor("string", "n", 2),), warm=True),
    "flags": Case("onnxruntime", (tensor("bool", "n", 5),), {"batching": BatchingSpec(max_batch_size=1)}),
    "scalar": Case("onnxruntime", (tensor("float32", 3), tensor("int64", name="k"))),
    "flat": Case("onnxruntime", (tensor("float32", "n"),)),
    "odd_types": Case("onnxruntime", (tensor("int8", "n", 2), tensor("uint16", "n", 2, name="b/1"),
                                      tensor("uint64", "n", 2, name="c:0"))),
    "labels": Case("onnxruntime", ROWS, labels=True),
    "queues": Case("onnxruntime", ROWS, {"batching": BatchingSpec(max_batch_size=16, preferred=(4, 16),
                   max_queue_delay_us=100, queue=QUEUE, priorities=LEVELS)}),
    "delays": Case("onnxruntime", ROWS, {
        "batching": BatchingSpec(queue=QueueSpec(timeout_us=900_000, on_timeout="delay"))}),
    "short_queue": Case("openvino", ROWS, {"batching": BatchingSpec(queue=QueueSpec(max_size=1))}),
    "ordered": Case("onnxruntime", ROWS, {"batching": BatchingSpec(preserve_ordering=True), "response_cache": True}),
    "groups": Case("onnxruntime", ROWS, {"instances": (
        InstancesSpec(count=2, name="a", resources=(ResourceSpec(name="R", count=1, shared=True),), priority=2),
        InstancesSpec(host_policy="numa_0"), InstancesSpec(passive=True))}),
    "all_versions": Case("onnxruntime", ROWS, {"versions": VersionsSpec(keep=3, serve="all")}, versions=(1, 2, 5)),
    "two_versions": Case("onnxruntime", ROWS, {"versions": VersionsSpec(keep=3, serve=2)}, versions=(1, 2, 5)),
    "listed_versions": Case("onnxruntime", ROWS, {"versions": VersionsSpec(serve=(1, 5))}, versions=(1, 2, 5)),
    "fields": Case("onnxruntime", (tensor("float32", "n", 3, 4, 4),), {"overrides": {
        "parameters": {"intra_op_thread_count": 1, "enable_mem_arena": False},
        "optimization": {"graph": {"level": 1}, "input_pinned_memory": {"enable": False},
                         "output_pinned_memory": {"enable": False}, "gather_kernel_buffer_threshold": 4,
                         "eager_batching": True},
        "input": [{"name": "x", "format": "FORMAT_NCHW"}],
        "metric_tags": {"team": "vision"}, "cc_model_filenames": {"8.9": "model.onnx"},
        "model_transaction_policy": {"decoupled": False}}}),
    "newer_fields": Case("onnxruntime", ROWS, {"overrides": {"model_metrics": {"metric_control": [
        {"metric_identifier": {"family": "nv_inference_first_response_histogram_ms"},
         "histogram_options": {"buckets": [1, 10]}}]}}}),
    "reshaped": Case("onnxruntime", (tensor("float32", "n", 2, 2),), {"overrides": {
        "input": [{"name": "x", "dims": [4], "reshape": {"shape": [2, 2]}}]}}, warm=True),
    "sequences": Case("onnxruntime", ROWS, {"batching": BatchingSpec(max_batch_size=4, preferred=(2,))}, states=True),
    "openvino_rows": Case("openvino", ROWS, {"batching": BatchingSpec(queue=QUEUE, priorities=LEVELS)}, warm=True),
    "openvino_images": Case("openvino", (tensor("uint8", "n", 3, 8, 8),), {"overrides": {
        "parameters": {"NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}}}),
    "openvino_tokens": Case("openvino", (tensor("int64", "n", "length"),), {"instances": (InstancesSpec(count=2),)}),
    "openvino_fixed": Case("openvino", (tensor("float32", 1, 3, 4),)),
    "torch_rows": Case("pytorch", ROWS, {"batching": BatchingSpec(max_batch_size=2), "overrides": {
        "parameters": {"INTRA_OP_THREAD_COUNT": 1, "INFERENCE_MODE": True}}}, warm=True),
    "torch_unbatched": Case("pytorch", (tensor("int32", 2, 2),)),
}  # fmt: skip


def out(port: Tensor) -> Tensor:
    return Tensor(f"{port.name}_out", port.dtype, port.shape)


def signature(case: Case) -> Signature:
    """Every input comes back; with states `h` is added to, and what comes out is the sum so far."""
    if case.states:
        (x,) = case.ports
        return Signature((x, Tensor("h", x.dtype, x.shape)), (out(x), Tensor("h_next", x.dtype, x.shape)))
    return Signature(case.ports, tuple(map(out, case.ports)))


def graph(case: Case) -> onnx.ModelProto:
    ports = signature(case)
    sides = [
        [(port.name, onnx_type(port.dtype), list(port.shape)) for port in side]
        for side in (ports.inputs, ports.outputs)
    ]
    if case.states:
        nodes = [helper.make_node("Add", ["x", "h"], ["h_next"]), helper.make_node("Identity", ["h_next"], ["x_out"])]
    else:
        nodes = [helper.make_node("Identity", [port.name], [out(port).name]) for port in case.ports]
    return onnx_bytes(nodes, *sides)


def onnx_type(dtype: str) -> int:
    return int(getattr(onnx.TensorProto, {"float32": "FLOAT", "float64": "DOUBLE"}.get(dtype, dtype.upper())))


def arrays(case: Case, rows: int = 1) -> dict[str, np.ndarray]:
    made = {}
    for port in case.ports:
        shape = [rows if dim == "n" else 3 if isinstance(dim, str) else dim for dim in port.shape]
        size = int(np.prod(shape))
        values: Any = [f"é{number}" for number in range(size)] if port.dtype == "string" else np.arange(size) % 2
        made[port.name] = np.array(values).astype(object if port.dtype == "string" else port.dtype).reshape(shape)
    return made


def request_for(name: str, case: Case) -> ConfigRequest:
    ports = signature(case)
    samples = [Request(arrays(case, 2), {}, rows=2)]
    sequence = None
    if case.states:
        words = SequenceSpec(states=(StateSpec(input="h", output="h_next"),))
        sequence = SequenceRequest(
            words, Sequencing((("h", "h_next"),), (), ()), {"h": np.ones(4, np.float32).tobytes()}
        )
    made: dict[str, Any] = {"batching": BatchingSpec(), "instances": (InstancesSpec(),)}
    return ConfigRequest(
        name=name,
        backend=case.backend,
        release="26.07",
        signature=ports,
        ports=ports,
        batch_proven=True,
        warmup=warmup_from_samples(ports, samples, 1) if case.warm else (),
        label_files={ports.outputs[0].name: "labels.txt"} if case.labels else {},
        sequence=sequence,
        **(made | case.words),
    )


def write(repository: Path, name: str, case: Case) -> ConfigRequest:
    request = request_for(name, case)
    for version in case.versions:
        folder = repository / name / str(version)
        folder.mkdir(parents=True)
        write_artefact(folder, case)
    files = warmup_files(request) | (initial_state_files(request.sequence) if request.sequence else {})
    files |= {"labels.txt": b"a\nb\nc\nd\n"} if case.labels else {}
    for path, content in (files | {"config.pbtxt": render_config(request).text.encode()}).items():
        (repository / name / path).parent.mkdir(exist_ok=True)
        (repository / name / path).write_bytes(content)
    return request


def write_artefact(folder: Path, case: Case) -> None:
    if case.backend == "pytorch":
        import torch

        class Same(torch.nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x

        torch.jit.script(Same()).save(str(folder / "model.pt"))
        return
    onnx.save(graph(case), folder / "model.onnx")
    if case.backend == "openvino":
        import openvino

        model = openvino.convert_model(folder / "model.onnx")
        openvino.save_model(model, folder / "model.xml", compress_to_fp16=False)
        (folder / "model.onnx").unlink()


@pytest.fixture(scope="module")
def served(runtime_with_torch: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """All of them on one server, which refuses to be ready when one does not load."""
    folder = tmp_path_factory.mktemp("configs")
    for name, case in CASES.items():
        request = write(folder / "all", name, case)
        table = {
            side: [{"name": port.name, "dtype": port.dtype, "shape": list(port.wire_shape)} for port in ports]
            for side, ports in (("inputs", request.ports.inputs), ("outputs", request.ports.outputs))
        }
        config = parse_config((folder / "all" / name / "config.pbtxt").read_text(encoding="utf-8"))
        ports: Any = {} if case.backend == "pytorch" else table
        assert refusals(case.backend, config, ports, auto_complete=False, release="26.07") == []
    assert live_copy(folder / "all", folder / "copy") == ("newer_fields: model_metrics",)
    options = ServeOptions(release=runtime_with_torch.release, auto_complete=False)
    with serve(folder / "copy", options) as endpoint:
        yield endpoint


@pytest.mark.parametrize("name", sorted(CASES))
def test_it_answers(served: Endpoint, name: str) -> None:
    case = CASES[name]
    sent = arrays(case)
    if name == "reshaped":
        sent = {"x": sent["x"].reshape(1, 4)}
    flat = name in ("flat", "scalar")
    with client(served.grpc or "") as (module, connection):
        inputs = []
        for port in case.ports:
            array = sent[port.name].reshape(1) if flat and not port.shape else sent[port.name]
            inputs.append(
                module.InferInput(
                    port.name, list(array.shape), BY_NUMPY[port.dtype].triton[5:].replace("STRING", "BYTES")
                )
            )
            inputs[-1].set_data_from_numpy(array)
        extra: dict[str, Any] = {"sequence_id": 3, "sequence_start": True, "sequence_end": True} if case.states else {}
        result = connection.infer(name, inputs, **extra)
        for port in case.ports:
            found = result.as_numpy(out(port).name)
            expected = sent[port.name].reshape(found.shape)
            if port.dtype == "string":
                assert [item.decode() for item in found.ravel()] == list(expected.ravel())
            else:
                assert np.array_equal(found, expected + 1 if case.states else expected)


@pytest.mark.parametrize(
    ("name", "versions"),
    [
        ("plain", ["1"]),
        ("all_versions", ["1", "2", "5"]),
        ("two_versions", ["2", "5"]),
        ("listed_versions", ["1", "5"]),
    ],
)
def test_the_asked_versions_are_served(served: Endpoint, name: str, versions: list[str]) -> None:
    with client(served.http or "", "http") as (_, connection):
        assert connection.get_model_metadata(name)["versions"] == versions


def test_the_server_understood_the_words(served: Endpoint) -> None:
    with client(served.http or "", "http") as (_, connection):
        queues = connection.get_model_config("queues")["dynamic_batching"]
        assert (queues["priority_levels"], queues["default_priority_level"]) == (3, 2)
        assert queues["default_queue_policy"]["max_queue_size"] == 64
        groups = connection.get_model_config("groups")["instance_group"]
        assert [(group["name"], group["count"], group["passive"]) for group in groups] == [
            ("a", 2, False), ("groups_1", 1, False), ("groups_2", 1, True),
        ]  # fmt: skip


def test_labels_are_answered(served: Endpoint) -> None:
    with client(served.http or "", "http") as (module, connection):
        tensor_ = module.InferInput("x", [1, 4], "FP32")
        tensor_.set_data_from_numpy(np.array([[0, 3, 1, 2]], np.float32))
        wanted = [module.InferRequestedOutput("x_out", class_count=1)]
        found = connection.infer("labels", [tensor_], outputs=wanted).as_numpy("x_out")
    assert found.ravel()[0].decode() == "3.000000:1:b"


def test_a_queue_has_its_rules_where_nothing_is_batched(served: Endpoint) -> None:
    with client(served.grpc or "") as (module, connection):
        sent = module.InferInput("x", [1, 4], "FP32")
        sent.set_data_from_numpy(np.zeros((1, 4), np.float32))
        errors: list[str] = []
        for _ in range(20):
            calls: SimpleQueue[Any] = SimpleQueue()
            for _ in range(200):
                connection.async_infer("short_queue", [sent], lambda result, error: calls.put(error))  # noqa: B023
            errors += [str(error) for error in (calls.get(timeout=30) for _ in range(200)) if error]
            if errors:
                break
    assert "Exceeds maximum queue size" in errors[0]
