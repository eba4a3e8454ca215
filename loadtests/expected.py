"""Whether answers are right, for the Locust file alone; `build-repo loadtest` compares afterwards, by more gates.

The right answers lie in the payload, or in a repository that build-repo made. They hold by two bounds: how far a number
may be off, relative to the largest magnitude of that output over all stored requests, and how many integers or strings
of an answer may differ.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from payloads import PreparedRequest, Served, as_dims, wire

MAX_RELATIVE_ERROR = 0.01
FLOATS = ("FP16", "FP32", "FP64", "BF16")

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Bounds:
    """Of one answer."""

    max_relative_error: float = MAX_RELATIVE_ERROR
    max_mismatch_share: float = 0.0


@dataclass(frozen=True)
class Expected:
    """The right answers of one model: by the number of the stored request, with the rows of each."""

    answers: Mapping[int, Arrays]
    rows: Mapping[int, int]
    bounds: Bounds = Bounds()

    @property
    def scales(self) -> dict[str, float]:
        """Per output of numbers the largest finite magnitude over all requests."""
        found: dict[str, float] = {}
        for answer in self.answers.values():
            for name, array in answer.items():
                if array.dtype.kind == "f":
                    finite = np.abs(array[np.isfinite(array)])
                    found[name] = max(found.get(name, 0.0), float(finite.max(initial=0.0)))
        return found

    def of(self, request: PreparedRequest) -> Arrays | None:
        """What is right for a request that holds some rows of a stored one; None where it is not known."""
        whole = self.answers.get(request.source)
        total = self.rows.get(request.source, 0)
        if whole is None or not total or not request.rows or (request.first_row == 0 and request.rows == total):
            return whole
        chosen = (request.first_row + np.arange(request.rows)) % total
        return {name: np.take(array, chosen, axis=0) for name, array in whole.items()}


def expected_answers(model: Served, answers: Mapping[int, Arrays], rows: Mapping[int, int], bounds: Bounds) -> Expected:
    """The stored arrays as numbers that can be compared, and only what the server answers.

    Raises:
        ValueError: an output that the model does not have.
    """
    types = dict(zip(model.outputs, model.output_types, strict=True))
    if unknown := {name for arrays in answers.values() for name in arrays} - types.keys():
        raise ValueError(f"expected answers {sorted(unknown)}; the outputs of model {model.model} are {sorted(types)}")
    typed = {
        index: {name: as_dims(name, _comparable(array, types[name]), model) for name, array in arrays.items()}
        for index, arrays in answers.items()
    }
    return Expected(typed, rows, bounds)


def _comparable(array: np.ndarray, datatype: str) -> np.ndarray:
    if datatype == "BF16" and array.dtype == np.uint16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return wire(array, datatype) if datatype == "BYTES" else array


class Checker:
    """Compares some of the answers as they come: `per_s` of this process, so that comparing costs the load little."""

    def __init__(self, expected: Mapping[str, Expected], per_s: float) -> None:
        self.expected = expected if per_s else {}
        self.scales = {model: known.scales for model, known in self.expected.items()}
        self.pause_s = 1 / per_s if per_s else 0.0
        self.next_s = 0.0
        self.compared = self.wrong = 0

    def offer(self, model: str, request: PreparedRequest, answer: Any) -> str:  # noqa: ANN401
        """What is wrong with the answer, in the same words each time; empty for a right one and one not looked at."""
        known, now = self.expected.get(model), time.perf_counter()
        right = known.of(request) if known is not None and now >= self.next_s else None
        if known is None or right is None:
            return ""
        self.next_s = now + self.pause_s
        self.compared += 1
        for name, array in right.items():
            what, figures = difference(array, answer.as_numpy(name), self.scales[model].get(name, 0.0), known.bounds)
            if what:
                self.wrong += 1
                if self.wrong == 1:
                    text = "model %s, request %d: %s %s: %s"
                    logging.getLogger("loadtest").error(text, model, request.source, name, what, figures)
                return f"wrong answer: {name} {what}"
        return ""


def difference(expected: np.ndarray, got: np.ndarray | None, scale: float, bounds: Bounds) -> tuple[str, str]:
    """What is wrong and by how much; two empty texts where nothing is."""
    if got is None:
        return "is missing", "no such output in the answer"
    if expected.ndim < 2 and got.shape == (*expected.shape, 1):  # noqa: PLR2004 - scalars and vectors of rows
        got = got.reshape(expected.shape)
    if got.shape != expected.shape:
        return "has a wrong shape", f"got {list(got.shape)}, expected {list(expected.shape)}"
    if expected.dtype.kind != "f":
        share = float(np.count_nonzero(got != expected)) / max(1, expected.size)
        wrong = share > bounds.max_mismatch_share
        return ("is not as expected", f"{share:.1%} of its elements differ") if wrong else ("", "")
    known = np.isfinite(expected)
    numbers, right = got.astype(np.float64)[known], expected.astype(np.float64)[known]
    if not np.isfinite(numbers).all():
        return "has NaN or infinity", f"{np.count_nonzero(~np.isfinite(numbers))} of {got.size} elements"
    error = float(np.abs(numbers - right).max(initial=0.0)) / (scale or 1.0)
    wrong = error > bounds.max_relative_error
    return ("is too far off", f"{error:.3g} of its scale, allowed {bounds.max_relative_error:g}") if wrong else ("", "")
