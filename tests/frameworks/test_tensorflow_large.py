"""The conversion for large TensorFlow models, made to take small ones: weights outside, answers and bytes the same."""

import numpy as np
import onnx
import pytest
from export_models import export, plain_run

from builder.errors import BuildError
from builder.frameworks.tensorflow import large
from builder.frameworks.tensorflow.framework import import_keras, import_tensorflow
from builder.onnx_tools.reading import external_tensors, read_onnx

pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
tf = import_tensorflow()
keras = import_keras()


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch):
    monkeypatch.setattr(large, "LARGE_FROM_BYTES", 0)


def convolutions(path):
    """Kernels are transposed on the way, so a constant is folded while the weights are already outside."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((12, 12, 3), name="image"), keras.layers.Conv2D(16, 3, padding="same", activation="relu"),
         keras.layers.BatchNormalization(), keras.layers.Conv2D(32, 3, strides=2),
         keras.layers.Flatten(), keras.layers.Dense(40, name="class")]
    )  # fmt: skip
    model.save(path)
    return model


def assert_large(made, requests):
    assert {file.name for file in made.parent.iterdir()} >= {"model.onnx", "model.onnx.data"}
    assert not (made.parent / large.DATA).exists()
    model = read_onnx(made)
    assert external_tensors(model)
    assert max(len(tensor.raw_data) for tensor in model.graph.initializer) < 1024
    onnx.checker.check_model(str(made))
    for request in requests:
        for expected, got in zip(request.outputs.values(), plain_run(made, dict(request.inputs)), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


def test_keras_model(tmp_path):
    model = convolutions(tmp_path / "model.keras")
    report, requests, made = export(tmp_path / "model.keras", tmp_path / "out")
    assert_large(made, requests)
    assert report.parameters == model.count_params()
    _, _, again = export(tmp_path / "model.keras", tmp_path / "again")
    for name in ("model.onnx", "model.onnx.data"):
        assert (made.parent / name).read_bytes() == (again.parent / name).read_bytes()


def test_tables_of_words_are_refused(tmp_path):
    class Counting(tf.Module):
        def __init__(self):
            words = tf.lookup.KeyValueTensorInitializer(["a", "b"], tf.constant([1, 2], tf.int64))
            self.table = tf.lookup.StaticHashTable(words, 0)
            self.rows = tf.Variable(np.random.default_rng(0).standard_normal((3, 400)).astype(np.float32))

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "word")])
        def __call__(self, word):
            return {"y": tf.gather(self.rows, self.table.lookup(word))}

    model = Counting()
    tf.saved_model.save(model, str(tmp_path / "saved"), signatures=model.__call__)
    with pytest.raises(BuildError, match="tables of words together with"):
        export(tmp_path / "saved", tmp_path / "out")


def test_graph_of_tensorflow_1(tmp_path):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x = tf.compat.v1.placeholder(tf.float32, [None, 32], "x")
        w = tf.compat.v1.get_variable("w", [32, 64], use_resource=False)
        y = tf.nn.relu(x @ w)
        session.run(tf.compat.v1.global_variables_initializer())
        signature = tf.compat.v1.saved_model.signature_def_utils.predict_signature_def({"x": x}, {"y": y})
        builder = tf.compat.v1.saved_model.Builder(str(tmp_path / "saved"))
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature})
        builder.save()
    _, requests, made = export(tmp_path / "saved", tmp_path / "out")
    assert_large(made, requests)
