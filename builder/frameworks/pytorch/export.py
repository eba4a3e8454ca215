"""torch → ONNX: the dynamo exporter, the TorchScript exporter as fallback, each judged by what its result answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from builder.errors import BuildError
from builder.frameworks.pytorch.network import to_torch
from builder.onnx_tools.exported import WISHED_OPSET, Limits, export_by
from builder.onnx_tools.writing import EXTERNAL_FROM_BYTES
from builder.samples import Request
from builder.tensors import Signature

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
    example = pick_example(requests, signature)
    opset = min(limits.opset, WISHED_OPSET)
    routes = {route: partial(_export, route, network, signature, example, opset) for route in _routes(network)}
    return export_routes(routes, path, signature=signature, requests=requests, limits=limits)


def export_routes(
    routes: Mapping[str, Callable[[Path], None]],
    path: Path,
    *,
    signature: Signature,
    requests: Sequence[Request],
    limits: Limits,
) -> tuple[str, tuple[str, ...]]:
    """As `export_by`.

    Raises:
        BuildError: no route leads there; all reasons.
    """
    route, reasons, notes = export_by(routes, path, signature, requests, limits)
    if not route:
        raise BuildError(
            f"PyTorch could not export the model to ONNX. {' | '.join(reasons)}",
            remedy="add the target pytorch:fp32, which needs no ONNX; or export it to ONNX yourself and give the .onnx "
            "file, or fix the axes in inputs: that cannot vary",
        )
    return route, notes


def _export(  # noqa: PLR0913, PLR0917 - an exporter's whole question
    route: str,
    network: Any,  # noqa: ANN401
    signature: Signature,
    example: Request,
    opset: int,
    path: Path,
) -> None:
    ROUTES[route](network, path, signature, example, opset)


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


def trace_to_onnx(network: Any, path: Path, signature: Signature, example: Request, opset: int) -> None:  # noqa: ANN401
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


ROUTES: Final[dict[str, Exporter]] = {"dynamo": _dynamo, "torchscript": trace_to_onnx}
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
