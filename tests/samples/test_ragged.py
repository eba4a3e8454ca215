"""What Triton fills in for requests of unequal sizes, and what the spec may say of a model."""

from __future__ import annotations

import numpy as np
import pytest

from builder.errors import SpecError
from builder.ragged_batches import filled
from builder.samples import Request
from builder.samples.ragged import Batcher, answered_in_batches, open_ragged, with_shorter
from builder.tensors import Tensor
from builder.work import FilledRef, OutputShape, RaggedRef

SHAPES = [(1, 3), (1, 4), (2, 5)]
X = Tensor("x", "float32", ("values",))
ENDS = Tensor("ends", "int32", ("requests",))
BIAS = Tensor("bias", "float32", ("requests", 2))
ACCUMULATED = "BATCH_ACCUMULATED_ELEMENT_COUNT"


def asked(**outputs: str) -> RaggedRef:
    item = (OutputShape("x", ("length",)),)
    return RaggedRef(item, (FilledRef("ends", ACCUMULATED, "x"),), tuple(outputs.items()))


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("BATCH_ELEMENT_COUNT", [3, 4, 10]),
        (ACCUMULATED, [3, 7, 17]),
        (f"{ACCUMULATED}_WITH_ZERO", [0, 3, 7, 17]),
        ("BATCH_MAX_ELEMENT_COUNT_AS_SHAPE", [0] * 10),
        ("BATCH_ITEM_SHAPE", [[3], [4], [5], [5]]),
        ("BATCH_ITEM_SHAPE_FLATTEN", [3, 4, 5, 5]),
    ],
)
def test_what_triton_fills_in(kind: str, values: list[object]) -> None:
    for dtype in ("int32", "float32"):
        made = filled(kind, SHAPES, dtype)
        assert made.dtype.name == dtype
        assert made.tolist() == values


def test_shapes_hold_every_axis() -> None:
    assert filled("BATCH_ITEM_SHAPE", [(1, 2, 3), (1, 4, 5)], "int32").tolist() == [[2, 3], [4, 5]]
    assert filled("BATCH_ITEM_SHAPE_FLATTEN", [(1, 2, 3), (1, 4, 5)], "int32").tolist() == [2, 3, 4, 5]


def test_requests_become_one_run_and_its_answer_theirs() -> None:
    batcher = Batcher((X, BIAS, ENDS), open_ragged((X, BIAS, ENDS), ("y", "z"), asked(z="x")))
    assert [item.shape for item in batcher.client_inputs] == [("batch", "length"), ("batch", 2)]
    requests = [
        {"x": np.full((1, count), count, np.float32), "bias": np.full((1, 2), count, np.float32)} for count in (1, 3)
    ]
    merged = batcher.merged(requests)
    assert list(merged) == ["x", "bias", "ends"]
    assert merged["x"].tolist() == [1, 3, 3, 3]
    assert merged["bias"].tolist() == [[1, 1], [3, 3]]
    assert merged["ends"].tolist() == [1, 4]
    answers = batcher.separated({"y": np.asarray([[5], [6]]), "z": np.arange(8).reshape(4, 2)}, requests)
    assert [answer["y"].tolist() for answer in answers] == [[[5]], [[6]]]
    assert [answer["z"].shape for answer in answers] == [(1, 1, 2), (1, 3, 2)]
    with pytest.raises(SpecError, match=r"output 'y' has 3 rows for 2 requests"):
        batcher.separated({"y": np.zeros(3)}, requests)


def test_a_model_that_sees_its_neighbours_is_refused() -> None:
    batcher = Batcher((X, ENDS), open_ragged((X, ENDS), None, asked()))

    def answer(arrays: object, labels: object) -> Request:
        total = arrays["x"].sum()  # type: ignore[index]
        return Request(arrays, {"y": np.full((len(arrays["ends"]), 1), total)})  # type: ignore[index,arg-type]

    pieces = [({"x": np.ones((1, count), np.float32)}, None) for count in (2, 3)]
    alone = [{"y": np.full((1, 1), 2.0)}, {"y": np.full((1, 1), 3.0)}]
    with pytest.raises(SpecError, match=r"changes by 0\.6 of its largest magnitude when 2 requests share a run"):
        answered_in_batches(batcher, answer, pieces, alone)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ((X,), r"the model has no input 'ends'"),
        ((X, Tensor("ends", "int64", ("requests",))), r"ends int64\[requests\] is filled by Triton, which makes int32"),
        ((Tensor("x", "float32", ("n", 3)), ENDS), r"x float32\[n,3\] must have one axis of any size"),
        ((Tensor("x", "float32", (8,)), ENDS), r"x float32\[8\] must have one axis of any size"),
        ((X, Tensor("ends", "int32", ("requests", 2))), r"must have one axis of any size: Triton fills"),
        ((X, ENDS, Tensor("bias", "float32", (2,))), r"bias float32\[2\] must have a first axis of any size"),
    ],
)
def test_inputs_that_do_not_fit(inputs: tuple[Tensor, ...], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        open_ragged(inputs, None, asked())


def test_unknown_outputs_are_named() -> None:
    with pytest.raises(SpecError, match="the model has no output 'q'") as raised:
        open_ragged((X, ENDS), ("y",), asked(q="x"))
    assert raised.value.remedy == "it has y"


def test_samples_of_one_size_are_also_cut() -> None:
    batcher = Batcher((X, ENDS), open_ragged((X, ENDS), None, asked()))
    pieces = [({"x": np.ones((1, 6), np.float32)}, None)] * 2
    sent = [arrays["x"].shape[1] for arrays, _ in with_shorter(batcher, pieces, lambda arrays: None)]  # type: ignore[arg-type]
    assert sent == [6, 3, 6, 3]
    labelled = [({"x": np.ones((1, 6), np.float32)}, np.asarray([1]))]
    assert len(with_shorter(batcher, labelled, lambda arrays: None)) == 1  # type: ignore[arg-type]

    def refuses(arrays: object) -> None:
        raise ValueError(arrays)

    assert len(with_shorter(batcher, pieces, refuses)) == 2  # type: ignore[arg-type]
