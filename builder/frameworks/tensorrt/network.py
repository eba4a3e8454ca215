"""ONNX file → TensorRT network, strongly typed: the graph alone says what is computed in which type."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from builder.errors import BuildError
from builder.frameworks.tensorrt.library import NOISE, describe, logger
from builder.tensors import BY_NUMPY, Dim, Signature, Tensor

SHOWN: Final = 8
"""Parser errors that a message holds."""
LONGEST_REASON: Final = 240
PLUGIN: Final = "Plugin not found"
NOT_SUPPORTED: Final = "not supported"


@dataclass(frozen=True, slots=True)
class Network:
    """A parsed model. The objects must live as long as any of them is used, and go in the order of the fields."""

    parser: Any
    definition: Any
    builder: Any
    library: Any


def parse(library: Any, path: Path) -> Network:  # noqa: ANN401 - the module
    """Read the file, and the external data beside it.

    Raises:
        BuildError: the parser refuses it; every error with its node, operator and reason.
    """
    log = logger(library)
    builder = library.Builder(log)
    definition = builder.create_network(strongly_typed(library))
    parser = library.OnnxParser(definition, log)
    if not parser.parse_from_file(str(path)):
        found = [_Refusal.of(parser.get_error(index)) for index in range(parser.num_errors)]
        raise _refused(library, path, found)
    return Network(parser, definition, builder, library)


def strongly_typed(library: Any) -> int:  # noqa: ANN401
    """The creation flags: TensorRT 10 must be asked for strong typing, 11 knows nothing else and may drop the flag."""
    flag = getattr(library.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


@dataclass(frozen=True, slots=True)
class _Refusal:
    """One error of the parser. `unsupported`: TensorRT lacks the operator, or lacks it for this use."""

    index: int
    node: str
    operator: str
    unsupported: bool
    reason: str

    @staticmethod
    def of(error: Any) -> _Refusal:  # noqa: ANN401
        code = error.code().name
        reason = _reason(error.desc())
        unsupported = code.startswith("UNSUPPORTED") or PLUGIN in error.desc()
        return _Refusal(error.node(), error.node_name(), error.node_operator(), unsupported, reason)


def _reason(said: str) -> str:
    """The parser's sentence without the C++ condition around it; empty where it said nothing but a condition."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    lines = [line for line in lines if not any(word in line for word in NOISE)]
    if len(lines) > 1 and lines[0].startswith("Invalid Node"):
        lines = lines[1:]
    text = " ".join(lines)
    quoted = re.findall(r'"([^"]{8,})"', text)
    if quoted:
        return str(quoted[-1])
    if re.fullmatch(r"false|[\w>.():!&|=\s-]*", text) and " " not in text.strip():
        return ""
    return text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON].rsplit(' ', 1)[0]} …"


def _refused(library: Any, path: Path, found: list[_Refusal]) -> BuildError:  # noqa: ANN401
    named = [f"{_place(item, path)}: {_why(item)}" for item in found]
    unsupported = sorted({item.operator for item in found if item.unsupported})
    more = f"; and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
    if unsupported:
        lacks = (
            "has no operator"
            if all(_why(item) == NOT_SUPPORTED for item in found if item.unsupported)
            else "does not take every"
        )
        what = f"{describe(library)} {lacks} {', '.join(unsupported)}"
        remedy = (
            f"replace {', '.join(unsupported)} in the model, or use onnxruntime+tensorrt, which runs the rest of it"
        )
    else:
        what = f"{describe(library)} refuses the model"
        remedy = (
            "mend what it names, choose another precision, or use onnxruntime+tensorrt, which leaves such nodes to "
            "ONNX Runtime"
        )
    said = "; ".join(named[:SHOWN]) or "no reason given"
    return BuildError(f"{what}: {said}{more}", remedy=remedy)


def _why(item: _Refusal) -> str:
    if PLUGIN in item.reason or (item.unsupported and not item.reason):
        return NOT_SUPPORTED
    return item.reason or "refused without a reason"


def _place(item: _Refusal, path: Path) -> str:
    """`node 'conv1' (Conv)`; a node without a name is known by what it writes."""
    if not item.operator:
        return "the file"
    if item.node:
        return f"node '{item.node}' ({item.operator})"
    outputs = _outputs(path, item.index, item.operator)
    return f"node {item.index} ({item.operator})" + (f", which writes '{outputs}'" if outputs else "")


def _outputs(path: Path, index: int, operator: str) -> str:
    """What the node writes; empty where it lies in a subgraph or function, whose nodes are counted anew."""
    import onnx

    nodes = onnx.load(path, load_external_data=False).graph.node
    found = 0 <= index < len(nodes) and nodes[index].op_type == operator
    return str(nodes[index].output[0]) if found and nodes[index].output else ""


def ports(network: Network, wanted: Signature) -> Signature:
    """Inputs and outputs as the network declares them, in the source's order and with its names for sizes.

    Raises:
        BuildError: a name or type is not the source's.
    """
    definition = network.definition
    inputs = [definition.get_input(index) for index in range(definition.num_inputs)]
    outputs = [definition.get_output(index) for index in range(definition.num_outputs)]
    return Signature(
        tuple(_ports(inputs, wanted.inputs, "inputs")),
        tuple(_ports(outputs, wanted.outputs, "outputs")),
    )


def _ports(declared: list[Any], wanted: tuple[Tensor, ...], side: str) -> Iterator[Tensor]:
    found = {tensor.name: tensor for tensor in declared}
    got = {name: tensor.dtype.name for name, tensor in found.items()}
    expected = {tensor.name: BY_NUMPY[tensor.dtype].tensorrt for tensor in wanted}
    if got != expected:
        raise BuildError(
            f"TensorRT reads the {side} {_pairs(got)}; expected {_pairs(expected)}",
            remedy="cast such inputs and outputs to a type that TensorRT has, or remove the tensorrt target",
        )
    for tensor in wanted:
        shape = tuple(found[tensor.name].shape)
        yield Tensor(tensor.name, tensor.dtype, tuple(_dim(size, tensor, axis) for axis, size in enumerate(shape)))


def _pairs(types: dict[str, Any]) -> str:
    return ", ".join(f"{name} {word}" for name, word in types.items())


def _dim(size: int, wanted: Tensor, axis: int) -> Dim:
    known = wanted.shape[axis] if axis < len(wanted.shape) else None
    if isinstance(known, str):
        return known
    return size if size >= 0 else known or f"{wanted.name}_{axis}"
