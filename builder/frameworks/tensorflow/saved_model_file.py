"""A SavedModel's `saved_model.pb` read without TensorFlow: tags, signatures, operators.

Field numbers are those of tensorflow/core/protobuf/{saved_model,meta_graph}.proto and core/framework/*.proto.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from builder.errors import SpecError
from builder.frameworks.tensorflow.reaching import graph_nodes, reaching_nodes
from builder.frameworks.tensorflow.wire import message, messages, number_in, signed, text_of
from builder.onnx_tools.ports import Port
from builder.tensors import Dim

FILE: Final = "saved_model.pb"
TEXT_FILE: Final = "saved_model.pbtxt"
SERVE: Final = "serve"
DEFAULT: Final = "serving_default"
DTYPES: Final = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    7: "string",
    9: "int64",
    10: "bool",
    14: "bfloat16",
    17: "uint16",
    19: "float16",
    22: "uint32",
    23: "uint64",
}
"""`DataType` of types.proto, as far as Triton has it."""
OTHER_DTYPES: Final = {8: "complex64", 18: "complex128", 20: "resource", 21: "variant", 11: "qint8", 12: "quint8"}


@dataclass(frozen=True, slots=True)
class SignatureInfo:
    """One signature: ports and graph tensors by their names, both sorted; `problem` says what Triton cannot carry."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    tensors: dict[str, str]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class SavedModelFile:
    """The meta graph for serving. `has_objects`: written by TensorFlow 2, with an object graph."""

    tags: tuple[str, ...]
    version: str
    signatures: dict[str, SignatureInfo]
    operators: dict[str, int]
    has_objects: bool
    reaching: tuple[tuple[str, str], ...] = ()
    """Operator and name of nodes that reach files, the network or Python code."""


def is_saved_model(path: Path) -> bool:
    """A folder with the file that makes it one."""
    return path.is_dir() and ((path / FILE).is_file() or (path / TEXT_FILE).is_file())


def read_saved_model(path: Path) -> SavedModelFile:
    """The meta graph with the tag `serve`, or the only one.

    Raises:
        SpecError: damaged, or no graph to serve.
    """
    if not (path / FILE).is_file():
        raise SpecError(f"{path.name} holds {TEXT_FILE}, the text form", remedy=f"save it again: it writes {FILE}")
    data = (path / FILE).read_bytes()
    try:
        graphs = [(_tags(graph), graph) for graph in messages(data, 2)]
        if not graphs:
            raise SpecError(f"{path.name}/{FILE} holds no graph ({len(data)} bytes)", remedy="copy the folder again")
        chosen = next((item for item in graphs if SERVE in item[0]), graphs[0] if len(graphs) == 1 else None)
        if chosen is None:
            shown = "; ".join(",".join(tags) or "none" for tags, _ in graphs)
            raise SpecError(f"{path.name} has no graph with the tag {SERVE!r}; its tags are {shown}")
        return _read(*chosen)
    except ValueError as error:
        raise SpecError(
            f"{path.name}/{FILE} is damaged: {error} ({len(data)} bytes)", remedy="copy or download the folder again"
        ) from error


def _tags(graph: memoryview) -> tuple[str, ...]:
    return tuple(text_of(tag) for tag in messages(message(graph, 1), 4))


def _read(tags: tuple[str, ...], graph: memoryview) -> SavedModelFile:
    entries = ((message(entry, 1), message(entry, 2)) for entry in messages(graph, 5))
    found = {text_of(name): _signature(body) for name, body in entries}
    nodes = Counter(text_of(message(node, 2)) for node in graph_nodes(message(graph, 2)))
    return SavedModelFile(
        tags=tags,
        version=text_of(message(message(graph, 1), 5)),
        signatures={name: found[name] for name in sorted(found) if not name.startswith("__saved_model_")},
        operators=dict(sorted(nodes.items(), key=lambda item: (-item[1], item[0]))),
        has_objects=len(message(graph, 7)) > 0,
        reaching=reaching_nodes(message(graph, 2)),
    )


def _signature(body: memoryview) -> SignatureInfo:
    ports: list[list[Port]] = [[], []]
    tensors: dict[str, str] = {}
    problem = ""
    for side, field in enumerate((1, 2)):
        for name, info in sorted((text_of(message(entry, 1)), message(entry, 2)) for entry in messages(body, field)):
            dtype = number_in(info, 2)
            known = DTYPES.get(dtype)
            tensors[f"{('input', 'output')[side]} {name}"] = text_of(message(info, 1))
            problem = problem or _problem(name, ("input", "output")[side], dtype, info)
            ports[side].append(Port(name, known or "float32", _dims(message(info, 3))))
    return SignatureInfo(tuple(ports[0]), tuple(ports[1]), tensors, problem)


def _problem(name: str, side: str, dtype: int, info: memoryview) -> str:
    if len(message(info, 4)) or len(message(info, 5)):
        return f"{side} {name!r} is a sparse or ragged tensor"
    if dtype not in DTYPES:
        return f"{side} {name!r} is {OTHER_DTYPES.get(dtype, f'of TensorFlow type {dtype}')}"
    return ""


def _dims(shape: memoryview) -> tuple[Dim | None, ...] | None:
    if number_in(shape, 3):
        return None
    sizes = (signed(number_in(dim, 1)) for dim in messages(shape, 2))
    return tuple(size if size >= 0 else None for size in sizes)


def choose_signature(path: Path, found: SavedModelFile, wanted: str | None) -> tuple[str, SignatureInfo]:
    """The asked signature, `serving_default`, or the only one.

    Raises:
        SpecError: it is not there, or cannot be served; the list of those that are there.
    """
    names = list(found.signatures)
    shown = ", ".join(names) or "none"
    if not names:
        raise SpecError(
            f"{path.name} has no signature: it was saved without one",
            remedy="save it with one: tf.saved_model.save(model, path, signatures=model.call.get_concrete_function())",
        )
    name = wanted or (DEFAULT if DEFAULT in names else names[0] if len(names) == 1 else None)
    if name is None:
        raise SpecError(
            f"{path.name} has several signatures and no {DEFAULT!r}: {shown}",
            remedy="choose one in the spec: source: {signature: " + names[0] + "}",
        )
    if name not in found.signatures:
        raise SpecError(
            f"{path.name} has no signature {name!r}; it has {shown}", remedy="correct source: signature: in the spec"
        )
    info = found.signatures[name]
    if info.problem:
        others = [other for other, item in found.signatures.items() if not item.problem]
        raise SpecError(
            f"{path.name}, signature {name!r}: {info.problem}, which Triton does not have",
            remedy=f"choose another signature: {', '.join(others)}" if others else "save a signature of plain tensors",
        )
    if not info.outputs or not info.inputs:
        raise SpecError(f"{path.name}, signature {name!r}: it has no {'inputs' if info.outputs else 'outputs'}")
    return name, info
