"""What an exporter wrote: its names, shapes and versions made those of the signature, and its answers judged."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from builder.compare import compare_outputs
from builder.errors import BuildError, BuildRepoError
from builder.log import get_logger
from builder.onnx_tools.conform import conform
from builder.onnx_tools.limits import fit_limits, foreign_operators
from builder.onnx_tools.reading import ModelProto, graphs, opset_of, read_onnx, short
from builder.onnx_tools.running import open_plain, run_plain
from builder.onnx_tools.writing import settle_data, write_onnx
from builder.tensors import BY_NUMPY, Signature, Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WISHED_OPSET: Final = 18
"""What the exporters know best and every supported release loads."""
MAX_ERROR: Final = 1e-3
MIN_COSINE: Final = 0.9999
MAX_ERROR_HALF: Final = 2e-2
MIN_COSINE_HALF: Final = 0.999

NO_OPERATOR: Final = "ONNX has no operator for"
Exporter = Callable[[Path], None]
Run = Callable[[Mapping[str, Any]], Sequence[Any]]
"""Arrays by name → outputs in the signature's order."""


class Answered(Protocol):
    """A request with the source's answer."""

    @property
    def inputs(self) -> Mapping[str, NDArray[np.generic]]: ...

    @property
    def outputs(self) -> Mapping[str, NDArray[np.generic]]: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """The highest opset and IR version that the target release loads."""

    opset: int
    ir_version: int


def export_by(
    routes: Mapping[str, Exporter], path: Path, signature: Signature, requests: Sequence[Answered], limits: Limits
) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Write `path` by the first route whose result answers like the source.

    Returns the route's word (empty: none), why the ones before failed, and notes on the result.
    """
    reasons: list[str] = []
    present = set(path.parent.iterdir())
    for route, exporter in routes.items():
        try:
            with quiet():
                exporter(path)
            settle(path, signature, limits)
            check_answers(path, signature, requests)
        except (Exception, SystemExit) as error:
            get_logger().debug("the %s route failed", route, exc_info=True)
            reasons.append(f"{route}: {reason_of(error)}")
            for left in set(path.parent.iterdir()) - present:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            continue
        return route, tuple(reasons), tuple(f"exported by the {route} exporter, because {reason}" for reason in reasons)
    return "", tuple(reasons), ()


def settle(path: Path, signature: Signature, limits: Limits) -> None:
    """Names, shapes and versions as promised; no traces of this machine in the file.

    Raises:
        BuildError: the file has other ports, fixes an axis, or is beyond the limits.
    """
    model = read_onnx(path)
    _check_ports(model, signature)
    _check_operators(model)
    if opset_of(model) > limits.opset:
        raise BuildError(f"the exporter wrote opset {opset_of(model)}, the target release loads {limits.opset} at most")
    fit_limits(model, opset=limits.opset, ir_version=limits.ir_version)
    conform(model, signature, exact=True)
    _remove_traces(model)
    settle_data(model, path)
    write_onnx(model, path)


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
    if [value.name for value in model.graph.input] != order:
        raise BuildError(f"the exporter named the inputs {[value.name for value in model.graph.input]}, not {order}")
    if outputs != wanted:
        raise BuildError(f"the exporter named the outputs {outputs}, expected {wanted}")


def _check_axes(value: Any, tensor: Tensor) -> None:  # noqa: ANN401 - onnx.ValueInfoProto
    dims = value.type.tensor_type.shape.dim
    for axis in tensor.dynamic_axes:
        if len(dims) > axis and dims[axis].dim_value > 0:
            raise BuildError(
                f"the exporter fixed axis {tensor.shape[axis]!r} of {tensor.name!r} at {dims[axis].dim_value}"
            )


def _check_operators(model: ModelProto) -> None:
    """Exporters may leave an operator of the source's framework in the file."""
    foreign = foreign_operators(model)
    if foreign:
        raise BuildError(f"{NO_OPERATOR} {', '.join(foreign)}")


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


def check_answers(path: Path, signature: Signature, requests: Sequence[Answered]) -> None:
    """Every request through onnxruntime, compared with the source's own answer.

    Raises:
        BuildError: it does not run, or answers differently.
    """
    session = open_plain(path)
    names = [tensor.name for tensor in signature.outputs]
    judge_answers(lambda inputs: run_plain(session, names, inputs), signature, requests)


def judge_answers(run: Run, signature: Signature, requests: Sequence[Answered]) -> None:
    """Every request through what was written, in whatever library, compared with the source's own answer.

    Raises:
        BuildError: it does not run, or answers differently.
    """
    names = [tensor.name for tensor in signature.outputs]
    got: list[dict[str, NDArray[np.generic]]] = []
    for request in requests:
        try:
            answer = run(request.inputs)
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


def reason_of(error: BaseException) -> str:
    """One line: exporters wrap the telling line in advice and colours."""
    if isinstance(error, BuildRepoError):
        return error.message
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    text = re.sub(r"\x1b\[\d+m", "", str(cause))
    return f"{type(cause).__name__}: {short(text)}"


@contextlib.contextmanager
def quiet(loggers: Sequence[str] = ()) -> Iterator[None]:
    """Exporters print and warn a lot: their words go to the debug log."""
    said = io.StringIO()
    named = [logging.getLogger(name) for name in (*loggers, *LOUD)]
    levels = [logger.level for logger in named]
    for logger in named:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(named, levels, strict=True):
            logger.setLevel(level)
        if said.getvalue().strip():
            get_logger().debug("%s", said.getvalue().strip())


LOUD: Final = ("torch.onnx", "torch.export", "torch.fx", "onnxscript", "onnx_ir", "tf2onnx", "tensorflow", "absl")
"""Loggers that speak during an export."""
