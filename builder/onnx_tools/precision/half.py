"""fp16 and bf16: weights and arithmetic of the graph in 16 bits, inputs and outputs as they were.

The result is strongly typed: every cast stands in the graph, and TensorRT takes it as it is. `convert` writes it;
`emulate` writes the same graph in fp32 with every value rounded where the other has 16 bits. The emulation is what
accuracy is judged on: onnxruntime's CPU kernels compute fp16 graphs in fp32 and drop the casts between them, so that
an overflow of the middle of a graph would never show there, and they do not run bf16 at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from builder.errors import BuildError
from builder.log import get_logger
from builder.onnx_tools.files import link_model
from builder.onnx_tools.nodes import replace_nodes
from builder.onnx_tools.precision import PrecisionJob
from builder.onnx_tools.precision.lowering import FLOAT, Lowered, Lowering, holds_graph, not_lowered, plan_lowering
from builder.onnx_tools.precision.naming import name_nodes
from builder.onnx_tools.reading import ModelProto, TensorProto, external_tensors, opset_of, read_onnx, short, tensors
from builder.onnx_tools.values import value_types
from builder.onnx_tools.writing import append, data_file, point, write_proto

if TYPE_CHECKING:
    from numpy.typing import NDArray

FLOATS: Final = (FLOAT, "tensor(double)", "tensor(float16)", "tensor(bfloat16)")
LOW: Final = {"fp16": "tensor(float16)", "bf16": "tensor(bfloat16)"}
ONNX_FLOAT: Final = 1
ONNX_LOW: Final = {"fp16": 10, "bf16": 16}
BF16_OPSET: Final = 22
BF16_IR: Final = 10
LARGEST: Final = {"fp16": 65504.0, "bf16": 3.3895313892515355e38}
"""The largest finite value."""


def convert(model_path: Path, out_path: Path, job: PrecisionJob, keep: frozenset[str]) -> None:
    """Write the graph with 16 bits wherever its operators have them; the nodes named in `keep` stay fp32.

    Constants are rounded to the nearest value, never clamped: what is out of range becomes infinite (see
    `overflowing_nodes`).

    Raises:
        BuildError: no operator has a form in the precision, all were to stay, or the result is no valid model.
    """
    graph = _planned(model_path, job, keep, emulated=False)
    if not graph.lowering.nodes and keep:
        raise BuildError(
            f"the answers are only good enough with every node in fp32: nothing is left for {job.precision}",
            remedy=f"remove the {job.precision} targets of this model, or allow more in the spec: accuracy: {{…}}",
        )
    if not graph.lowering.nodes:
        _unchanged(graph, model_path, out_path, job.dialect)
        return
    _rewrite(graph)
    _write(graph, model_path.parent, out_path)
    _check(out_path, model_path, job.precision)


def _unchanged(graph: _Graph, model_path: Path, out_path: Path, dialect: str) -> None:
    """A model that came in the precision stays as it is.

    Raises:
        BuildError: it did not.
    """
    precision = graph.precision
    others = {word for word in FLOATS if word in value_types(graph.model, model_path.parent).values()}
    if LOW[precision] in others:
        link_model(model_path, out_path)
        return
    if others - {FLOAT}:
        words = " and ".join(sorted(word.removeprefix("tensor(").rstrip(")") for word in others - {FLOAT}))
        what = f"the model computes in {words}, and only fp32 can be made {precision}"
        remedy = f"remove the {precision} targets of this model, or export it in fp32"
    elif inner := sorted({node.op_type for node in graph.model.graph.node if holds_graph(node)}):
        what = f"the model computes inside {', '.join(inner)}, and what is inside of a node stays in fp32"
        remedy = f"remove the {precision} targets of this model, or export the branch that is used without {inner[0]}"
    elif lacking := not_lowered(graph.model, dialect, precision):
        words = ", ".join(sorted({node.op_type for node in graph.model.graph.node if node.name in lacking}))
        what = f"{dialect} lacks {words} in {precision}, and the model has nothing else that could be {precision}"
        remedy = f"remove the {precision} targets of this model"
    else:
        what = f"no operator of the model has a {precision} form in its opset"
        remedy = f"remove the {precision} targets of this model, or export it with a newer opset"
    raise BuildError(what, remedy=remedy)


def emulate(model_path: Path, out_path: Path, job: PrecisionJob, keep: frozenset[str]) -> None:
    """Write what `convert` would, as an fp32 graph that rounds: what a device computes that has the precision.

    Raises:
        BuildError: onnxruntime does not load the model.
    """
    graph = _planned(model_path, job, keep, emulated=True)
    _rewrite(graph)
    _write(graph, model_path.parent, out_path)


def overflowing_nodes(model_path: Path, job: PrecisionJob) -> tuple[tuple[str, str], ...]:
    """(name, operator) of nodes that would read a constant beyond the precision's range, in the graph's order.

    Raises:
        BuildError: onnxruntime does not load the model.
    """
    graph = _planned(model_path, job, frozenset(), emulated=False)
    beyond = {
        tensor.name
        for tensor in graph.model.graph.initializer
        if tensor.name in graph.lowering.read_half and _overflows(tensor, model_path.parent, job.precision)
    }
    nodes = ((graph.model.graph.node[place], ports) for place, ports in graph.lowering.nodes.items())
    return tuple(
        (node.name, node.op_type) for node, ports in nodes if any(node.input[index] in beyond for index in ports.inputs)
    )


@dataclass(frozen=True, slots=True)
class _Graph:
    """A model on its way: `stored` are its initialisers, `suffix` marks the second form of a tensor."""

    model: ModelProto
    lowering: Lowering
    stored: frozenset[str]
    precision: str
    suffix: str
    emulated: bool

    def half(self, name: str) -> str:
        """What the tensor is called in 16 bits: its own name where nobody needs the other form."""
        alone = name not in self.lowering.read_full
        made = name in self.lowering.made_half and (alone or self.emulated)
        return name if made or (alone and name in self.stored) else name + self.suffix

    @property
    def rounded(self) -> frozenset[str]:
        """Initialisers that are read in 16 bits."""
        return self.stored & self.lowering.read_half


def _planned(path: Path, job: PrecisionJob, keep: frozenset[str], *, emulated: bool) -> _Graph:
    model = read_onnx(path)
    precision = job.precision
    if model.functions:
        from onnx.inliner import inline_local_functions

        model = inline_local_functions(model)
    name_nodes(model)
    _store_constants(model)
    raises = precision == "bf16" and opset_of(model) < BF16_OPSET <= job.opset and job.ir_version >= BF16_IR
    model, types = _raised(model, path.parent) if raises else (model, value_types(model, path.parent))
    suffix = f"__{precision}"
    while any(name.endswith(suffix) for name in types):
        suffix += "_"
    stored = frozenset(tensor.name for tensor in model.graph.initializer)
    stays = keep | not_lowered(model, job.dialect, precision)
    return _Graph(model, plan_lowering(model, types, LOW[precision], stays), stored, precision, suffix, emulated)


def _raised(model: ModelProto, folder: Path) -> tuple[ModelProto, Mapping[str, str]]:
    """The model, and the types of its tensors, in the first opset in which convolutions and pooling know bfloat16.

    As it is where it cannot be had in that, or onnxruntime lacks one of its operators there.
    """
    from onnx import version_converter

    try:
        raised = version_converter.convert_version(model, BF16_OPSET)
        raised.ir_version = max(raised.ir_version, BF16_IR)
        name_nodes(raised)
        _store_constants(raised)
        return raised, value_types(raised, folder)
    except Exception:
        get_logger().debug("the model stays in its opset", exc_info=True)
        return model, value_types(model, folder)


def _store_constants(model: ModelProto) -> None:
    """Float constants of the main graph become initialisers: there is one way in which weights are stored."""
    ports = {port.name for port in model.graph.output}
    nodes = []
    for node in model.graph.node:
        tensor = _constant(node) if node.op_type == "Constant" and node.output[0] not in ports else None
        if tensor is None:
            nodes.append(node)
            continue
        stored = model.graph.initializer.add()
        stored.CopyFrom(tensor)
        stored.name = node.output[0]
    replace_nodes(model.graph, nodes)


def _constant(node: Any) -> TensorProto | None:  # noqa: ANN401 - onnx.NodeProto
    """What a Constant holds, where that is a float32 tensor."""
    import numpy as np
    from onnx import numpy_helper

    for attribute in node.attribute:
        if attribute.name == "value" and attribute.t.data_type == ONNX_FLOAT:
            return attribute.t
        if attribute.name == "value_float":
            return numpy_helper.from_array(np.asarray(attribute.f, np.float32))
        if attribute.name == "value_floats":
            return numpy_helper.from_array(np.asarray(attribute.floats, np.float32))
    return None


def _rewrite(graph: _Graph) -> None:
    """Point every lowered port to the 16-bit tensor, and put casts where the two forms meet."""
    ports = [port.name for port in graph.model.graph.input if port.name not in graph.stored]
    nodes = [cast for name in ports for cast in _casts_down(graph, name)]
    for place, node in enumerate(graph.model.graph.node):
        written = [name for name in node.output if name]
        if place in graph.lowering.nodes:
            _lower_ports(graph, node, graph.lowering.nodes[place])
        nodes.append(node)
        for name in written:
            made = name in graph.lowering.made_half
            nodes.extend(_casts_up(graph, name) if made else _casts_down(graph, name))
    replace_nodes(graph.model.graph, nodes)


def _lower_ports(graph: _Graph, node: Any, ports: Lowered) -> None:  # noqa: ANN401
    for index in ports.inputs:
        node.input[index] = graph.half(node.input[index])
    for index in ports.outputs:
        name = node.output[index]
        node.output[index] = f"{name}{graph.suffix}_raw" if graph.emulated else graph.half(name)
    if node.op_type == "Cast" and ports.outputs and not graph.emulated:
        next(attribute for attribute in node.attribute if attribute.name == "to").i = ONNX_LOW[graph.precision]


def _casts_up(graph: _Graph, name: str) -> Iterator[Any]:
    """Behind a lowered node: in the emulation its value rounded, else the fp32 form where somebody reads it."""
    if graph.emulated:
        yield from _rounding(graph, f"{name}{graph.suffix}_raw", name)
    elif name in graph.lowering.read_full:
        yield _cast(graph.half(name), name, ONNX_FLOAT)


def _casts_down(graph: _Graph, name: str) -> Iterator[Any]:
    """Behind an input or a node that stays: the 16-bit form where somebody reads it."""
    if name not in graph.lowering.read_half:
        return
    if graph.emulated:
        yield from _rounding(graph, name, graph.half(name))
    else:
        yield _cast(name, graph.half(name), ONNX_LOW[graph.precision])


def _rounding(graph: _Graph, source: str, target: str) -> Iterator[Any]:
    between = f"{target}{graph.suffix}_low"
    yield _cast(source, between, ONNX_LOW[graph.precision])
    yield _cast(between, target, ONNX_FLOAT)


def _cast(source: str, target: str, to: int) -> Any:  # noqa: ANN401
    from onnx import helper

    return helper.make_node("Cast", [source], [target], name=f"{target}/cast", to=to)


def _write(graph: _Graph, folder: Path, out_path: Path) -> None:
    """Round the weights, one tensor in memory at a time where they lie outside the protobuf."""
    model = graph.model
    _add_second_forms(graph)
    _retype_values(graph)
    rounded = {graph.half(name) for name in graph.rounded}
    main = list(model.graph.initializer)
    others = list(tensors(model))[len(main) :]  # the main graph's initialisers come first
    outside = data_file(out_path).open("wb") if external_tensors(model) else nullcontext()
    with outside as stream:
        for tensor in main:
            _store(graph, tensor, folder, stream, rounds=tensor.name in rounded)
        for tensor in others:
            _store(graph, tensor, folder, stream, rounds=False)
    write_proto(model, out_path)


def _add_second_forms(graph: _Graph) -> None:
    """A weight that is read in both forms is stored in both: a node that stays in fp32 has its weights in fp32."""
    second = [tensor for tensor in graph.model.graph.initializer if tensor.name in graph.rounded]
    for tensor in second:
        if graph.half(tensor.name) != tensor.name:
            copy = graph.model.graph.initializer.add()
            copy.CopyFrom(tensor)
            copy.name = graph.half(tensor.name)


def _retype_values(graph: _Graph) -> None:
    """What the file says of inner tensors stays true."""
    if graph.emulated:
        return
    lowered = graph.lowering.made_half | graph.rounded
    for value in graph.model.graph.value_info:
        if value.name in lowered and graph.half(value.name) == value.name:
            value.type.tensor_type.elem_type = ONNX_LOW[graph.precision]


def _store(graph: _Graph, tensor: TensorProto, folder: Path, stream: BinaryIO | None, *, rounds: bool) -> None:
    """Give the tensor its values: rounded or as they were, in the protobuf or outside, where they lay before."""
    from onnx.external_data_helper import load_external_data_for_tensor

    outside = tensor.data_location == 1
    if outside:
        load_external_data_for_tensor(tensor, str(folder))
    if rounds:
        _round(tensor, graph.precision, stays_fp32=graph.emulated)
    if outside and stream is not None:
        content = tensor.raw_data
        tensor.ClearField("raw_data")
        point(tensor, Path(stream.name).name, append(stream, content), len(content))


def _round(tensor: TensorProto, precision: str, *, stays_fp32: bool) -> None:
    import numpy as np
    from onnx import numpy_helper

    low = _rounded(numpy_helper.to_array(tensor), precision)
    tensor.ClearField("float_data")
    if stays_fp32:
        tensor.raw_data = low.astype(np.float32).tobytes()
    else:
        tensor.data_type = ONNX_LOW[precision]
        tensor.raw_data = low.tobytes()


def _rounded(array: NDArray[Any], precision: str) -> NDArray[Any]:
    import ml_dtypes
    import numpy as np

    with np.errstate(over="ignore", invalid="ignore"):
        return array.astype(np.float16 if precision == "fp16" else ml_dtypes.bfloat16)


def _overflows(tensor: TensorProto, folder: Path, precision: str) -> bool:
    import numpy as np
    from onnx import numpy_helper

    array = numpy_helper.to_array(tensor, base_dir=str(folder))
    return bool(np.any(np.isinf(_rounded(array, precision)) & np.isfinite(array)))


def _check(path: Path, origin: Path, precision: str) -> None:
    """The checker infers every type; where it objects to the origin too, the objection is not ours.

    Raises:
        BuildError: the graph is wrong.
    """
    objection = _objection(path)
    if objection and not _objection(origin):
        raise BuildError(
            f"onnx.checker refuses the {precision} graph: {objection}",
            remedy=f"remove the {precision} targets of this model, and please report it",
        )


def _objection(path: Path) -> str:
    import onnx

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as error:
        return short(error)
    return ""
