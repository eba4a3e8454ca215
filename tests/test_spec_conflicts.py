"""What words of a model say against each other, its targets or the release: refused with line, place and reason."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from tiny_models import linear

from builder.errors import SpecError
from builder.spec_file import load_spec


def refused(folder: Path, words: str, triton: str = "26.07") -> str:
    linear(folder / "model.onnx")
    head = f'triton: "{triton}"\nmodels:\n  - name: m\n    source: {{path: model.onnx}}\n'
    file = folder / "models.yaml"
    file.write_text(head + textwrap.indent(words, "    "), encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load_spec(file)
    return f"{caught.value.message} TRY {caught.value.remedy}"


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("batching: {queue: {allow_override: true}}", ("line 5", "batching.queue", "timeout_us")),
        ("batching: {queue: {on_timeout: delay}}", ("on_timeout: delay", "timeout_us")),
        ("batching: {queue: {max_sise: 4}}", ("unknown key 'max_sise'", "did you mean 'max_size'?")),
        ("batching: {priorities: {levels: 2, default: 3}}", ("default: 3 is no level", "1 to 2")),
        ("batching: {priorities: {levels: 2, default: 1, queues: {4: {max_size: 1}}}}", ("queues: 4 is no level",)),
        ("batching: {dynamic: false, queue: {max_size: 4}}", ("queue belongs to the dynamic batcher",)),
        ("batching: {preserve_ordering: true, priorities: {levels: 2, default: 1}}", ("preserve_ordering", "level")),
        (
            "batching: {preserve_ordering: true, queue: {timeout_us: 5, on_timeout: delay}}",
            ("preserve_ordering cannot stand beside on_timeout: delay",),
        ),
        ("instances: {kind: cpu, gpus: [0]}", ("gpus belong to kind: gpu",)),
        ("instances:\n  - {count: 1}\n  - {cout: 1}", ("line 7", "instances[1].cout", "did you mean 'count'?")),
        ("instances: {resources: [{name: R, count: 1}, {name: R, count: 2}]}", ("resource 'R' is listed twice",)),
        ("instances: {profiles: [0]}", ("profiles are TensorRT's", "onnxruntime, openvino", "add a tensorrt target")),
        ("io: fp16\ntargets: [pytorch:fp32]", ("line 5", "the pytorch backend does not run", "leave io or those")),
        ("io: fp16\nsequence: {states: [{input: x, output: y}]}", ("line 5", "io does not go with sequence")),
        ("io: int8", ("line 5", "io")),
        ("instances: {passive: true}", ("line 5", "every group is passive")),
        ("versions: {serve: none}", ("'none': write latest, all",)),
        ("versions: {serve: 0}", ("0: write latest, all",)),
        ("versions: {serve: []}", ("[]: write latest, all",)),
        ("versions: {serve: true}", ("True: write latest, all",)),
        ("versions: {keep: 2, serve: 3}", ("more versions than keep: 2",)),
        ("versions: {keep: 1, serve: [1, 2]}", ("more versions than keep: 1",)),
        ("versions: {serve: all}\nconfig: {version_policy: {all: {}}}", ("line 6", "config.version_policy", "decided")),
        ("checksums: true\nconfig: {model_repository_agents: {agents: []}}", ("line 6", "leave one of them out")),
        ("config: {dynamic_batchin: {}}", ("line 5", "config.dynamic_batchin", "did you mean 'dynamic_batching'")),
        (
            "config:\n  parameters: {a: 1}\n  instance_group:\n    - {count: 1}\n    - {cnt: 2}",
            ("line 9", "config.instance_group[1].cnt", "did you mean 'count'"),
        ),
        ("config: {optimization: {cuda: {graphs: true}}}", ("config.optimization.cuda", "only tensorrt use")),
        ("config: {input: [{name: x, is_shape_tensor: true}]}", ("config.input[0].is_shape_tensor", "only tensorrt")),
        ("targets: [openvino:fp32]\nconfig: {optimization: {graph: {level: 1}}}", ("optimization.graph", "only onnx")),
        ("configs: {fast: {instance_grup: []}}", ("line 5", "configs.fast.instance_grup", "instance_group")),
        ("configs: {'a/b': {}}", ("is no model name",)),
    ],
)  # fmt: skip
def test_contradictions(tmp_path: Path, words: str, parts: tuple[str, ...]) -> None:
    message = refused(tmp_path, words)
    for part in parts:
        assert part in message, message


def test_a_field_that_the_release_does_not_know(tmp_path: Path) -> None:
    message = refused(tmp_path, "config: {model_metrics: {}}", triton="24.10")
    for part in ("line 5", "config.model_metrics", "Triton 24.10 does not know", 'triton: "24.11" or newer'):
        assert part in message


def test_named_configurations_before_the_server_knew_them(tmp_path: Path) -> None:
    message = refused(tmp_path, "configs: {fast: {}}", triton="24.04")
    assert "line 5" in message
    assert "Triton 24.04 has no --model-config-name; it came with 24.05" in message


def test_sequences_stand_apart(tmp_path: Path) -> None:
    sequence = "sequence: {states: [{input: h, output: k}], strategy: direct}\n"
    every = (
        "response_cache: true\nbatching: {preserve_ordering: true, queue: {max_size: 3}}\n"
        "config: {dynamic_batching: {}}\nwarmup: {samples: 1}\n"
    )
    message = refused(tmp_path, sequence + every)
    for part in ("5 errors", "keeps no answers", "strategy direct keeps", "belong to the dynamic batcher",
                 "belongs to no sequence", "one scheduler"):  # fmt: skip
        assert part in message, message


def test_memory_that_grows_is_the_gpus(tmp_path: Path) -> None:
    words = "sequence: {states: [{input: h, output: k, same_buffer: true, growable: true}]}"
    assert "every request would fail on a CPU" in refused(tmp_path, words)
    assert "growable needs same_buffer: true" in refused(tmp_path, words.replace("same_buffer: true, ", ""))


def test_several_groups_and_named_configurations_are_read(tmp_path: Path) -> None:
    linear(tmp_path / "model.onnx")
    (tmp_path / "models.yaml").write_text(
        "models:\n  - name: m\n    source: {path: model.onnx}\n    instances: [{count: 2}, {kind: gpu, gpus: [0, 1]}]\n"
        "    versions: {keep: 3, serve: [1, 3]}\n    configs: {fast: {parameters: {intra_op_thread_count: 1}}}\n",
        encoding="utf-8",
    )
    (model,) = load_spec(tmp_path / "models.yaml").models
    assert model.instances is not None
    assert [(group.count, group.gpus) for group in model.instances] == [(2, ()), (1, (0, 1))]
    assert model.versions is not None
    assert model.versions.serve == (1, 3)
    assert model.configs == {"fast": {"parameters": {"intra_op_thread_count": 1}}}
