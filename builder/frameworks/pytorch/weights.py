"""Weights into a network: open a state dict without running code, find it in its checkpoint, fit its names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from builder.errors import MachineError, SpecError
from builder.frameworks.pytorch.files import foreign_names, read_header, torch_kind
from builder.onnx_tools.reading import short

NESTED: Final = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "weights",
    "params",
    "module",
    "ema",
    "model_ema",
    "state_dict_ema",
    "ema_state_dict",
    "params_ema",
)
"""Keys under which training programs keep the state dict of a checkpoint, in the order of trust."""
PREFIXES: Final = ("module.", "_orig_mod.", "model.", "net.", "network.", "ema.")
"""What DataParallel, torch.compile and training frameworks put before every name."""
SHOWN: Final = 5
DEPTH: Final = 3
DTYPES: Final = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
    "BOOL": "bool",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}
"""safetensors' names of element types → torch's."""


def import_torch() -> Any:  # noqa: ANN401 - the module torch
    """Torch, or the line that installs it.

    Raises:
        MachineError: it is not installed or does not load.
    """
    try:
        import torch
    except (ImportError, OSError) as error:
        raise MachineError(
            f"this model needs PyTorch, which cannot be imported: {short(error)}",
            remedy="pip install 'build-repo[torch]'",
        ) from error
    return torch


def open_weights(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    """The content of the file on the CPU; no code in it runs.

    Raises:
        SpecError: a pickle, or a damaged file.
    """
    torch = import_torch()
    if torch_kind(path) == "safetensors":
        return _read_safetensors(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if _is_pickle(path, error):
            raise pickle_error(path) from error
        raise SpecError(
            f"{path.name} cannot be opened as PyTorch weights: {short(error)}",
            remedy="the file is cut off or is something else: save it again with torch.save(model.state_dict(), ...)",
        ) from error


def _is_pickle(path: Path, error: Exception) -> bool:
    return type(error).__name__ == "UnpicklingError" or torch_kind(path) == "pickle"


def pickle_error(path: Path) -> SpecError:
    """The refusal of a file whose opening would run code, with what it names."""
    names = foreign_names(path)
    holds = f" (it names {', '.join(names[:3])})" if names else ""
    return SpecError(
        f"{path.name} is a pickle{holds}, not a state dict: opening it can run any code, so it is refused",
        remedy="save torch.save(model.state_dict(), ...) instead; if you trust the file, write "
        "source: {path: ..., allow_pickle: true} in a spec",
    )


def _read_safetensors(path: Path) -> dict[str, Any]:
    torch = import_torch()
    header = read_header(path) or {}
    start = header.pop(" start")
    header.pop("__metadata__", None)
    content = bytearray(path.read_bytes())
    weights = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        dtype = getattr(torch, DTYPES.get(entry["dtype"], ""), None)
        if dtype is None or start + end > len(content):
            what = "is cut off" if dtype else f"has the unknown element type {entry['dtype']}"
            raise SpecError(f"{path.name}: tensor {name!r} {what}", remedy="copy or download the file again")
        if begin == end:
            weights[name] = torch.zeros(entry["shape"], dtype=dtype)
        else:
            count = (end - begin) // dtype.itemsize
            flat = torch.frombuffer(content, dtype=dtype, count=count, offset=start + begin)
            weights[name] = flat.clone().reshape(entry["shape"])
    return weights


def find_state_dict(content: Any, path: Path) -> tuple[dict[str, Any], tuple[str, ...]]:  # noqa: ANN401
    """The state dict inside a checkpoint, and notes on where it was.

    Raises:
        SpecError: there is none.
    """
    trail = []
    for _ in range(DEPTH):
        tensors = _tensors(content)
        nested = next(_nested(content), None)
        if nested is None or (tensors and len(tensors) * 2 > len(content)):
            break
        trail.append(nested)
        content = content[nested]
    tensors = _tensors(content)
    if not tensors:
        raise SpecError(
            f"{path.name} holds no state dict: {_seen(content)}",
            remedy="save it with torch.save(model.state_dict(), ...)",
        )
    notes = [f"state dict found under {'.'.join(trail)!r} of the checkpoint"] if trail else []
    return tensors, tuple(notes)


def _tensors(content: Any) -> dict[str, Any]:  # noqa: ANN401
    torch = import_torch()
    if not isinstance(content, Mapping):
        return {}
    return {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}


def _nested(content: Any) -> Iterator[str]:  # noqa: ANN401
    if isinstance(content, Mapping):
        for name in NESTED:
            if isinstance(content.get(name), Mapping) and content[name]:
                yield name


def _seen(content: Any) -> str:  # noqa: ANN401
    if isinstance(content, Mapping):
        keys = ", ".join(repr(str(key)) for key in list(content)[:SHOWN])
        return f"it is a dict with the keys {keys}" if keys else "it is an empty dict"
    return f"it is a {type(content).__name__}"


def load_weights(module: Any, weights: dict[str, Any], path: Path) -> tuple[str, ...]:  # noqa: ANN401
    """Load `weights` into the network, every name and shape checked; returns notes.

    Raises:
        SpecError: names or shapes that do not fit, the first five of each.
    """
    expected = module.state_dict()
    prefix, weights = _strip(weights, set(expected))
    _check_shapes(weights, expected, path)
    result = module.load_state_dict(weights, strict=False)
    missing = [name for name in result.missing_keys if not _tied(expected, name, weights)]
    if missing or result.unexpected_keys:
        raise _names_error(path, missing, list(result.unexpected_keys), expected)
    return (f"prefix {prefix!r} removed from the names of the weights",) if prefix else ()


def _strip(weights: dict[str, Any], expected: set[str]) -> tuple[str, dict[str, Any]]:
    """The weights without the prefix whose removal fits the network best."""
    best, chosen = "", weights
    for prefix in _prefixes(weights):
        stripped = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        rest = {name: value for name, value in weights.items() if not name.startswith(prefix)}
        candidate = {**rest, **stripped} if rest else stripped
        if len(expected & set(candidate)) > len(expected & set(chosen)):
            best, chosen = prefix, candidate
    return best, chosen


def _prefixes(weights: Mapping[str, Any]) -> Iterator[str]:
    """Known prefixes, and known ones one after another, that occur."""
    pending = [""]
    for _ in range(DEPTH):
        pending = [
            known + prefix
            for known in pending
            for prefix in PREFIXES
            if any(name.startswith(known + prefix) for name in weights)
        ]
        yield from pending


def _check_shapes(weights: Mapping[str, Any], expected: Mapping[str, Any], path: Path) -> None:
    wrong = [
        f"{name} is {list(value.shape)} in the file, {list(expected[name].shape)} in the network"
        for name, value in weights.items()
        if name in expected and hasattr(expected[name], "shape") and value.shape != expected[name].shape
    ]
    if wrong:
        raise SpecError(
            f"{path.name} does not fit the network: {len(wrong)} shapes differ: {'; '.join(wrong[:SHOWN])}",
            remedy="give the callable the arguments it was trained with (source: args:), e.g. the number of classes",
        )


def _tied(expected: Mapping[str, Any], name: str, weights: Mapping[str, Any]) -> bool:
    """A missing name that shares its memory with a loaded one (tied weights are often saved once)."""
    pointer = expected[name].data_ptr() if hasattr(expected[name], "data_ptr") else 0
    return bool(pointer) and any(expected[other].data_ptr() == pointer for other in weights if other in expected)


def _names_error(path: Path, missing: list[str], unexpected: list[str], expected: Mapping[str, Any]) -> SpecError:
    parts = [
        f"{len(names)} {what}: {', '.join(names[:SHOWN])}{' …' if len(names) > SHOWN else ''}"
        for what, names in (("missing", missing), ("unexpected", unexpected))
        if names
    ]
    hint = _prefix_hint(missing, unexpected)
    return SpecError(
        f"{path.name} does not fit the network ({len(expected)} weights): {'; '.join(parts)}",
        remedy=hint or "give the callable (source: model:, args:) that made these weights",
    )


def _prefix_hint(missing: list[str], unexpected: list[str]) -> str:
    for ours, theirs, text in (
        (missing, unexpected, "the file's names start with {!r}, the network's do not: save the inner module's"),
        (unexpected, missing, "the network's names start with {!r}, the file's do not: return the inner module of the"),
    ):
        if ours and theirs:
            prefix = next((name.removesuffix(ours[0]) for name in theirs if name.endswith("." + ours[0])), "")
            if prefix:
                end = "state dict" if ours is missing else "callable, or save the outer module's state dict"
                return f"{text.format(prefix)} {end}"
    return ""
