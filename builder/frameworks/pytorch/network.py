"""A network in PyTorch: run with numpy arrays, outputs flattened and named, exported to ONNX."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.errors import SpecError
from builder.frameworks.pytorch.weights import import_torch
from builder.samples import Request
from builder.tensors import Dim, Signature, Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]

EXAMPLE = "inputs: [{name: image, dtype: float32, shape: [batch, 3, 224, 224]}]"


def check_inputs(inputs: Sequence[Tensor], what: str) -> None:
    """PyTorch files do not tell their inputs.

    Raises:
        SpecError: the spec does not either, or asks for strings.
    """
    if not inputs:
        raise SpecError(
            f"{what} does not tell its inputs; the spec has to",
            remedy=f"add for example {EXAMPLE}, or --input image:float32:batch,3,224,224",
        )
    for tensor in inputs:
        if tensor.dtype == "string":
            raise SpecError(f"inputs: {tensor.name!r} is a string; PyTorch has no string tensors")


@dataclass(frozen=True, slots=True)
class CallForm:
    """How `forward` is called: by position, or by `names`; `constants` are keyword arguments that never change."""

    names: tuple[str, ...] | None
    constants: dict[str, Any]

    def call(self, network: Any, arguments: Sequence[Any]) -> Any:  # noqa: ANN401 - whatever the network returns
        """The network's answer."""
        if self.names is None:
            return network(*arguments, **self.constants)
        return network(**dict(zip(self.names, arguments, strict=True)), **self.constants)


class TorchNetwork:
    """A network in PyTorch on the CPU, in evaluation mode."""

    def __init__(  # noqa: PLR0913 - what the five formats differ in
        self,
        network: Any,  # noqa: ANN401 - torch.nn.Module
        inputs: tuple[Tensor, ...],
        wanted: tuple[str, ...],
        *,
        notes: tuple[str, ...] = (),
        constants: Mapping[str, Any] | None = None,
        archive: Path | None = None,
    ) -> None:
        """`archive` is the TorchScript file that `network` came from."""
        self.inputs = inputs
        self.parameters: int | None = sum(weight.numel() for weight in network.parameters())
        self._network = network.eval()
        self._wanted = wanted
        self._notes = notes
        self._archive = archive
        self._chosen: tuple[int, ...] = ()
        self._names: tuple[str, ...] | None = None
        names = tuple(tensor.name for tensor in inputs) if _takes_keywords(network, inputs) else None
        self._form = CallForm(names, dict(constants or {}))

    @property
    def output_names(self) -> tuple[str, ...] | None:
        """Known from the first run on."""
        return self._names

    @property
    def declared_shapes(self) -> Mapping[str, tuple[Dim | None, ...]]:
        """Nothing: only running tells."""
        return {}

    def run(self, inputs: Arrays) -> tuple[NDArray[np.generic], ...]:
        """The network's own answer, flattened."""
        torch = import_torch()
        arguments = [to_torch(inputs[tensor.name]) for tensor in self.inputs]
        with torch.no_grad():
            answer = self._form.call(self._network, arguments)
        found = list(flatten(answer))
        if self._names is None:
            self._names, self._chosen = choose_outputs([name for name, _ in found], self._wanted)
        return tuple(to_numpy(found[place][1]) for place in self._chosen)

    def to_onnx(
        self, path: Path, *, signature: Signature, requests: Sequence[Request], opset: int, ir_version: int
    ) -> tuple[str, tuple[str, ...]]:
        """The first exporter whose result answers like the network."""
        from builder.frameworks.pytorch.export import export_network
        from builder.onnx_tools.exported import Limits

        flat = _flat_module(self._network, self._form, self._chosen)
        route, notes = export_network(
            flat, path, signature=signature, requests=requests, limits=Limits(opset, ir_version)
        )
        return route, (*self._notes, *notes)

    def to_torchscript(
        self, path: Path, *, signature: Signature, requests: Sequence[Request]
    ) -> tuple[str, tuple[str, ...]]:
        """The user's own archive where Triton's backend takes it, else the network compiled, else traced."""
        from builder.frameworks.pytorch.export import pick_example
        from builder.frameworks.pytorch.torchscript import Callee, Writer, copy_archive, network_routes, script_by

        flat = _flat_module(self._network, self._form, self._chosen)
        callee = Callee(self._network, self._form, self._chosen, flat)
        routes = network_routes(callee, signature, pick_example(requests, signature))
        archive = self._archive
        if archive is not None and not self._form.constants:
            copied: dict[str, Writer] = {"copy": lambda file: copy_archive(archive, signature, file)}
            routes = copied | routes
        route, notes = script_by(routes, path, signature, requests)
        return route, (*self._notes, *notes)


def _flat_module(network: Any, form: CallForm, chosen: Sequence[int]) -> Any:  # noqa: ANN401
    """The network behind positional arguments and a flat tuple of outputs, as exporters want it."""
    torch = import_torch()

    class Flat(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, *arguments: Any) -> tuple[Any, ...]:  # noqa: ANN401
            values = [value for _, value in flatten(form.call(self.network, arguments))]
            return tuple(values[place] for place in chosen)

    return Flat().eval()


def _takes_keywords(network: Any, inputs: Sequence[Tensor]) -> bool:  # noqa: ANN401
    """True when every input is the name of an argument of `forward`."""
    if hasattr(network, "graph") and hasattr(network, "schema"):
        return False
    try:
        parameters = inspect.signature(network.forward).parameters
    except (TypeError, ValueError):
        return False
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return all(tensor.name in parameters and parameters[tensor.name].kind in kinds for tensor in inputs)


def flatten(answer: Any, name: str = "") -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    """The tensors in an answer with the keys that lead to them; None is skipped.

    Raises:
        SpecError: something in it is no tensor.
    """
    torch = import_torch()
    if answer is None:
        return
    if isinstance(answer, torch.Tensor):
        yield name, answer
    elif isinstance(answer, Mapping):
        for key, value in answer.items():
            yield from flatten(value, f"{name}_{key}" if name else str(key))
    elif isinstance(answer, (tuple, list)):
        fields = getattr(answer, "_fields", None)
        for place, value in enumerate(answer):
            key = fields[place] if fields else (str(place) if name else "")
            yield from flatten(value, "_".join(part for part in (name, key) if part))
    else:
        where = f" {name!r}" if name else ""
        raise SpecError(
            f"the network's output{where} is a {type(answer).__name__}, not a tensor",
            remedy="wrap the network so that it returns tensors, in tuples, lists or dicts",
        )


def choose_outputs(found: Sequence[str], wanted: Sequence[str]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names of the served outputs and their places in the answer.

    Raises:
        SpecError: the spec names another number of outputs than the network returns.
    """
    named = all(found) and len(set(found)) == len(found)
    if named and wanted and set(wanted) <= set(found):
        return tuple(wanted), tuple(found.index(name) for name in wanted)
    places = tuple(range(len(found)))
    if wanted:
        if len(wanted) != len(found):
            shown = f" ({', '.join(found)})" if named else ""
            raise SpecError(
                f"outputs: got {len(wanted)} names ({', '.join(wanted)}); the network returns {len(found)}{shown}",
                remedy="name all of them in their order" + (", or choose among those names" if named else ""),
            )
        return tuple(wanted), places
    if named:
        return tuple(found), places
    return (("output",) if len(found) == 1 else tuple(f"output_{place}" for place in places)), places


def to_torch(array: NDArray[np.generic]) -> Any:  # noqa: ANN401 - torch.Tensor
    """A tensor with its own memory; bfloat16 by its bits, which numpy knows only through ml_dtypes."""
    import numpy as np

    torch = import_torch()
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(np.array(array, copy=True))


def to_numpy(value: Any) -> NDArray[np.generic]:  # noqa: ANN401 - torch.Tensor
    """An array with its own memory."""
    torch = import_torch()
    value = value.detach().cpu()
    if value.is_sparse or value.is_quantized:
        value = value.to_dense() if value.is_sparse else value.dequantize()
    value = value.resolve_conj().resolve_neg().contiguous()
    if value.dtype == torch.bfloat16:
        import ml_dtypes

        bits: NDArray[np.generic] = value.view(torch.int16).numpy().copy()
        return bits.view(ml_dtypes.bfloat16)
    array: NDArray[np.generic] = value.numpy().copy()
    return array
