import numpy as np
import pytest
from export_models import F32, I64, export, linear, model_of, save, value, work_of
from onnx import helper

from builder.errors import SpecError
from builder.export import run_export
from builder.samples.making import find_recipe, size_candidates
from builder.samples.requests import cut_sizes
from builder.tensors import Tensor


@pytest.mark.parametrize(
    ("count", "sizes", "expected"),
    [
        (30, (1, 2, 3, 8), [1, 2, 3, 8, 8, 8]),
        (4, (1, 2, 3, 8), [1, 2, 1]),
        (1, (1, 2), [1]),
        (13, (4, 8), [4, 8]),
        (3, (4, 8), []),
    ],
)
def test_cut_sizes(count, sizes, expected):
    assert cut_sizes(count, sizes) == expected


def npz(tmp_path, **arrays):
    np.savez(tmp_path / "samples.npz", **arrays)
    return tmp_path / "samples.npz"


def model(tmp_path):
    return save(linear(), tmp_path / "m.onnx")


def refusal(tmp_path, samples, labels=None, path=None):
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    with pytest.raises(SpecError) as caught:
        run_export(work_of(path or model(tmp_path), samples=samples, labels=labels), out)
    return caught.value.message + " | " + caught.value.remedy


def test_rows_and_labels_are_cut(tmp_path):
    rows = np.random.default_rng(1).standard_normal((20, 4)).astype(np.float32)
    samples = npz(tmp_path, x=rows, label=np.arange(20) % 3)
    report, requests, _ = export(model(tmp_path), tmp_path / "out", samples=samples, labels="label")
    assert report.samples == "samples.npz, 20 rows"
    assert [request.rows for request in requests] == [1, 2, 3, 8, 3, 3]
    assert np.array_equal(np.concatenate([request.inputs["x"] for request in requests]), rows)
    assert np.array_equal(np.concatenate([request.labels for request in requests]), np.arange(20) % 3)
    assert report.signature.describe() == "x float32[batch,4] → y float32[batch,3]"


def test_one_row_still_shows_the_batch_axis(tmp_path):
    samples = npz(tmp_path, x=np.ones((1, 4), np.float32))
    report, requests, _ = export(model(tmp_path), tmp_path / "out", samples=samples)
    assert report.signature.describe() == "x float32[batch,4] → y float32[batch,3]"
    assert report.batch.proven
    assert len(requests) == 1


def test_float64_is_cast_with_a_note(tmp_path):
    report, requests, _ = export(model(tmp_path), tmp_path / "out", samples=npz(tmp_path, x=np.ones((3, 4))))
    assert requests[0].inputs["x"].dtype == np.float32
    assert "samples 'x': float64 cast to float32" in report.notes


@pytest.mark.parametrize(
    ("arrays", "labels", "message"),
    [
        ({"y": np.ones((3, 4), np.float32)}, None, "holds the arrays y; the model's inputs are x"),
        ({"x": np.ones((3, 5), np.float32)}, None, "'x' got shape [3, 5], expected [batch,4]"),
        ({"x": np.ones((3,), np.float32)}, None, "'x' got shape [3], expected [batch,4]"),
        ({"x": np.ones((3, 4), np.complex64)}, None, "'x' got complex64, expected float32"),
        ({"x": np.ones((3, 4), np.int64)}, None, "'x' got int64, expected float32"),
        ({"x": np.ones((0, 4), np.float32)}, None, "at least one; got x 0"),
        (
            {"x": np.ones((3, 4), np.float32), "l": np.ones(3)},
            "l",
            "labels 'l' must be one integer a row; got float64[3]",
        ),
        ({"x": np.ones((3, 4), np.float32), "l": np.arange(2)}, "l", "same number of rows, at least one; got x 3, l 2"),
        ({"x": np.ones((3, 4), np.float32)}, "l", "has no array 'l' for the labels; it holds x"),
        ({"x": np.ones((3, 4), np.float32), "l": np.arange(3)}, None, "say samples: {labels: l}"),
    ],
)
def test_samples_that_do_not_fit(tmp_path, arrays, labels, message):
    assert message in refusal(tmp_path, npz(tmp_path, **arrays), labels)


def test_one_hot_labels_are_told_how_to_become_numbers(tmp_path):
    samples = npz(tmp_path, x=np.ones((3, 4), np.float32), kind=np.eye(3, dtype=np.int64))
    with pytest.raises(SpecError, match="one integer a row; got int64") as told:
        export(model(tmp_path), tmp_path / "out", samples=samples, labels="kind")
    assert told.value.remedy.endswith("of one-hot rows that is kind.argmax(axis=1)")


def test_samples_with_objects_or_no_npz(tmp_path):
    samples = npz(tmp_path, x=np.asarray([{"a": 1}], dtype=object))
    assert "samples.npz is no readable .npz" in refusal(tmp_path, samples)
    samples.write_text("text")
    assert "samples.npz is no readable .npz" in refusal(tmp_path, samples)
    np.save(tmp_path / "one.npy", np.ones((3, 4), np.float32))
    assert "one.npy is no readable .npz: it holds one array, without a name" in refusal(tmp_path, tmp_path / "one.npy")


def test_without_a_batch_axis_each_entry_is_a_request(tmp_path):
    nodes = [helper.make_node("Mul", ["x", "s"], ["y"])]
    path = save(model_of(nodes, [value("x"), value("s", F32, ())], [value("y")]), tmp_path / "s.onnx")
    rows = np.arange(40, dtype=np.float32).reshape(2, 5, 4)
    samples = npz(tmp_path, x=rows, s=np.asarray([1, 2], np.float32))
    report, requests, _ = export(path, tmp_path / "out", samples=samples)
    assert [request.rows for request in requests] == [0, 0]
    assert np.array_equal(requests[1].outputs["y"], rows[1] * 2)
    assert report.signature.outputs == (Tensor("y", "float32", ("batch", 4)),)
    message = refusal(tmp_path, npz(tmp_path, x=rows, s=np.ones((2, 1), np.float32)), path=path)
    assert "'s' got shape [2, 1], expected [requests] (one entry along the first axis is one request)" in message


def test_axes_of_one_name_have_one_size(tmp_path):
    nodes = [helper.make_node("Add", ["a", "b"], ["y"])]
    shape = ("batch", "length")
    path = save(
        model_of(nodes, [value("a", F32, shape), value("b", F32, shape)], [value("y", F32, shape)]), tmp_path / "s"
    )
    samples = npz(tmp_path, a=np.ones((2, 3), np.float32), b=np.ones((2, 4), np.float32))
    assert "axis 'length' has size 3 in 'a' and 4 in 'b'" in refusal(tmp_path, samples, path=path)


def recording(accepts):
    seen = []

    def run(arrays):
        seen.append({name: array.shape for name, array in arrays.items()})
        if not accepts(arrays):
            raise ValueError("not this size")
        return tuple(arrays.values())

    return run, seen


def test_images_of_multiples_of_32():
    run, _ = recording(lambda arrays: arrays["x"].shape[2] % 32 == 0 and arrays["x"].shape[3] % 32 == 0)
    recipe = find_recipe(run, (Tensor("x", "float32", ("n", 3, "height", "width")),), 0)
    assert recipe.sizes[0] == {"height": 224, "width": 224}
    assert len({tuple(sizes.values()) for sizes in recipe.sizes}) == 3


def test_axes_that_must_be_equal_and_one_that_is_free():
    run, _ = recording(lambda arrays: arrays["a"].shape[0] == arrays["b"].shape[1])
    inputs = (Tensor("a", "float32", ("p", "q")), Tensor("b", "float32", (2, "r")), Tensor("s", "int64", ()))
    recipe = find_recipe(run, inputs, 0)
    assert all(sizes["p"] == sizes["r"] for sizes in recipe.sizes)
    assert len({sizes["p"] for sizes in recipe.sizes}) > 1
    assert len({sizes["q"] for sizes in recipe.sizes}) > 1


def test_batches_of_four_and_lengths_of_one_kind():
    run, _ = recording(lambda arrays: arrays["x"].shape[0] % 4 == 0 and arrays["x"].shape[1] == 224)
    recipe = find_recipe(run, (Tensor("x", "float32", ("n", "length")),), 0)
    assert recipe.batch == 4
    assert recipe.sizes == ({"length": 224},)


def test_nothing_works_says_the_models_words():
    run, _ = recording(lambda _: False)
    with pytest.raises(SpecError) as caught:
        find_recipe(run, (Tensor("x", "float32", ("n", "length")),), 0)
    assert caught.value.message == "no random inputs were found that the model accepts: not this size"
    assert "samples" in caught.value.remedy
    assert "correct inputs:" in caught.value.remedy


def test_a_mask_is_kept_where_answers_stay_finite():
    def run(arrays):
        return (np.where(arrays["mask"] > 1, np.inf, arrays["mask"]).astype(np.float32),)

    recipe = find_recipe(run, (Tensor("mask", "int64", ("n", 8)),), 0)
    assert recipe.ranges == {"mask": 2}
    assert set(np.unique(recipe.make(4, {})["mask"])) == {0, 1}


def test_requests_are_the_same_for_the_same_seed_and_fit_their_dtype():
    inputs = tuple(
        Tensor(dtype, dtype, ("n", 5))
        for dtype in ("float16", "float64", "bfloat16", "bool", "uint8", "int8", "uint16", "int32", "string")
    )
    recipe = find_recipe(lambda arrays: tuple(arrays.values())[:1], inputs, 0)
    first, again, other = recipe.make(3, {}, 1), recipe.make(3, {}, 1), recipe.make(3, {}, 2)
    for tensor in inputs:
        expected = "object" if tensor.dtype == "string" else tensor.dtype
        assert first[tensor.name].dtype.name == expected
        assert first[tensor.name].shape == (3, 5)
        assert (first[tensor.name] == again[tensor.name]).all()
    assert (first["float64"] != other["float64"]).any()


def test_candidates_begin_with_different_sizes():
    assert size_candidates((Tensor("x", "int64", ("n", "a", "b")),))[0] == {"a": 16, "b": 7}


def test_cropping_finds_axes_that_samples_do_not_vary(tmp_path):
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    shape = ("batch", "length")
    open_shape = ("batch", None)
    path = save(model_of(nodes, [value("x", F32, shape)], [value("y", F32, open_shape)]), tmp_path / "m.onnx")
    report, _, _ = export(path, tmp_path / "out", samples=npz(tmp_path, x=np.ones((5, 12), np.float32)))
    assert report.signature.outputs[0].shape == ("batch", "length")
    assert report.notes == ()


def test_integer_samples_are_exact(tmp_path):
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    path = save(model_of(nodes, [value("x", I64)], [value("y", I64)]), tmp_path / "m.onnx")
    report, requests, _ = export(
        path, tmp_path / "out", samples=npz(tmp_path, x=np.arange(8, dtype=np.int32).reshape(2, 4))
    )
    assert requests[0].outputs["y"].dtype == np.int64
    assert "samples 'x': int32 cast to int64" in report.notes
