"""Make the ports of a graph say what is true, so that every library and Triton agree with the signature."""

from __future__ import annotations

from typing import Any

from builder.onnx_tools.nodes import replace_nodes
from builder.onnx_tools.ports import Port, read_ports
from builder.onnx_tools.reading import ModelProto
from builder.tensors import BY_NUMPY, Dim, Signature, Tensor


def conform(model: ModelProto, signature: Signature, *, exact: bool = False) -> tuple[str, ...]:
    """Change `model` in place where it contradicts `signature`; returns what was changed.

    `exact` writes every shape as the signature has it; otherwise shapes that allow the signature's stay untouched.
    """
    notes = [*_drop_constant_inputs(model), *_select_outputs(model, signature)]
    inputs, outputs = read_ports(model)
    declared = {port.name: port for port in inputs} | {port.name: port for port in outputs}
    corrected = [tensor for tensor in signature.tensors if exact or _contradicts(declared[tensor.name], tensor)]
    for tensor in corrected:
        write_shape(model, tensor)
    if corrected and not exact:
        notes.extend(_correction(declared[tensor.name], tensor) for tensor in corrected)
    return tuple(notes)


def _drop_constant_inputs(model: ModelProto) -> list[str]:
    constants = {tensor.name for tensor in model.graph.initializer}
    double = [value for value in model.graph.input if value.name in constants]
    for value in double:
        model.graph.input.remove(value)
    if double and model.ir_version < 4:  # noqa: PLR2004 - before IR 4 every initialiser had to be an input
        model.ir_version = 4
    return [f"{len(double)} weights were also declared as inputs; no longer"] if double else []


def _select_outputs(model: ModelProto, signature: Signature) -> list[str]:
    wanted = [tensor.name for tensor in signature.outputs]
    present = {value.name: value for value in model.graph.output}
    if list(present) == wanted:
        return []
    dropped = [name for name in present if name not in wanted]
    kept = []
    for name in wanted:
        copy = type(present[name])()
        copy.CopyFrom(present[name])
        kept.append(copy)
    del model.graph.output[:]
    model.graph.output.extend(kept)
    remove_dead_nodes(model)
    return [f"outputs left out by the spec: {', '.join(dropped)}"] if dropped else ["outputs reordered by the spec"]


def remove_dead_nodes(model: ModelProto) -> None:
    """Drop nodes and initialisers that no output needs."""
    needed = {value.name for value in model.graph.output}
    kept = []
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed |= _uses(node)
    dead = len(model.graph.node) - len(kept)
    if not dead:
        return
    replace_nodes(model.graph, reversed(kept))
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name not in needed]:
        model.graph.initializer.remove(tensor)


def _uses(node: Any) -> set[str]:  # noqa: ANN401 - onnx.NodeProto
    """Names a node reads, also from inside its graphs."""
    names = set(node.input)
    for attribute in node.attribute:
        inner = ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs)
        for graph in inner:
            names |= {value.name for value in graph.output}
            for child in graph.node:
                names |= _uses(child)
    return names


def _contradicts(port: Port, tensor: Tensor) -> bool:
    if port.dims is None or port.literal_dims or len(port.dims) != len(tensor.shape):
        return True
    return any(_axis_contradicts(was, now) for was, now in zip(port.dims, tensor.shape, strict=True))


def _axis_contradicts(was: Dim | None, now: Dim) -> bool:
    """A fixed size that is not the true one, or any size where the signature fixes one."""
    if isinstance(now, int):
        return was != now
    return isinstance(was, int)


def _correction(port: Port, tensor: Tensor) -> str:
    was = "no shape" if port.dims is None else "[" + ",".join("?" if d is None else str(d) for d in port.dims) + "]"
    now = ",".join(map(str, tensor.shape))
    return f"{tensor.name!r} is declared {was} in the file; corrected to [{now}], which is what runs"


def write_shape(model: ModelProto, tensor: Tensor) -> None:
    """Declare the port of that name as `tensor` has it."""
    for value in (*model.graph.input, *model.graph.output):
        if value.name == tensor.name:
            value.type.tensor_type.elem_type = BY_NUMPY[tensor.dtype].onnx
            shape = value.type.tensor_type.shape
            del shape.dim[:]
            shape.SetInParent()
            for size in tensor.shape:
                dim = shape.dim.add()
                if isinstance(size, int):
                    dim.dim_value = size
                else:
                    dim.dim_param = size
