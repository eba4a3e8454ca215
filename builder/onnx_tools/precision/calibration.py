"""The calibration table: the range of every tensor that int8 needs, measured once on the calibration rows.

A table is plain JSON, so it can be read, kept and carried to another machine. It is found again by what decides it: the
graph, the rows, the calibrator and the tensors.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from builder.digests import file_digest
from builder.errors import BuildError
from builder.measurement import CALIBRATION_TABLE
from builder.onnx_tools.exported import quiet
from builder.onnx_tools.files import link_file
from builder.onnx_tools.precision import CalibrationSet
from builder.onnx_tools.reading import ModelProto, short, source_files
from builder.onnx_tools.values import open_exposed
from builder.records import read_record, write_record
from builder.tensors import BY_NUMPY, Signature

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]
    Arrays = Mapping[str, NDArray[np.generic]]

MATRIX: Final = 2
HELD: Final = 32
"""Tensors of one request held at a time: all activations of a large network do not fit into memory."""
BINS: Final = {"entropy": 512, "percentile": 2048}
QUANTIZED_BINS: Final = 128
PERCENTILE: Final = 99.999
DEAD_SHARE: Final = 0.5
"""Where more than this share of the tensors never leaves one value, the samples excite nothing."""
GIVE_REAL: Final = "give real inputs, as the model will see them, with samples: {path: samples.npz}"


@dataclass(frozen=True, slots=True)
class CalibrationTable:
    """`ranges`: tensor → (lowest, highest) that int8 must represent; measured on `rows` rows.

    `means`: tensor → the mean of each channel (axis 1), for what convolutions and products with a bias read.
    """

    calibrator: str
    rows: int
    ranges: dict[str, tuple[float, float]]
    means: dict[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Calibration:
    """How a table is measured: on `model`, which will be quantised and was made of the file `origin`.

    `tensors` need a range, `averaged` (a part of them) the means of their channels too.
    """

    model: ModelProto
    origin: Path
    samples: CalibrationSet
    signature: Signature
    calibrator: str
    tensors: tuple[str, ...]
    averaged: tuple[str, ...]


def read_table(job: Calibration, shared: Path, out: Path) -> CalibrationTable:
    """The table, from the cache in `shared` or measured now; a copy goes to `out`, beside the quantised model.

    Raises:
        BuildError: the samples cannot calibrate, or the model does not run on them.
    """
    cached = shared / "calibration" / f"{_key(job)}.json"
    if not cached.exists():
        cached.parent.mkdir(parents=True, exist_ok=True)
        part = cached.with_suffix(f".{os.getpid()}.part")
        write_record(part, _measure(job))
        part.replace(cached)
    copy = out / CALIBRATION_TABLE
    copy.unlink(missing_ok=True)
    link_file(cached, copy)
    return read_record(CalibrationTable, cached)


def _key(job: Calibration) -> str:
    from importlib.metadata import version

    parts = {
        "model": [file_digest(path) for path in source_files(job.origin)],
        "samples": job.samples.digest,
        "calibrator": [job.calibrator, BINS.get(job.calibrator), QUANTIZED_BINS, PERCENTILE],
        "tensors": [list(job.tensors), list(job.averaged)],
        "libraries": [version("onnxruntime"), version("numpy")],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _measure(job: Calibration) -> CalibrationTable:
    _check_inputs(job.samples, job.signature)
    collector = _Ranges() if job.calibrator == "minmax" else _Histograms(job.calibrator)
    averages, averaged = _Means(), frozenset(job.averaged)
    for name, array in _values(job):
        _check_finite(name, array)
        collector.add(name, array)
        if name in averaged:
            averages.add(name, array)
    ranges = collector.ranges()
    _check_ranges(ranges)
    ordered = {name: ranges[name] for name in sorted(ranges)}
    return CalibrationTable(job.calibrator, job.samples.rows, ordered, averages.means())


def _values(job: Calibration) -> Iterator[tuple[str, Array]]:
    """Every tensor's value on every request, a few at a time."""
    session = open_exposed(job.model, job.origin.parent)
    ports = {port.name for port in session.get_inputs()}
    inner = [name for name in job.tensors if name not in ports]
    for inputs in job.samples.requests:
        yield from ((name, inputs[name]) for name in job.tensors if name in ports)
        for start in range(0, len(inner), HELD):
            names = inner[start : start + HELD]
            try:
                values = session.run(names, dict(inputs))
            except Exception as error:
                raise BuildError(f"the model does not run on the calibration samples: {short(error)}") from error
            yield from zip(names, values, strict=True)


class _Ranges:
    """The smallest and the largest value seen."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, float]] = {}

    def add(self, name: str, array: Array) -> None:
        if not array.size:
            return
        low, high = float(array.min()), float(array.max())
        known = self._seen.get(name, (low, high))
        self._seen[name] = (min(low, known[0]), max(high, known[1]))

    def ranges(self) -> dict[str, tuple[float, float]]:
        return dict(self._seen)


class _Means:
    """The mean of every channel, over all rows and places."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[NDArray[np.float64], int]] = {}

    def add(self, name: str, array: Array) -> None:
        if array.ndim < MATRIX or not array.size:
            return
        import numpy as np

        others = tuple(axis for axis in range(array.ndim) if axis != 1)
        total, count = self._sums.get(name, (np.zeros(array.shape[1]), 0))
        self._sums[name] = (total + array.sum(axis=others, dtype=np.float64), count + array.size // array.shape[1])

    def means(self) -> dict[str, tuple[float, ...]]:
        """Rounded to what a float32 holds, so that tables stay small."""
        return {
            name: tuple(float(f"{value:.7g}") for value in total / count)
            for name, (total, count) in sorted(self._sums.items())
        }


class _Histograms:
    """onnxruntime's histograms, fed one tensor at a time, and its two ways to cut their tails."""

    def __init__(self, method: str) -> None:
        from onnxruntime.quantization.calibrate import HistogramCollector

        self._collector: Any = HistogramCollector(
            method=method,
            symmetric=False,
            num_bins=BINS[method],
            num_quantized_bins=QUANTIZED_BINS,
            percentile=PERCENTILE,
            scenario="same",
        )

    def add(self, name: str, array: Array) -> None:
        if array.size:
            with quiet():
                self._collector.collect({name: array})

    def ranges(self) -> dict[str, tuple[float, float]]:
        import numpy as np

        # A bin without a single value is nothing to worry about: its share of the divergence is zero.
        with quiet(), np.errstate(all="ignore"):
            found = self._collector.compute_collection_result()
        return {name: (float(cut[0]), float(cut[1])) for name, cut in found.items()}


def _check_inputs(samples: CalibrationSet, signature: Signature) -> None:
    """Inputs of floats that hold one value everywhere, in more than a number a row, are placeholders.

    Raises:
        BuildError: some are, or hold NaN or infinities.
    """
    still = []
    for tensor in signature.inputs:
        if not BY_NUMPY[tensor.dtype].is_float:
            continue
        arrays = [inputs[tensor.name] for inputs in samples.requests]
        for array in arrays:
            _check_finite(tensor.name, array)
        values = {float(value) for array in arrays if array.size for value in (array.min(), array.max())}
        if len(values) == 1 and sum(array.size for array in arrays) > samples.rows:
            still.append((tensor.name, values.pop()))
    if still:
        shown = ", ".join(f"{name!r} is {value:g} in every element" for name, value in still)
        raise BuildError(f"the calibration samples hold nothing to measure ranges on: {shown}", remedy=GIVE_REAL)
    if samples.rows > 1 and _all_equal(samples, signature):
        raise BuildError(
            f"the {samples.rows} calibration samples are {samples.rows} times the same one, which tells no ranges",
            remedy=GIVE_REAL,
        )


def _all_equal(samples: CalibrationSet, signature: Signature) -> bool:
    """Whether every row of every input is the first one again."""
    import numpy as np

    def rows(array: Array) -> Array:
        return array if signature.has_batch_axis else array[np.newaxis]

    first = samples.requests[0]
    return all(
        rows(inputs[tensor.name]).shape[1:] == rows(first[tensor.name]).shape[1:]
        and bool((rows(inputs[tensor.name]) == rows(first[tensor.name])[:1]).all())
        for tensor in signature.inputs
        for inputs in samples.requests
    )


def _check_finite(name: str, array: Array) -> None:
    import numpy as np

    if array.dtype.kind == "f" and array.size and not (np.isfinite(array.min()) and np.isfinite(array.max())):
        raise BuildError(
            f"tensor {name!r} holds NaN or infinities on the calibration samples: it has no range",
            remedy="remove the rows of samples: on which the model gives NaN, or keep int8 out of the targets",
        )


def _check_ranges(ranges: Mapping[str, tuple[float, float]]) -> None:
    dead = [name for name, (low, high) in ranges.items() if low == high]
    if len(dead) > DEAD_SHARE * len(ranges):
        shown = ", ".join(repr(name) for name in dead[:3])
        raise BuildError(
            f"{len(dead)} of {len(ranges)} tensors hold one value on all calibration samples ({shown}, …): the samples "
            "excite nothing",
            remedy=GIVE_REAL,
        )
