"""TensorFlow → ONNX by tf2onnx: from a traced call, or from a TF1 session."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from builder.errors import BuildError
from builder.frameworks.tensorflow import large
from builder.frameworks.tensorflow.framework import import_tensorflow, telling_line
from builder.frameworks.tensorflow.values import spec_of
from builder.onnx_tools.canonical import canonicalise
from builder.onnx_tools.exported import NO_OPERATOR
from builder.onnx_tools.renaming import rename_ports
from builder.onnx_tools.writing import write_proto
from builder.tensors import Signature

OLDER_OPSET: Final = 15
"""What tf2onnx's rules for many operators were written for, the second attempt."""


def refusal(reasons: Sequence[str]) -> BuildError:
    """Why no route led to an ONNX file."""
    missing = [reason.partition(": ")[2] for reason in reasons if NO_OPERATOR in reason]
    if missing:
        return BuildError(
            f"ONNX cannot express this TensorFlow model: {missing[0]}",
            remedy="cut those operators off, for example text processing, and save a signature that starts behind them",
        )
    return BuildError(
        f"TensorFlow could not convert the model to ONNX. {' | '.join(dict.fromkeys(reasons))}",
        remedy="convert it to ONNX yourself and give the .onnx file, or fix the axes in inputs: that cannot vary",
    )


def export_call(
    answer: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    owner: Any,  # noqa: ANN401 - whatever holds the variables and tables
    signature: Signature,
    opset: int,
    path: Path,
) -> None:
    """Trace the call with the signature's shapes, freeze its variables, convert."""
    from tf2onnx import tf_loader

    try:
        concrete = trace_call(answer, signature)
    except Exception as error:
        raise BuildError(f"TensorFlow cannot trace the model: {telling_line(str(error))}") from error
    count = len(signature.inputs)
    inputs = [tensor.name for tensor in concrete.inputs[:count]]
    outputs = [tensor.name for tensor in concrete.outputs]
    tf = import_tensorflow()
    big = large.variable_bytes(concrete.variables) >= large.LARGE_FROM_BYTES
    with tf.device("/cpu:0"):
        frozen, tables = tf_loader.from_trackable(owner, concrete, inputs, outputs, large_model=big)
    _convert((frozen, tables), (inputs, outputs), opset, path, signature)


def trace_call(answer: Callable[[Mapping[str, Any]], Mapping[str, Any]], signature: Signature) -> Any:  # noqa: ANN401
    """The call as a concrete function of positional tensors; TensorFlow's rules for names are too strict for ours."""
    tf = import_tensorflow()
    specs = [spec_of(tensor, f"input_{place}") for place, tensor in enumerate(signature.inputs)]

    @tf.function(input_signature=specs)  # type: ignore[untyped-decorator]
    def served(*arguments: Any) -> tuple[Any, ...]:  # noqa: ANN401
        found = answer({tensor.name: value for tensor, value in zip(signature.inputs, arguments, strict=True)})
        return tuple(tf.identity(found[tensor.name]) for tensor in signature.outputs)

    return served.get_concrete_function()


def export_session(session: Any, tensors: Mapping[str, str], signature: Signature, opset: int, path: Path) -> None:  # noqa: ANN401
    """Freeze the session's variables and convert its graph."""
    from tf2onnx import tf_loader

    tf = import_tensorflow()
    inputs = [tensors[f"input {tensor.name}"] for tensor in signature.inputs]
    with session.graph.as_default():
        # Copies, because one graph tensor may be served under two names, or be an input itself.
        found = [session.graph.get_tensor_by_name(tensors[f"output {tensor.name}"]) for tensor in signature.outputs]
        outputs = [tf.identity(value, name="served").name for value in found]
        with tf.device("/cpu:0"):
            frozen, tables = _freeze(session, [*inputs, *outputs])
    if large.constant_bytes(frozen) < large.LARGE_FROM_BYTES:
        with tf.Graph().as_default():
            tf.import_graph_def(frozen, name="")
            frozen = tf_loader.tf_optimize(inputs, outputs, frozen)
    _convert((frozen, tables), (inputs, outputs), opset, path, signature)


def _freeze(session: Any, names: Sequence[str]) -> tuple[Any, dict[bytes, Any]]:  # noqa: ANN401 - GraphDef
    """The graph with its variables as constants, and the content of its tables."""
    from tensorflow.python.ops import gen_lookup_ops
    from tf2onnx.tf_loader import get_hash_table_info

    tf = import_tensorflow()
    definition = session.graph.as_graph_def(add_shapes=True)
    for node in definition.node:
        node.device = ""
    nodes = [name.partition(":")[0] for name in names]
    frozen = tf.compat.v1.graph_util.convert_variables_to_constants(session, definition, nodes)
    tables = {}
    for info in get_hash_table_info(frozen):
        if info.shared_name is not None:
            table = gen_lookup_ops.hash_table_v2(info.key_dtype, info.val_dtype, shared_name=info.shared_name)
            content = gen_lookup_ops.lookup_table_export_v2(table, info.key_dtype, info.val_dtype)
            tables[info.shared_name] = tuple(session.run(list(content)))
    return frozen, tables


def _convert(
    graph: tuple[Any, Any],
    ports: tuple[list[str], list[str]],
    opset: int,
    path: Path,
    signature: Signature,
) -> None:
    from tf2onnx import convert

    frozen, tables = graph
    inputs, outputs = ports
    shapes = {
        name: [dim if isinstance(dim, int) else None for dim in tensor.shape]
        for name, tensor in zip(inputs, signature.inputs, strict=True)
    }
    options = {
        "continue_on_error": True,
        "opset": opset,
        "input_names": inputs,
        "output_names": outputs,
        "shape_override": shapes,
        "initialized_tables": tables,
    }
    if large.constant_bytes(frozen) >= large.LARGE_FROM_BYTES:
        model = large.convert_large(frozen, path.parent, **options)
    else:
        # The one entry that takes tables and names.
        model, _ = convert._convert_common(frozen, name="model", **options)  # noqa: SLF001
    canonicalise(model)
    names = [*zip(inputs, signature.inputs, strict=True), *zip(outputs, signature.outputs, strict=True)]
    rename_ports(model, {old: tensor.name for old, tensor in names})
    write_proto(model, path)
