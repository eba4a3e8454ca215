"""ONNX models with partial, full, wrong and missing configurations."""

from collections.abc import Sequence

import onnx
from onnx import TensorProto, helper

from corpus import Case

Shape = Sequence[int | str]


def model(shape: Shape = ("batch", 3), out: Shape = ("batch", 3), kind: int = TensorProto.FLOAT) -> bytes:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, out)],
    )
    made: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return made.SerializeToString()


def operator(domain: str, kind: str = "Double", *, function: bool = False) -> bytes:
    """x → an operator of another domain → y."""
    made = onnx.load_model_from_string(model())
    made.graph.node[0].domain, made.graph.node[0].op_type = domain, kind
    made.opset_import.append(helper.make_opsetid(domain, 1))
    if function:
        body = [helper.make_node("Add", ["a", "a"], ["b"])]
        made.functions.append(helper.make_function(domain, kind, ["a"], ["b"], body, made.opset_import[:1]))
    return bytes(made.SerializeToString())


def cases() -> list[Case]:
    found = [real(name, text, model()) for name, text in TABLE.items()]
    found += [real(f"fixed_{name}", text, FIXED) for name, text in UNBATCHED.items()]
    return [
        *found,
        real("no_config", None, model()),
        real("no_config_fixed", None, FIXED),
        real("no_config_scalar", None, model((), ())),
        real("no_config_vector", None, model(("n",), ("n",))),
        real("no_config_int64", None, model(kind=TensorProto.INT64)),
        real("no_config_string", None, model(kind=TensorProto.STRING)),
        real("foreign_operator", HEAD + IO, operator("my.operators")),
        real("foreign_operator_no_config", None, operator("my.operators")),
        real("runtimes_own_operator", HEAD + IO, operator("com.microsoft", "Gelu")),
        real("local_function", HEAD + IO, operator("my.operators", function=True)),
        real("garbage", HEAD + IO, b"no protobuf at all"),
        real("truncated", HEAD + IO, model()[:40]),
        real("empty_file", HEAD + IO, b""),
        Case("onnx_models_folder", {"@M/config.pbtxt": HEAD + IO, "@M/1/model.onnx/model.onnx": model()}, "real"),
        Case("onnx_models_two_versions", {"@M/1/model.onnx": model(), "@M/2/model.onnx": FIXED}, "real"),
        Case("onnx_models_all_versions", {"@M/config.pbtxt": HEAD + IO + "version_policy { all { } }",
                                          "@M/1/model.onnx": model(), "@M/2/model.onnx": FIXED}, "real"),
    ]  # fmt: skip


def real(name: str, text: str | None, content: bytes) -> Case:
    files: dict[str, str | bytes] = {"@M/1/model.onnx": content}
    return Case(f"onnx_models_{name}", files if text is None else {"@M/config.pbtxt": text, **files}, "real")


FIXED = model((4, 3), (4, 3))
IN, OUT = (
    'input [ { name: "x" data_type: TYPE_FP32 dims: [ 3 ] } ]\n',
    'output [ { name: "y" data_type: TYPE_FP32 dims: [ 3 ] } ]\n',
)
IO = IN + OUT
HEAD = 'backend: "onnxruntime"\nmax_batch_size: 8\n'
WARM = (
    'model_warmup {{ name: "w" batch_size: {} inputs '
    '{{ key: "x" value {{ data_type: TYPE_FP32 dims: {} zero_data: true }} }} }}'
)
TABLE = {
    "full": HEAD + IO,
    "platform": HEAD.replace('backend: "onnxruntime"', 'platform: "onnxruntime_onnx"') + IO,
    "backend_only": 'backend: "onnxruntime"',
    "batch_only": "max_batch_size: 16",
    "input_only": HEAD + IN,
    "output_only": HEAD + OUT,
    "input_only_unbatched": IN.replace("[ 3 ]", "[ -1, 3 ]"),
    "input_name": HEAD + IO.replace('"x"', '"z"'),
    "output_name": HEAD + IO.replace('"y"', '"z"'),
    "input_dims": HEAD + IO.replace("[ 3 ]", "[ 4 ]", 1),
    "output_dims": HEAD + IN + OUT.replace("[ 3 ]", "[ 4 ]"),
    "input_dynamic": HEAD + IN.replace("[ 3 ]", "[ -1 ]") + OUT,
    "input_rank": HEAD + IN.replace("[ 3 ]", "[ 3, 1 ]") + OUT,
    "reshape": HEAD + IN.replace("[ 3 ]", "[ 1, 3 ] reshape { shape: [ 3 ] }") + OUT,
    "reshape_wrong": HEAD + IN.replace("[ 3 ]", "[ 3 ] reshape { shape: [ 3, 1 ] }") + OUT,
    "type": HEAD + IO.replace("FP32", "FP16", 1),
    "two_inputs": HEAD + IN + 'input [ { name: "w" data_type: TYPE_FP32 dims: [ 3 ] } ]\n' + OUT,
    "unbatched": 'backend: "onnxruntime"\n' + IO.replace("[ 3 ]", "[ -1, 3 ]"),
    "unbatched_no_batch": 'backend: "onnxruntime"\n' + IO,
    "preferred": HEAD + IO + "dynamic_batching { preferred_batch_size: [ 4 ] }",
    "gpu": HEAD + IO + "instance_group { kind: KIND_GPU }",
    "cpu": HEAD + IO + "instance_group { kind: KIND_CPU count: 2 }",
    "warmup": WARM.format(4, "[ 3 ]"),
    "warmup_above_the_completed_batch": WARM.format(5, "[ 3 ]"),
    "warmup_dims_of_no_batch": WARM.format(1, "[ 2, 3 ]"),
    "warmup_other_input": WARM.format(1, "[ 3 ]").replace('"x"', '"z"'),
    "warmup_other_type": WARM.format(1, "[ 3 ]").replace("FP32", "INT32"),
    "warmup_reshaped": HEAD
    + IN.replace("[ 3 ]", "[ 1, 3 ] reshape { shape: [ 3 ] }")
    + OUT
    + WARM.format(8, "[ 1, 3 ]"),
    "preferred_before_completion": "dynamic_batching { preferred_batch_size: [ 4 ] }",
    "preferred_sequences_before_completion": "sequence_batching { oldest { preferred_batch_size: [ 4 ] } }",
    "file_name": HEAD + IO + 'default_model_filename: "net.onnx"',
}
UNBATCHED = {
    "full": 'backend: "onnxruntime"\n' + IO.replace("[ 3 ]", "[ 4, 3 ]"),
    "batched": HEAD + IO,
    "batched_no_io": HEAD,
    "dynamic": 'backend: "onnxruntime"\n' + IO.replace("[ 3 ]", "[ -1, 3 ]"),
    "nothing": "# nothing\n",
    "warmup": WARM.format(1, "[ 4, 3 ]"),
    "warmup_two": WARM.format(2, "[ 4, 3 ]"),
    "warmup_dims": WARM.format(1, "[ 2, 3 ]"),
}
