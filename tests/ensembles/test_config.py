"""The configuration of an ensemble: golden text, batches, shapes; and the gates of its answers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from small_graphs import signature

from builder.compare import Gates
from builder.ensembles.config import render_ensemble
from builder.ensembles.gates import ensemble_gates
from builder.ensembles.wiring import Wiring, wire
from builder.errors import SpecError
from builder.spec import EnsembleSpec
from builder.spec_wiring import EnsembleAccuracySpec
from builder.tensors import BY_NUMPY, Signature
from builder.triton_config import parse_config
from builder.work import EnsembleRef, StepRef

GOLDEN = Path(__file__).parent / "golden"
ROWS = {
    "decode": signature(["image:string:n"], ["pixels:float32:n,3,8,8"]),
    "classifier": signature(["pixels:float32:batch,3,8,8"], ["logits:float32:batch,5"]),
    "top": signature(["logits:float32:b,5"], ["label:string:b,1", "place:int64:b"]),
}
PHOTO = ("decode", "classifier", "top")


def served(ports: Signature, largest: int) -> dict[str, Any]:
    """As `triton_config` writes it: a vector that is batched travels as [N,1]."""

    def sides(tensors: Any) -> list[dict[str, Any]]:
        every = []
        for tensor in tensors:
            dims = list(tensor.wire_shape[1:] if largest else tensor.wire_shape) or [1]
            every.append({"name": tensor.name, "data_type": BY_NUMPY[tensor.dtype].triton, "dims": dims})
        return every

    return {"max_batch_size": largest, "input": sides(ports.inputs), "output": sides(ports.outputs)}


def render(
    steps: tuple[str, ...], sizes: dict[str, int], *, mixing: frozenset[str] = frozenset(), **words: Any
) -> tuple[str, int]:
    spec = EnsembleSpec.model_validate({"name": "e", "steps": list(steps), **words})
    wiring, problems = wire(EnsembleRef("e", tuple(map(StepRef, steps)), (), spec.outputs), ROWS)
    assert isinstance(wiring, Wiring), problems
    configs = {name: served(ROWS[name], sizes.get(name, 0)) for name in steps}
    return render_ensemble(spec, wiring, configs, mixing=mixing, release="26.07")


CASES: dict[str, tuple[tuple[str, ...], dict[str, int], dict[str, Any]]] = {
    "full_dims": (PHOTO, {"classifier": 8}, {"outputs": ["label", "logits"]}),
    "batched": (("classifier", "top"), {"classifier": 8, "top": 4}, {"max_inflight_requests": 3}),
    "overridden": (("classifier",), {"classifier": 8}, {"config": {"response_cache": {"enable": True}}}),
}


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    steps, sizes, words = CASES[case]
    text, _ = render(steps, sizes, **words)
    file = GOLDEN / f"{case}.pbtxt"
    if os.environ.get("UPDATE_GOLDEN"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("steps", "sizes", "words", "largest"),
    [
        (("classifier",), {"classifier": 8}, {}, 8),
        (("classifier",), {}, {}, 0),
        (("classifier", "top"), {"classifier": 8, "top": 4}, {}, 4),
        (("classifier", "top"), {"classifier": 8, "top": 4}, {"max_batch_size": 2}, 2),
        (("classifier",), {"classifier": 8}, {"max_batch_size": 0}, 0),
        # A vector that no member batches has no dims beside the batch's.
        (("classifier", "top"), {"classifier": 8}, {}, 0),
        (("classifier", "top"), {"classifier": 8}, {"outputs": ["label"]}, 8),
    ],
)
def test_the_largest_batch_is_that_of_the_members(
    steps: tuple[str, ...], sizes: dict[str, int], words: dict[str, Any], largest: int
) -> None:
    text, found = render(steps, sizes, **words)
    config = parse_config(text)
    assert found == largest == int(config.get("max_batch_size", 0))
    dims = [3, 8, 8] if largest else [-1, 3, 8, 8]
    assert [int(size) for size in config["input"][0]["dims"]] == dims


def test_a_member_whose_rows_may_mix_takes_the_batches_away() -> None:
    sizes = {"classifier": 8}
    words = {"outputs": ["label"]}
    assert render(("classifier", "top"), sizes, mixing=frozenset({"top"}), **words)[1] == 0


def test_a_vector_that_only_some_members_batch_is_refused() -> None:
    with pytest.raises(SpecError, match=r"place int64\[batch\] travels as \[N,1\]"):
        render(("classifier", "top"), {"top": 4}, mixing=frozenset({"classifier"}))


def test_gates_are_the_loosest_of_the_members_and_words_win() -> None:
    words = EnsembleAccuracySpec()
    members = [Gates(0.02, 0.999), Gates(0.1, 0.99)]
    exact = ensemble_gates(words, [Gates()], lossy=False, rows=20)
    assert (exact.max_relative_error, exact.min_cosine, exact.max_mismatch_share) == (0.02, 0.999, 0.0)
    loose = ensemble_gates(words, members, lossy=True, rows=100)
    assert (loose.max_relative_error, loose.min_cosine, loose.max_mismatch_share) == (0.1, 0.99, 0.075)
    assert ensemble_gates(words, members, lossy=True, rows=8).max_mismatch_share == pytest.approx(0.1875)
    asked = EnsembleAccuracySpec(max_relative_error=0.01, max_mismatch_share=0.0)
    strict = ensemble_gates(asked, members, lossy=True, rows=8)
    assert (strict.max_relative_error, strict.min_cosine, strict.max_mismatch_share) == (0.01, 0.99, 0.0)
