"""Profiles as they follow from axes, batching, samples and words; TensorRT is not asked."""

from __future__ import annotations

import numpy as np
import pytest
from small_graphs import signature

from builder.errors import BuildError, SpecError
from builder.frameworks.tensorrt.profiles import Batching, Range, make_profiles, value_range

TEXT = signature(["ids:int64:batch,length", "mask:int64:batch,length"], ["y:float32:batch,8"])
STATE = signature(["x:float32:n,5", "state:float32:2,n,4"], ["y:float32:n,5"])


def rows(*shapes: tuple[int, int]) -> list[dict[str, np.ndarray]]:
    return [{name: np.zeros(shape, np.int64) for name in ("ids", "mask")} for shape in shapes]


def test_the_batch_axis_is_the_servers_and_others_are_the_samples() -> None:
    (profile,) = make_profiles(TEXT, Batching(4, 16), rows((1, 7), (2, 32), (3, 16)))
    assert profile == dict.fromkeys(("ids", "mask"), Range((1, 7), (4, 16), (16, 32)))


def test_a_words_sizes_replace_the_samples() -> None:
    asked = [{"length": [1, 32, 64]}, {"length": (64, 128, 512)}]
    profiles = make_profiles(TEXT, Batching(8, 8), rows((1, 7)), asked)
    assert [profile["mask"].largest for profile in profiles] == [(8, 64), (8, 512)]
    assert [profile["ids"].smallest for profile in profiles] == [(1, 1), (1, 64)]


def test_fixed_sizes_need_no_profile() -> None:
    assert make_profiles(signature(["x:float32:1,3"], ["y:float32:1,3"]), Batching(8, 8), []) == ()


def test_a_model_without_a_batch_axis_takes_every_size_from_the_samples() -> None:
    samples = [{"x": np.zeros((n, 5)), "state": np.zeros((2, n, 4))} for n in (2, 6)]
    (profile,) = make_profiles(STATE_UNBATCHED, Batching(8, 8), samples)
    assert profile["state"] == Range((2, 2, 4), (2, 6, 4), (2, 6, 4))


STATE_UNBATCHED = signature(["x:float32:n,5", "state:float32:2,n,4"], ["y:float32:5"])


def test_an_axis_that_nothing_sizes_is_refused_with_the_word_to_write() -> None:
    with pytest.raises(BuildError, match="no sample says how large the axis 'length'") as error:
        make_profiles(TEXT, Batching(8, 8), [])
    assert "profiles: [{length: [1, 64, 512]}]" in error.value.remedy


def test_the_batch_axis_has_another_word() -> None:
    with pytest.raises(SpecError, match="'batch' is the batch axis") as error:
        make_profiles(TEXT, Batching(8, 8), rows((1, 7)), [{"batch": [1, 2, 4]}])
    assert "batching: {max_batch_size" in error.value.remedy


def test_an_axis_that_no_input_has() -> None:
    with pytest.raises(SpecError, match="no input has an axis 'width'") as error:
        make_profiles(TEXT, Batching(8, 8), rows((1, 7)), [{"width": [1, 2, 4]}])
    assert error.value.remedy.endswith("length")


def test_values_of_a_shape_input_are_ranged_one_by_one() -> None:
    samples = [{"to": np.asarray(values)} for values in ([4, 2], [1, 8], [2, 4])]
    assert value_range("to", samples) == Range((1, 2), (2, 4), (4, 8))
