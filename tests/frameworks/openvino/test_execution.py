"""What OpenVINO's execution graph tells of precision, against graphs whose work is known."""

from __future__ import annotations

import numpy as np
import pytest

openvino = pytest.importorskip("openvino")

from openvino import opset13 as op  # noqa: E402

from builder.frameworks.openvino.execution import SOURCE, precision_proof, work_of  # noqa: E402


def weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def model(*, quantised: bool):
    """A convolution of 3→8 channels on 16x16 and a product of 8x4."""
    x = op.parameter([-1, 3, 16, 16], np.float32, name="x")
    node = x
    if quantised:
        node = op.fake_quantize(node, *(np.float32([edge]) for edge in (-3.0, 3.0, -3.0, 3.0)), 256)
    kernel = op.constant(weights(8, 3, 3, 3))
    if quantised:
        bounds = (np.float32(-3.0), np.float32(3.0))
        kernel = op.fake_quantize(kernel, *(np.float32([[[[edge]]]]) for edge in bounds * 2), 255)
    conv = op.convolution(node, kernel, [1, 1], [1, 1], [1, 1], [1, 1], name="conv")
    mean = op.reduce_mean(op.relu(conv), np.int64([2, 3]), keep_dims=False)
    return openvino.Model([op.matmul(mean, op.constant(weights(8, 4)), False, False, name="product")], [x])


def test_work_is_counted_by_multiplications_of_one_row():
    assert work_of(model(quantised=False)) == {"conv": 8 * 16 * 16 * 3 * 9, "product": 4 * 8}


def test_work_falls_back_to_the_weights_where_shapes_stay_unknown():
    x = op.parameter([-1, -1], np.float32, name="x")
    rows = op.constant(weights(7, 4))
    product = op.matmul(x, rows, False, False, name="product")
    unknown = openvino.Model([product], [x])
    assert work_of(unknown) == {"product": 7 * 4}, "no second axis of 32 fits a product of 7 rows"


def test_the_kernels_types_are_read_from_the_compiled_model():
    plain = model(quantised=False)
    compiled = openvino.Core().compile_model(plain, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    proof = precision_proof(compiled, plain)
    assert proof.compute == (("fp32", 1.0),)
    assert proof.weights == (("fp32", 1.0),)
    assert proof.source == SOURCE


def test_a_half_quantised_model_says_so():
    mixed = model(quantised=True)
    compiled = openvino.Core().compile_model(mixed, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    shares = dict(precision_proof(compiled, mixed).compute)
    conv, product = 8 * 16 * 16 * 3 * 9, 4 * 8
    assert shares == {"int8": round(conv / (conv + product), 4), "fp32": round(product / (conv + product), 4)}


def test_a_product_with_its_bias_and_what_runs_in_a_body_are_counted_too():
    """The layer of the product is known by the sum's name, and the graph shows nothing of what an If does."""
    taken, other = (op.parameter([-1, 8], np.float32) for _ in range(2))
    then = openvino.Model([op.matmul(taken, op.constant(weights(8, 8)), False, False, name="inner")], [taken])
    otherwise = openvino.Model([op.relu(other)], [other])
    x = op.parameter([-1, 8], np.float32, name="x")
    condition = op.greater(op.reduce_sum(x, np.int64([0, 1]), keep_dims=False), np.float32(0))
    choice = op.if_op(condition.output(0))
    choice.set_then_body(then)
    choice.set_else_body(otherwise)
    choice.set_input(x.output(0), taken, other)
    chosen = choice.set_output(then.results[0], otherwise.results[0])
    product = op.matmul(chosen, op.constant(weights(8, 4)), False, False, name="product")
    whole = openvino.Model([op.add(product, op.constant(weights(1, 4)), name="sum")], [x])
    compiled = openvino.Core().compile_model(whole, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    proof = precision_proof(compiled, whole)
    assert proof.compute == (("fp32", 1.0),)
    assert proof.weights == (("fp32", 1.0),)


def test_a_recurrent_layer_weighs_more_than_the_quantised_product_behind_it():
    x = op.parameter([-1, 5, 16], np.float32, name="x")
    rows = op.gather(op.shape_of(x), np.int64([0]), np.int64(0))
    state = op.broadcast(np.float32(0), op.concat([rows, np.int64([2, 16])], 0))
    lengths = op.broadcast(np.int64(5), rows)
    fed = [op.constant(weights(2, 64, 16)), op.constant(weights(2, 64, 16)), op.constant(weights(2, 64))]
    lstm = op.lstm_sequence(x, state, state, lengths, *fed, 16, "BIDIRECTIONAL", name="lstm")
    bounds = (np.float32(-1.0), np.float32(1.0))
    last = op.fake_quantize(lstm.output(1), *bounds, *bounds, 256)
    kernel = op.fake_quantize(op.constant(weights(16, 4)), *(np.float32([[edge]]) for edge in bounds * 2), 255)
    whole = openvino.Model([op.matmul(last, kernel, False, False, name="product")], [x])
    compiled = openvino.Core().compile_model(whole, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert dict(precision_proof(compiled, whole).compute)["fp32"] > 0.9
