"""Stored requests: from an `.npz`, or from the samples in a repository that build-repo made.

An `.npz` holds either arrays named like the inputs (one request), or `INDEX/INPUT` for several requests with `rows`
(rows of each, 0: no batch axis), `rows_proven` where the rows of a request are known not to change each other's answers
and, for a model with states, `sequence` (the sequence that each is a step of, in order). Strings are unicode, or all
their bytes with `lengths/NAME` beside them; bfloat16 is its bits as uint16. Requests of more rows than the model's
max_batch_size are cut.
The right answers, where they are known, are `expected/OUTPUT` beside the one request, or `expected/INDEX/OUTPUT`.
A model with a sequence batcher is sent sequences; where the payload knows none, each request is one of a single step.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from expected import Bounds, Expected, expected_answers
from payloads import Port, PreparedRequest, Served, as_dims, flagged, refuse_above_limit, wire

MANIFEST = "build-repo.json"
SAMPLES = "reference.npz"
LENGTHS = "lengths/"
ROWS_PROVEN = "rows_proven"
EXPECTED = "expected/"

Arrays = dict[str, np.ndarray]
Group = tuple[int, Arrays, int | None]
"""Number of a stored request, its inputs by name, its rows as far as the file tells."""


def stored_requests(model: Served, arrays: Arrays, rows: int = 0) -> list[PreparedRequest]:
    """The requests of one model, cut to what the server takes, or made of `rows` rows each.

    Raises:
        ValueError: the arrays are not the model's inputs.
    """
    groups = groups_of(model, arrays)
    if not rows:
        requests = [piece for group in groups for piece in cut(group, model)]
    elif model.limit:
        requests = [resized(group, rows, model) for group in groups]
    else:
        requests = of_rows(groups, rows, model, proven=ROWS_PROVEN in arrays)
    return flagged(requests, arrays.get("sequence")) if model.stateful else requests


def groups_of(model: Served, arrays: Arrays) -> list[Group]:
    """The stored requests in order.

    Raises:
        ValueError: the arrays are not the model's inputs.
    """
    names = {port["name"] for port in model.inputs}
    return [(0, arrays, None)] if names <= set(arrays) else grouped(arrays, names)


def stored_answers(model: Served, arrays: Arrays, bounds: Bounds) -> Expected | None:
    """The right answers that lie beside the requests; None where there are none.

    Raises:
        ValueError: they are those of another model.
    """
    answers: dict[int, Arrays] = {}
    for key in arrays:
        if key.startswith(EXPECTED):
            index, slash, name = key.removeprefix(EXPECTED).partition("/")
            numbered = bool(slash) and index.isdigit()
            place, output = (int(index), name) if numbered else (0, key.removeprefix(EXPECTED))
            answers.setdefault(place, {})[output] = arrays[key]
    if not answers:
        return None
    first = model.inputs[0]["name"]
    rows = {
        index: (len(group[first]) if model.limit else 0) if known is None else known
        for index, group, known in groups_of(model, arrays)
    }
    return expected_answers(model, answers, rows, bounds)


def read_payload(model: str, payloads: Sequence[str], repository: str) -> Arrays | None:
    """The arrays of `--payload` for this model, else those of the repository; None where there are none.

    Raises:
        ValueError: there is no such repository.
    """
    if repository and not Path(repository).is_dir():
        raise ValueError(f"--repository {repository}: no such folder")
    for payload in payloads:
        name, _, file = payload.rpartition("=")
        if name in ("", model):
            with np.load(file, allow_pickle=False) as found:
                return unpacked({key: found[key] for key in found.files})
    return _of_repository(Path(repository), model) if repository else None


def _of_repository(repository: Path, model: str) -> Arrays | None:
    """The samples lie by the place of each input in the manifest's signature."""
    file, record = repository / model / SAMPLES, _record(repository, model)
    if record is None or not file.is_file():
        return None
    sides = {"in": "inputs", "out": "outputs"}
    names = {side: [tensor["name"] for tensor in record["signature"][word]] for side, word in sides.items()}
    with np.load(file, allow_pickle=False) as found:
        known = {stored: _renamed(stored, names) for stored in found.files}
        arrays = unpacked({key: found[stored] for stored, key in known.items() if key})
    return arrays | ({ROWS_PROVEN: np.asarray(True)} if _rows_proven(repository, model) else {})


def _record(repository: Path, model: str) -> dict[str, Any] | None:
    """What the manifest says of the model or ensemble that is served from this folder."""
    if not (repository / MANIFEST).is_file():
        return None
    manifest = json.loads((repository / MANIFEST).read_text(encoding="utf-8"))
    records: list[dict[str, Any]] = [*manifest["models"].values(), *manifest.get("ensembles", {}).values()]
    return next((item for item in records if model in {served["folder"] for served in item["served"]}), None)


def _target_of(record: Mapping[str, Any], model: str) -> dict[str, Any]:
    """What the manifest says of the target in this folder; empty for an ensemble, which has none."""
    name = next(served.get("target") for served in record["served"] if served["folder"] == model)
    return next((item for item in record.get("targets", []) if item["target"] == name), {})


def _rows_proven(repository: Path, model: str) -> bool:
    """Whether the build saw rows of a batch get the answers that they get alone; of an ensemble, in every member."""
    record = _record(repository, model)
    if record is None:
        return False
    if steps := record.get("steps"):
        return all(_rows_proven(repository, step["member"]) for step in steps)
    numbers = _target_of(record, model).get("numbers") or {}
    return bool(numbers.get("batch", {}).get("proven"))


def bounds_of(model: str, repository: str, max_relative_error: float | None) -> Bounds:
    """What the build asked of the answers of this folder, or the user's word."""
    record = _record(Path(repository), model) if repository else None
    gates: dict[str, Any] = {}
    if record is not None:
        gates = _target_of(record, model).get("gates") or record["gates"]
    known = {name: gates[name] for name in ("max_relative_error", "max_mismatch_share") if name in gates}
    return Bounds(**known | ({} if max_relative_error is None else {"max_relative_error": max_relative_error}))


def unpacked(arrays: Mapping[str, np.ndarray]) -> Arrays:
    """With the strings that are stored as all their bytes and, under `lengths/NAME`, their lengths."""
    found = {name: array for name, array in arrays.items() if not name.startswith(LENGTHS)}
    for key in arrays.keys() - found.keys():
        lengths, whole = arrays[key], arrays[key.removeprefix(LENGTHS)].tobytes()
        ends = np.cumsum(lengths.ravel()).tolist()
        texts = np.empty(lengths.size, dtype=np.object_)
        texts[:] = [whole[end - size : end] for size, end in zip(lengths.ravel().tolist(), ends, strict=True)]
        found[key.removeprefix(LENGTHS)] = texts.reshape(lengths.shape)
    return found


def _renamed(key: str, names: Mapping[str, Sequence[str]]) -> str:
    """`INDEX.in.PLACE` as `INDEX/NAME`, `INDEX.out.PLACE` as `expected/INDEX/NAME`; empty for what is neither."""
    prefix = LENGTHS if key.startswith(LENGTHS) else ""
    index, side, place = [*key.removeprefix(prefix).split("."), "", ""][:3]
    if side in names:
        return f"{prefix}{EXPECTED if side == 'out' else ''}{index}/{names[side][int(place)]}"
    return key if key in ("rows", "sequence") else ""


def grouped(arrays: Mapping[str, np.ndarray], names: set[str]) -> list[Group]:
    """`INDEX/INPUT` → requests in order."""
    found: dict[int, Arrays] = {}
    for key, array in arrays.items():
        index, slash, name = key.partition("/")
        if slash and index.isdigit() and name in names:
            found.setdefault(int(index), {})[name] = array
    rows = arrays.get("rows")
    for number, group in sorted(found.items()):
        if set(group) != names:
            raise ValueError(f"request {number} of the payload lacks {sorted(names - set(group))}")
    if not found:
        raise ValueError(f"the payload has the arrays {sorted(arrays)}; the model's inputs are {sorted(names)}")
    return [(index, found[index], None if rows is None else int(rows[index])) for index in sorted(found)]


def cut(group: Group, model: Served) -> list[PreparedRequest]:
    """Pieces of at most max_batch_size rows; whole where the server does not batch."""
    source, _, rows = group
    whole = _ports(group, model)
    if model.limit == 0:
        return [PreparedRequest(whole, rows or 0, source=source)]
    total = whole[0].array.shape[0]
    return [
        PreparedRequest(
            tuple(Port(port.name, port.datatype, port.array[first : first + model.limit]) for port in whole),
            min(model.limit, total - first),
            source=source,
            first_row=first,
        )
        for first in range(0, total, model.limit)
    ]


def resized(group: Group, rows: int, model: Served) -> PreparedRequest:
    """The request with `rows` rows: its own, again and again where it has fewer.

    Raises:
        ValueError: the model does not take so many.
    """
    refuse_above_limit(model, rows)
    ports = tuple(
        Port(port.name, port.datatype, np.take(port.array, np.arange(rows) % len(port.array), axis=0))
        for port in _ports(group, model)
    )
    return PreparedRequest(ports, rows, source=group[0])


def of_rows(groups: Sequence[Group], rows: int, model: Served, *, proven: bool) -> list[PreparedRequest]:
    """For a model that the server does not batch: the stored requests of so many rows, else all of them resized.

    Raises:
        ValueError: nothing says where the rows are, or that they may be taken apart.
    """
    same = [group for group in groups if group[2] == rows]
    if same and (not model.stateful or len(same) == len(groups)):
        return [PreparedRequest(_ports(group, model), rows, source=group[0]) for group in same]
    reason = next((text for group in groups if (text := _why_whole(group, rows, model))), "")
    known = sorted({group[2] for group in groups if group[2]})
    if not reason and (model.stateful or not proven):
        reason = "nothing proves that rows of one request do not change each other's answers"
    if not reason:
        return [resized(group, rows, model) for group in groups]
    stored = " or ".join(f"{model.model}@{size}" for size in known)
    remedy = f"write {model.model} alone" + (f", or one of the sizes that are stored: {stored}" if known else "")
    raise ValueError(f"model {model.model} cannot be sent requests of {rows} rows: {reason}; {remedy}")


def _why_whole(group: Group, rows: int, model: Served) -> str:
    """Why a request to a model that the server does not batch cannot have other rows; empty where it can."""
    number, _, known = group
    if not known:
        return "the server takes whole requests (max_batch_size 0), and nothing says which axis of them is the rows"
    for port, served in zip(_ports(group, model), model.inputs, strict=True):
        if port.array.shape[0] != known:
            return f"input {port.name} of stored request {number} has not its {known} rows on the first axis"
        if int((served.get("shape") or [-1])[0]) not in (-1, rows):
            return f"the server takes input {port.name} as {served['shape']}"
    return ""


def _ports(group: Group, model: Served) -> tuple[Port, ...]:
    arrays = {name: as_dims(name, array, model) for name, array in group[1].items()}
    return tuple(
        Port(port["name"], port["datatype"], wire(fitted(arrays, port), port["datatype"])) for port in model.inputs
    )


def fitted(group: Mapping[str, np.ndarray], port: Mapping[str, Any]) -> np.ndarray:
    """A vector of rows travels as [N, 1] where the server batches.

    Raises:
        ValueError: the array has another rank than the server takes.
    """
    array, shape = group[port["name"]], [int(dim) for dim in port.get("shape", [])]
    if array.ndim == 1 and shape == [-1, 1]:
        return array.reshape(-1, 1)
    if shape and max(1, array.ndim) != len(shape):
        raise ValueError(f"input {port['name']} has the shape {list(array.shape)}; the server takes {shape}")
    return array
