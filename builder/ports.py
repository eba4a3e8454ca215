"""Inputs and outputs as a model file itself declares them, read without the library that runs it.

An ONNX file is completed by ONNX's own shape inference, because ONNX Runtime reports what it inferred, not what the
file says. Dims that ONNX Runtime may still infer by folding constants are listed as unsure.
"""

from __future__ import annotations

import ast
import pickletools
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from builder.archives import UNREADABLE
from builder.errors import SpecError
from builder.tensors import BY_ONNX, BY_OPENVINO, Dim, Signature, Tensor

Json = dict[str, Any]

_DIM: Final = re.compile(r"-?[0-9]{1,19}")
_SMALL_BYTES: Final = 1024
"""Larger constants are no shapes; shape inference does without them."""
_ORT_DOMAINS: Final = (
    "", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview", "ai.onnx.preview.training", "com.microsoft",
    "com.microsoft.nchwc", "com.microsoft.experimental", "com.microsoft.dml", "com.ms.internal.nhwc",
    "org.pytorch.aten",
)  # fmt: skip
_GRAPHS: Final = (5, 10)
"""ONNX's numbers of attributes that hold a graph, or several."""
_INFERENCE_LIMIT_BYTES: Final = 64 * 2**20
_OTHER_OPENVINO: Final = {"f64": "float64", "bf16": "bfloat16", "string": "string"}


@dataclass(frozen=True, slots=True)
class Ports:
    """What a model file declares.

    A tensor's shape is `()` both for a scalar and for a rank that is not known: the latter are named in `unranked`.
    `unsure` holds (output, axis) of dims that the file leaves open and the runtime may fix. `initializers` may be
    overridden by a request. `missing_data` names external files that are absent or lie outside the folder. `arguments`
    are name and type of forward's arguments, all that a TorchScript file tells; None for other files, or where an old
    one does not even tell that. `ir_version` is the format's, ONNX's or OpenVINO's, `opset` of ONNX's own operators.
    `foreign` are the operators (`domain:Kind`) that ONNX Runtime has only from a library of the user's.
    """

    signature: Signature
    unranked: tuple[str, ...] = ()
    unsure: tuple[tuple[str, int], ...] = ()
    initializers: tuple[str, ...] = ()
    missing_data: tuple[str, ...] = ()
    arguments: tuple[tuple[str, str], ...] | None = None
    is_torchscript: bool = False
    ir_version: int = 0
    opset: int = 0
    foreign: tuple[str, ...] = ()


def read_ports(path: Path) -> Signature:
    """The inputs and outputs of an ONNX file or an OpenVINO IR; none for a TorchScript file, which does not tell.

    Raises:
        SpecError: the file is missing, damaged, or neither.
    """
    return inspect_ports(path).signature


def inspect_ports(path: Path) -> Ports:
    """As `read_ports`, with what is not certain. Raises SpecError."""
    if path.is_dir():
        # Whatever the folder is called: onnxruntime's backend looks for this file in it.
        path = path / "model.onnx"
    try:
        with path.open("rb") as file:
            start = file.read(256).lstrip(b"\xef\xbb\xbf \t\r\n")
    except OSError as error:
        raise SpecError(
            f"failed to stat file {path.name}: {error.strerror}", remedy="put the model file there"
        ) from None
    if start.startswith(b"PK"):
        return _torchscript(path)
    return _openvino(path) if start.startswith(b"<") else _onnx(path)


def ports_json(ports: Ports) -> Json:
    """The form in which `builder.native_rules` takes them."""
    if ports.is_torchscript:
        known = ports.arguments
        return {} if known is None else {"arguments": [{"name": name, "type": kind} for name, kind in known]}
    sides = (("inputs", ports.signature.inputs), ("outputs", ports.signature.outputs))
    table: Json = {
        word: [
            {
                "name": tensor.name,
                "dtype": tensor.dtype,
                "shape": None if tensor.name in ports.unranked else list(tensor.wire_shape),
            }
            for tensor in tensors
        ]
        for word, tensors in sides
    }
    return table | {"initializers": list(ports.initializers)}


def _onnx(path: Path) -> Ports:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, OSError) as error:
        raise _damaged(path, f"Load model from {path.name} failed:Protobuf parsing failed. ({error})") from None
    graph = model.graph
    if not graph.node and not graph.output:
        raise _damaged(path, f"Load model from {path.name} failed:Protobuf parsing failed.")
    constants = {tensor.name for tensor in graph.initializer}
    missing = _missing_data(path.parent, graph)
    functions = {(item.domain, item.name) for item in model.functions}
    foreign = tuple(sorted({f"{domain}:{kind}" for domain, kind in _foreign(graph) if (domain, kind) not in functions}))
    names = [value.name for value in graph.input if value.name not in constants]
    overridable = [value.name for value in graph.input if value.name in constants]
    outputs = {value.name: value for value in _inferred(model).graph.output}
    by_name = {value.name: value for value in graph.input}
    inputs = tuple(_onnx_tensor(by_name[name]) for name in names)
    results = tuple(_onnx_tensor(outputs.get(value.name, value)) for value in graph.output)
    free = {dim for tensor in inputs for dim in tensor.shape if isinstance(dim, str)}
    return Ports(
        Signature(inputs, results),
        unranked=tuple(value.name for value in outputs.values() if not _has_shape(value)),
        unsure=tuple(
            (tensor.name, axis)
            for tensor in results
            for axis, dim in enumerate(tensor.shape)
            if isinstance(dim, str) and dim not in free
        ),
        initializers=tuple(overridable),
        missing_data=missing,
        ir_version=model.ir_version,
        opset=max((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), default=0),
        foreign=foreign,
    )


def _foreign(graph: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401 - onnx.GraphProto
    """Domain and kind of every operator outside ONNX Runtime's own sets, in subgraphs too."""
    for node in graph.node:
        if node.domain not in _ORT_DOMAINS:
            yield node.domain, node.op_type
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs) if attribute.type in _GRAPHS else ():
                yield from _foreign(inner)


def _inferred(model: Any) -> Any:  # noqa: ANN401 - onnx.ModelProto
    """The model after shape inference, without its large constants; as it is where inference fails."""
    import onnx

    for index in range(len(model.graph.initializer) - 1, -1, -1):
        tensor = model.graph.initializer[index]
        if tensor.ByteSize() > _SMALL_BYTES or tensor.data_location == onnx.TensorProto.EXTERNAL:
            if all(value.name != tensor.name for value in model.graph.input):
                value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
                model.graph.input.append(value)
            del model.graph.initializer[index]
    if model.ByteSize() > _INFERENCE_LIMIT_BYTES:
        return model
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception:  # ONNX raises its own, RuntimeError and ValueError for operators that it does not know
        return model


def _has_shape(value: Any) -> bool:  # noqa: ANN401 - onnx.ValueInfoProto
    return value.type.WhichOneof("value") != "tensor_type" or bool(value.type.tensor_type.HasField("shape"))


def _onnx_tensor(value: Any) -> Tensor:  # noqa: ANN401 - onnx.ValueInfoProto
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        return Tensor(value.name, str(kind or "undeclared").removesuffix("_type").removesuffix("_tensor"), ())
    tensor = value.type.tensor_type
    row = BY_ONNX.get(tensor.elem_type)
    dims: list[Dim] = []
    for axis, dim in enumerate(tensor.shape.dim):
        if dim.HasField("dim_value") and dim.dim_value >= 0:
            dims.append(int(dim.dim_value))
        else:
            dims.append(str(dim.dim_param) or f"{value.name}_{axis}")
    return Tensor(value.name, row.numpy if row else f"onnx type {tensor.elem_type}", tuple(dims))


def _missing_data(folder: Path, graph: Any) -> tuple[str, ...]:  # noqa: ANN401 - onnx.GraphProto
    places = {
        entry.value
        for tensor in graph.initializer
        if tensor.data_location == 1
        for entry in tensor.external_data
        if entry.key == "location"
    }
    root = folder.resolve()
    return tuple(
        place
        for place in sorted(places)
        if not _is_file(folder / place) or not (folder / place).absolute().resolve().is_relative_to(root)
    )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        # A name that no file can have.
        return False


def _openvino(path: Path) -> Ports:
    from xml.etree import ElementTree as ET

    try:
        net = ET.parse(path).getroot()  # noqa: S314 - expat limits entity expansion; the file is the user's own model
    except ET.ParseError as error:
        line, column = error.position
        raise _damaged(path, f"{path.name}:{line}:{column}: {error.msg}") from None
    except (LookupError, ValueError) as error:
        raise _damaged(path, f"{path.name} says an encoding that no reader has: {error}") from None
    if net.tag != "net" or net.find("layers") is None:
        raise _damaged(path, f"{path.name} is no OpenVINO IR: its root is <{net.tag}>")
    layers = {layer.get("id"): layer for layer in net.iterfind("layers/layer")}
    sources = {
        edge.get("to-layer"): (edge.get("from-layer"), edge.get("from-port")) for edge in net.iterfind("edges/edge")
    }
    inputs, outputs = [], []
    for key, layer in layers.items():
        if layer.get("type") == "Parameter":
            inputs.append(_openvino_tensor(path, layer.find("output/port")))
        elif layer.get("type") == "Result":
            source, port = sources.get(key, (None, None))
            found = layers[source].find(f"output/port[@id='{port}']") if source in layers else None
            outputs.append(_openvino_tensor(path, found))
    weights = path.with_suffix(".bin")
    missing = () if weights.is_file() or net.find("layers/layer[@type='Const']") is None else (weights.name,)
    version = net.get("version") or ""
    return Ports(
        Signature(tuple(inputs), tuple(outputs)),
        missing_data=missing,
        ir_version=int(version) if _DIM.fullmatch(version) else 0,
    )


def _openvino_tensor(path: Path, port: Any) -> Tensor:  # noqa: ANN401 - an XML element
    if port is None:
        return Tensor("", "undeclared", ())
    names = (port.get("names") or "").replace("\\,", "\0").split(",")
    name = min(text.replace("\0", ",") for text in names)
    word = (port.get("precision") or "").lower().replace("fp", "f")
    row = BY_OPENVINO.get({"bool": "boolean"}.get(word, word))
    written = [(dim.text or "-1").strip() for dim in port.iterfind("dim")]
    wrong = next((text for text in written if not _DIM.fullmatch(text)), None)
    if wrong is not None:
        raise _damaged(path, f"{path.name}: the dim {wrong[:20]!r} of {name!r} is no size")
    sizes = [int(text) for text in written]
    dims = tuple(size if size >= 0 else f"{name}_{axis}" for axis, size in enumerate(sizes))
    return Tensor(name, row.numpy if row else _OTHER_OPENVINO.get(word, word), dims)


def _torchscript(path: Path) -> Ports:
    """The arguments of `forward` as the code in the archive declares them; nothing is unpickled or run."""
    try:
        with zipfile.ZipFile(path) as archive:
            return Ports(Signature((), ()), arguments=_forward_arguments(path, archive), is_torchscript=True)
    except (*UNREADABLE, SyntaxError) as error:
        raise _damaged(path, f"{path.name} cannot be read: {str(error) or 'it is cut off'}") from None


def _forward_arguments(path: Path, archive: zipfile.ZipFile) -> tuple[tuple[str, str], ...] | None:
    members = set(archive.namelist())
    root = next(iter(archive.namelist()), "").partition("/")[0]
    if not {f"{root}/constants.pkl", f"{root}/data.pkl"} <= members:
        if f"{root}/model.json" in members:
            return None
        raise _damaged(path, f"{path.name} is no TorchScript archive: torch.jit.save writes those, torch.save does not")
    with archive.open(f"{root}/data.pkl") as stream:
        names = (str(value) for code, value, _ in pickletools.genops(stream) if code.name == "GLOBAL")
        module, _, name = next(names, "").partition(" ")
    member = f"{root}/code/{module.replace('.', '/')}.py"
    if member not in members:
        return None
    code = archive.read(member).decode("utf-8")
    body = re.search(rf"^class {re.escape(name)}\(.*?(?=^\S|\Z)", code, re.MULTILINE | re.DOTALL)
    header = body and re.search(r"^  (def forward\(\w+: .*?\) -> [^\n]*:)\n", body[0], re.MULTILINE | re.DOTALL)
    if not header:
        raise _damaged(path, f"Method 'forward' is not defined in {path.name}.")
    function = ast.parse(f"{header[1]}\n  pass").body[0]
    declared = function.args.args[1:] if isinstance(function, ast.FunctionDef) else ()
    return tuple(
        (argument.arg, ast.unparse(argument.annotation) if argument.annotation else "Tensor") for argument in declared
    )


def _damaged(path: Path, message: str) -> SpecError:
    return SpecError(message, remedy=f"{path.name} is damaged or no model; build or copy it again")
