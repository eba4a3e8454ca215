"""torch → ONNX: the dynamo exporter, the TorchScript exporter as fallback, each judged by what its result answers."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from builder.compare import compare_outputs
from builder.errors import BuildError, BuildRepoError
from builder.log import get_logger
from builder.onnx_tools.conform import conform
from builder.onnx_tools.limits import fit_limits
from builder.onnx_tools.reading import ModelProto, external_tensors, graphs, opset_of, read_onnx, short
from builder.onnx_tools.running import open_plain, run_plain
from builder.onnx_tools.writing import EXTERNAL_FROM_BYTES, data_file
from builder.pytorch.network import to_torch
from builder.samples import Request
from builder.tensors import BY_NUMPY, Signature, Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WISHED_OPSET: Final = 18
"""What torch's exporter library is written in; anything else is a conversion."""
MAX_ERROR: Final = 1e-3
MIN_COSINE: Final = 0.9999
MAX_ERROR_HALF: Final = 2e-2
MIN_COSINE_HALF: Final = 0.999


@dataclass(frozen=True, slots=True)
class Limits:
    """The highest opset and IR version that the target release loads."""

    opset: int
    ir_version: int


Exporter = Callable[[Any, Path, Signature, Request, int], None]


def export_network(
    network: Any,  # noqa: ANN401 - torch.nn.Module
    path: Path,
    *,
    signature: Signature,
    requests: Sequence[Request],
    limits: Limits,
) -> tuple[str, tuple[str, ...]]:
    """Write `path` by the first exporter whose result answers like the network; its word, and notes.

    Raises:
        BuildError: neither does; both reasons.
    """
    reasons = []
    for route in _routes(network):
        exporter = ROUTES[route]
        try:
            with _quiet():
                exporter(network, path, signature, pick_example(requests, signature), min(limits.opset, WISHED_OPSET))
            notes = _settle(path, signature, limits)
            _check_answers(path, signature, requests)
        except (Exception, SystemExit) as error:
            reasons.append(f"{route}: {_reason(error)}")
            path.unlink(missing_ok=True)
            data_file(path).unlink(missing_ok=True)
            continue
        failed = tuple(f"exported by the {route} exporter, because {reason}" for reason in reasons)
        return route, (*failed, *notes)
    raise BuildError(
        f"PyTorch could not export the model to ONNX. {' | '.join(reasons)}",
        remedy="export it to ONNX yourself and give the .onnx file, or fix the axes in inputs: that cannot vary",
    )


def _dynamo(network: Any, path: Path, signature: Signature, example: Request, opset: int) -> None:  # noqa: ANN401
    import torch

    weights = [*network.parameters(), *network.buffers()]
    size = sum(weight.numel() * weight.element_size() for weight in weights)
    shapes = tuple({axis: tensor.shape[axis] for axis in tensor.dynamic_axes} or None for tensor in signature.inputs)
    torch.onnx.export(
        network,
        _arguments(signature, example),
        str(path),
        dynamo=True,
        dynamic_shapes=(shapes,) if any(shapes) else None,
        input_names=[tensor.name for tensor in signature.inputs],
        output_names=[tensor.name for tensor in signature.outputs],
        opset_version=opset,
        external_data=size >= EXTERNAL_FROM_BYTES,
        verbose=False,
    )


def _torchscript(network: Any, path: Path, signature: Signature, example: Request, opset: int) -> None:  # noqa: ANN401
    import torch

    axes = {
        tensor.name: {axis: str(tensor.shape[axis]) for axis in tensor.dynamic_axes} for tensor in signature.tensors
    }
    arguments = _arguments(signature, example)
    if _is_scripted(network):
        # The exporter's own tracer refuses scripted modules inside a plain one; this keeps their control flow.
        network = torch.jit.trace(network, arguments, check_trace=False)
    torch.onnx.export(
        network,
        arguments,
        str(path),
        dynamo=False,
        dynamic_axes={name: named for name, named in axes.items() if named},
        input_names=[tensor.name for tensor in signature.inputs],
        output_names=[tensor.name for tensor in signature.outputs],
        opset_version=opset,
        do_constant_folding=True,
        verbose=False,
    )


ROUTES: Final[dict[str, Exporter]] = {"dynamo": _dynamo, "torchscript": _torchscript}
"""Route → exporter, in the order in which they are tried."""


def _routes(network: Any) -> tuple[str, ...]:  # noqa: ANN401
    """Dynamo cannot read TorchScript: there the other exporter comes first."""
    return tuple(reversed(ROUTES)) if _is_scripted(network) else tuple(ROUTES)


def _is_scripted(network: Any) -> bool:  # noqa: ANN401
    import torch

    return any(isinstance(module, torch.jit.ScriptModule) for module in network.modules())


def _arguments(signature: Signature, example: Request) -> tuple[Any, ...]:
    return tuple(to_torch(example.inputs[tensor.name]) for tensor in signature.inputs)


def pick_example(requests: Sequence[Request], signature: Signature) -> Request:
    """The request to trace with: no dynamic axis of size 1 or 0, sizes as different as possible, small."""

    def rank(request: Request) -> tuple[int, int, int]:
        sizes = {
            tensor.shape[axis]: request.inputs[tensor.name].shape[axis]
            for tensor in signature.inputs
            for axis in tensor.dynamic_axes
        }
        ones = sum(size < 2 for size in sizes.values())  # noqa: PLR2004 - exporters take 0 and 1 for constants
        return ones, -len(set(sizes.values())), sum(sizes.values())

    return min(requests, key=rank)


def _settle(path: Path, signature: Signature, limits: Limits) -> tuple[str, ...]:
    """Names, shapes and versions as promised; no traces of this machine in the file."""
    model = read_onnx(path)
    _check_ports(model, signature)
    if opset_of(model) > limits.opset:
        raise BuildError(f"the exporter wrote opset {opset_of(model)}, the target release loads {limits.opset} at most")
    fit_limits(model, opset=limits.opset, ir_version=limits.ir_version)
    conform(model, signature, exact=True)
    _remove_traces(model)
    if external_tensors(model) and not data_file(path).is_file():
        raise BuildError("the exporter scattered the weights over several files")
    path.write_bytes(model.SerializeToString(deterministic=True))
    return ()


def _check_ports(model: ModelProto, signature: Signature) -> None:
    found = {value.name: value for value in model.graph.input}
    for tensor in signature.inputs:
        if tensor.name not in found:
            value = model.graph.input.add(name=tensor.name)
            value.type.tensor_type.elem_type = BY_NUMPY[tensor.dtype].onnx
        else:
            _check_axes(found[tensor.name], tensor)
    order = [tensor.name for tensor in signature.inputs]
    values = sorted(model.graph.input, key=lambda value: order.index(value.name) if value.name in order else len(order))
    copies = [type(value).FromString(value.SerializeToString()) for value in values]
    del model.graph.input[:]
    model.graph.input.extend(copies)
    outputs = [value.name for value in model.graph.output]
    wanted = [tensor.name for tensor in signature.outputs]
    if [value.name for value in model.graph.input] != order or outputs != wanted:
        raise BuildError(f"the exporter named the outputs {outputs}, expected {wanted}")


def _check_axes(value: Any, tensor: Tensor) -> None:  # noqa: ANN401 - onnx.ValueInfoProto
    dims = value.type.tensor_type.shape.dim
    for axis in tensor.dynamic_axes:
        if len(dims) > axis and dims[axis].HasField("dim_value"):
            raise BuildError(
                f"the exporter fixed axis {tensor.shape[axis]!r} of {tensor.name!r} at {dims[axis].dim_value}"
            )


def _remove_traces(model: ModelProto) -> None:
    """Stack traces and texts with paths of this machine."""
    del model.metadata_props[:]
    for graph in graphs(model):
        del graph.metadata_props[:]
        for item in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
            del item.metadata_props[:]
            item.doc_string = ""
    for function in model.functions:
        del function.metadata_props[:]
        for node in function.node:
            del node.metadata_props[:]
            node.doc_string = ""


def _check_answers(path: Path, signature: Signature, requests: Sequence[Request]) -> None:
    """Every request through onnxruntime, compared with the network's own answer."""
    session = open_plain(path)
    names = [tensor.name for tensor in signature.outputs]
    got: list[dict[str, NDArray[np.generic]]] = []
    for request in requests:
        try:
            answer = run_plain(session, names, request.inputs)
        except Exception as error:
            shapes = ", ".join(str(list(array.shape)) for array in request.inputs.values())
            raise BuildError(f"its result does not run on inputs {shapes}: {short(error)}") from error
        got.append(dict(zip(names, answer, strict=True)))
    half = any(tensor.dtype in ("float16", "bfloat16") for tensor in signature.tensors)
    limit, cosine = (MAX_ERROR_HALF, MIN_COSINE_HALF) if half else (MAX_ERROR, MIN_COSINE)
    for found in compare_outputs(signature, [request.outputs for request in requests], got):
        wrong = found.max_relative > limit or found.cosine < cosine or found.mismatches or found.new_nonfinite
        if found.problem or wrong:
            seen = found.problem or (
                f"largest error {found.max_relative:.2g} of the largest value, cosine {found.cosine:.5f}, "
                f"{found.mismatches} unequal, {found.new_nonfinite} new NaN or Inf"
            )
            raise BuildError(f"its result answers differently at output {found.name!r}: {seen}")


def _reason(error: BaseException) -> str:
    """One line: torch's exporters wrap the telling line in advice and colours."""
    if isinstance(error, BuildRepoError):
        return error.message
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    text = re.sub(r"\x1b\[\d+m", "", str(cause))
    return f"{type(cause).__name__}: {short(text)}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Exporters print and warn a lot: their words go to the debug log."""
    said = io.StringIO()
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "torch.fx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if said.getvalue().strip():
            get_logger().debug("%s", said.getvalue().strip())
