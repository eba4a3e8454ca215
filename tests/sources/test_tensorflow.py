import json
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from export_models import export, plain_run, work_of

from builder.errors import BuildError, SpecError
from builder.export import run_export
from builder.frameworks.tensorflow.framework import import_keras, import_tensorflow
from builder.recognise import recognise
from builder.sources import keras_model, tf_checkpoint, tf_saved_model
from builder.tensors import Tensor

pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
tf = import_tensorflow()
keras = import_keras()

X = Tensor("x", "float32", ("batch", 4))


def needs(package):
    return pytest.mark.skipif(find_spec(package) is None, reason=f"{package} is not installed")


def inside(package, *parts):
    return Path(find_spec(package).origin).parent.joinpath(*parts)


def assert_answers(requests, path, reference):
    """The stored outputs are the framework's, and the ONNX file gives them too."""
    for request in requests:
        expected = reference(request.inputs)
        for name, array in expected.items():
            np.testing.assert_allclose(request.outputs[name], array, rtol=1e-5, atol=1e-5)
        got = dict(zip(request.outputs, plain_run(path, dict(request.inputs)), strict=True))
        for name, array in expected.items():
            np.testing.assert_allclose(got[name], array, rtol=1e-3, atol=1e-4)
    onnx.checker.check_model(str(path), full_check=True)


def failure(path, tmp_path, kind=SpecError, **options):
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    with pytest.raises(kind) as caught:
        run_export(work_of(path, **options), out)
    return caught.value.message + " | " + caught.value.remedy


# --- Keras ------------------------------------------------------------------------------------------------------------


def sequential():
    return keras.Sequential(
        [keras.Input((6, 6, 3), name="image"), keras.layers.Conv2D(4, 3, padding="same", activation="relu"),
         keras.layers.BatchNormalization(), keras.layers.Dropout(0.5), keras.layers.Flatten(),
         keras.layers.Dense(5, activation="softmax", name="class")]
    )  # fmt: skip


@pytest.mark.parametrize("file", ["model.keras", "model.h5", "weights_of_unknown_suffix.bin"])
def test_sequential(tmp_path, file):
    model = sequential()
    path = tmp_path / ("model.keras" if file.endswith("bin") else file)
    model.save(path)
    path = path.rename(tmp_path / file)
    assert recognise(path) == "keras"
    report, requests, made = export(path, tmp_path / "out")
    assert report.signature.describe() == "image float32[batch,6,6,3] → class float32[batch,5]"
    assert (report.route, report.opset, report.batch.proven) == ("tf2onnx", 18, True)
    assert report.parameters == model.count_params()
    assert_answers(requests, made, lambda feeds: {"class": model(feeds["image"], training=False).numpy()})
    assert str(tmp_path) not in made.read_bytes().decode("latin-1")


def test_functional_with_two_inputs_and_two_outputs(tmp_path):
    left = keras.Input((4,), name="left")
    right = keras.Input((None, 2), name="right side", dtype="int32")
    total = keras.layers.GlobalAveragePooling1D(name="total")(keras.ops.cast(right, "float32"))
    score = keras.layers.Dense(2, name="score")(keras.layers.Concatenate()([left, total]))
    model = keras.Model([left, right], [score, total])
    model.save(tmp_path / "two.keras")
    report, requests, made = export(tmp_path / "two.keras", tmp_path / "out")
    assert report.signature.describe() == (
        "left float32[batch,4], right side int32[batch,dim_0,2] → score float32[batch,2], total float32[batch,2]"
    )
    run = lambda feeds: dict(zip(("score", "total"), model([feeds["left"], feeds["right side"]]), strict=True))  # noqa: E731
    assert_answers(requests, made, run)
    report, _, made = export(tmp_path / "two.keras", tmp_path / "one", outputs=("total",))
    assert [value.name for value in onnx.load(made).graph.output] == ["total"]
    assert [value.name for value in onnx.load(made).graph.input] == ["left", "right side"]
    said = failure(tmp_path / "two.keras", tmp_path, outputs=("sum",))
    assert "no output 'sum'" in said
    assert "'score'" in said


def test_dictionaries_keep_their_keys(tmp_path):
    left, right = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    model = keras.Model({"a": left, "b": right}, {"z": left - right, "m": keras.layers.Dense(2)(right)})
    model.save(tmp_path / "dict.keras")
    report, requests, made = export(tmp_path / "dict.keras", tmp_path / "out")
    assert [tensor.name for tensor in report.signature.tensors] == ["a", "b", "m", "z"]
    assert_answers(requests, made, lambda feeds: {name: value.numpy() for name, value in model(dict(feeds)).items()})


def test_recurrent_and_fixed_length(tmp_path):
    model = keras.Sequential([keras.Input((None, 3), name="steps"), keras.layers.LSTM(4), keras.layers.Dense(2)])
    model.save(tmp_path / "lstm.keras")
    report, requests, made = export(tmp_path / "lstm.keras", tmp_path / "out")
    assert report.signature.inputs[0].shape == ("batch", "dim_0", 3)
    name = report.signature.outputs[0].name
    assert_answers(requests, made, lambda feeds: {name: model(feeds["steps"]).numpy()})
    report, _, _ = export(
        tmp_path / "lstm.keras", tmp_path / "fixed", inputs=(Tensor("steps", "float32", ("rows", 7, 3)),)
    )
    assert report.signature.describe() == f"steps float32[rows,7,3] → {name} float32[rows,2]"


def test_first_calls_batch_size_binds_nobody(tmp_path):
    model = keras.Sequential([keras.layers.Dense(3)])
    model(np.zeros((1, 4), np.float32))
    model.save(tmp_path / "deferred.keras")
    report, _, _ = export(tmp_path / "deferred.keras", tmp_path / "out")
    assert report.signature.inputs[0].shape == ("batch", 4)
    assert report.batch.proven


def test_keras_2_file_in_keras_2(tmp_path):
    tf_keras = pytest.importorskip("tf_keras", reason="tf_keras is not installed")
    entry = tf_keras.Input((4,), name="entry")
    model = tf_keras.Model(entry, tf.reduce_mean(tf_keras.layers.Dense(3)(entry), axis=1, keepdims=True))
    for name in ("old.h5", "old.keras"):
        model.save(tmp_path / name)
        report, requests, made = export(tmp_path / name, tmp_path / f"{name}.out")
        (output,) = report.signature.outputs
        assert report.signature.inputs[0].describe() == "entry float32[batch,4]"
        assert_answers(requests, made, lambda feeds, name=output.name: {name: model(feeds["entry"]).numpy()})
        assert "written by Keras 2." in keras_model.describe(tmp_path / name).notes[0]


NETS = """
import keras
import tensorflow as tf

def dense(width=3):
    return keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(width, name="only")])

def unbuilt():
    return keras.Sequential([keras.layers.Dense(3, name="only")])

@keras.saving.register_keras_serializable("for_tests")
class Custom(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.dense = keras.layers.Dense(2)
    def call(self, x):
        return self.dense(x)

class Net(tf.Module):
    def __init__(self, width=3):
        super().__init__()
        self.weight = tf.Variable(tf.zeros((4, width)))
        self.bias = tf.Variable(tf.zeros((width,)))
    def __call__(self, x):
        return {"scores": x @ self.weight + self.bias, "doubled": x * 2}
    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, name="row")])
    def serve(self, row):
        return row @ self.weight

class Lazy(tf.Module):
    def __call__(self, x):
        if not hasattr(self, "weight"):
            self.weight = tf.Variable(tf.zeros((x.shape[-1], 2)))
        return x @ self.weight

class Functions(tf.Module):
    def __init__(self):
        super().__init__()
        self.weight = tf.Variable(tf.zeros(2))

    @tf.function(input_signature=[tf.TensorSpec((None, 2), tf.float32, name="row")])
    def scaled(self, row):
        return row * self.weight

def functions_in_checkpoint():
    return tf.train.Checkpoint(net=Functions(), step=tf.Variable(0))

def in_checkpoint():
    return tf.train.Checkpoint(net=Net(), step=tf.Variable(0))

def nothing():
    return 3
"""


@pytest.fixture
def root(tmp_path, monkeypatch):
    import importlib
    import sys

    (tmp_path / "tf_nets_for_tests.py").write_text(NETS)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "tf_nets_for_tests", raising=False)
    importlib.invalidate_caches()
    yield tmp_path
    sys.modules.pop("tf_nets_for_tests", None)


def by(name, root, **more):
    return {"model": f"tf_nets_for_tests:{name}", "import_root": str(root), **more}


def nets():
    import importlib

    return importlib.import_module("tf_nets_for_tests")


@pytest.mark.parametrize("file", ["w.weights.h5", "legacy.h5"])
def test_weights_alone_need_the_callable(root, file):
    model = nets().dense()
    if file == "legacy.h5":
        tf_keras = pytest.importorskip("tf_keras", reason="tf_keras is not installed")
        old = tf_keras.Sequential([tf_keras.Input((4,)), tf_keras.layers.Dense(3, name="only")])
        old.save_weights(root / file)
        model.set_weights(old.get_weights())
    else:
        model.save_weights(root / file)
    assert recognise(root / file) == "keras"
    said = failure(root / file, root)
    assert "weights without the model's architecture" in said
    assert "model: my_nets:build" in said
    assert keras_model.describe(root / file).parameters == 15
    report, requests, made = export(root / file, root / "out", **by("dense", root))
    assert report.signature.describe() == "x float32[batch,4] → only float32[batch,3]"
    assert_answers(requests, made, lambda feeds: {"only": model(feeds["x"]).numpy()})
    assert "do not fit" in failure(root / file, root, **by("dense", root, args='{"width": 5}'))
    assert "returned a int" in failure(root / file, root, **by("nothing", root))


def test_custom_classes_need_the_callable(root):
    model = nets().Custom()
    model(np.zeros((1, 4), np.float32))
    model.save(root / "custom.keras")
    said = failure(root / "custom.keras", root)
    assert "needs classes that are not Keras's" in said
    assert "Custom" in said
    report, requests, made = export(root / "custom.keras", root / "out", inputs=(X,), **by("Custom", root))
    assert report.signature.outputs[0].name == "output"
    assert_answers(requests, made, lambda feeds: {"output": model(feeds["x"]).numpy()})


def test_code_in_a_keras_file_is_refused(tmp_path):
    entry = keras.Input((4,))
    keras.Model(entry, keras.layers.Lambda(lambda x: x * 2, name="twice")(entry)).save(tmp_path / "code.keras")
    said = failure(tmp_path / "code.keras", tmp_path)
    assert "Python code in Lambda layers (twice)" in said
    report, _, _ = export(tmp_path / "code.keras", tmp_path / "out", allow_pickle=True)
    assert report.signature.outputs[0].name == "twice"


def rewritten(path, change):
    """The archive with another configuration."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts["config.json"] = change(parts["config.json"])
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return path


def test_classes_of_other_modules_are_refused(tmp_path):
    sequential().save(tmp_path / "m.keras")
    foreign = {"module": "os", "class_name": "system", "config": "true", "registered_name": None}

    def change(text):
        config = json.loads(text)
        config["config"]["layers"][1]["config"]["activation"] = foreign
        return json.dumps(config).encode()

    said = failure(rewritten(tmp_path / "m.keras", change), tmp_path)
    assert "os.system" in said
    damaged = rewritten(tmp_path / "m.keras", lambda text: text[:20])
    assert "not a readable Keras file" in failure(damaged, tmp_path)


def test_hdf5_files_that_are_no_model(tmp_path):
    import h5py

    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["measurements"] = [1, 2, 3]
    with pytest.raises(SpecError, match="an HDF5 file that holds no Keras model"):
        recognise(tmp_path / "data.h5")
    sequential().save(tmp_path / "m.h5")
    content = (tmp_path / "m.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(content[: len(content) // 2])
    assert recognise(tmp_path / "cut.h5") == "keras"
    assert "cut.h5 is not a readable Keras file" in failure(tmp_path / "cut.h5", tmp_path)


def test_describe_keras(tmp_path):
    sequential().save(tmp_path / "m.keras")
    found = keras_model.describe(tmp_path / "m.keras")
    assert found.signature.describe() == "image float32[batch,6,6,3] → class float32[batch,5]"
    assert found.notes == (f"written by Keras {keras.__version__}",)


def described_models():
    layers, entry = keras.layers, keras.Input((6,), name="x")
    hidden = layers.Dropout(0.5)(layers.BatchNormalization()(layers.Dense(5)(entry)))
    steps = keras.Input((None, 3), name="steps")
    numbers = keras.Input((None,), dtype="int32", name="ids")
    embedded = layers.Embedding(10, 4)(numbers)
    alone = keras.Sequential([keras.Input((6,), name="row"), layers.Dense(4), layers.Dropout(0.1), layers.Softmax()])
    called = keras.Sequential([layers.Dense(3)])
    called(np.zeros((2, 4), np.float32))
    shared = layers.Dense(2, name="shared")
    return {
        "functional": (keras.Model(entry, layers.Dense(3, "softmax", name="y")(hidden)), True),
        "two outputs": (keras.Model(entry, [layers.ReLU(name="a")(hidden), layers.Dense(1, name="b")(hidden)]), True),
        "steps": (keras.Model(steps, layers.Dense(2)(layers.LSTM(4, return_sequences=True)(steps))), True),
        "numbers": (keras.Model([entry, numbers], [layers.Dense(2)(entry), layers.Dense(3)(embedded)]), True),
        "shared": (keras.Model([entry], [shared(entry), shared(layers.Dense(6)(entry))]), True),
        "sequential": (alone, True),
        "called": (called, False),
        "half": (keras.Model(entry, layers.Dense(3, dtype="float16")(entry)), False),
        "pooled": (keras.Model(steps, layers.GlobalAveragePooling1D()(steps)), False),
        "dictionary": (keras.Model({"x": entry}, {"y": layers.Dense(3)(entry)}), False),
        "fixed": (keras.Model(f := keras.Input(batch_shape=(2, 4), name="f"), layers.Dense(3)(f)), True),
    }


def test_a_configuration_says_what_keras_says(tmp_path):
    from builder.frameworks.tensorflow.keras_config import config_ports
    from builder.frameworks.tensorflow.keras_file import count_weights, read_keras

    for name, (model, enough) in described_models().items():
        path = tmp_path / f"{name}.keras"
        model.compile("adam", "mse")
        model.save(path)
        ports = config_ports(read_keras(path).config)
        assert (ports is not None) is enough, name
        if ports is not None:
            opened = keras.models.load_model(path)
            assert keras_model.describe(path).signature == keras_model._signature(opened), name
            assert count_weights(path) == opened.count_params(), name


def test_inspect_of_a_keras_file_imports_no_tensorflow(tmp_path):
    import subprocess
    import sys

    from command_line import ROOT

    sequential().save(tmp_path / "m.keras")
    code = (
        "import sys; from pathlib import Path; from builder.inspection import inspect_model; "
        "print(inspect_model(Path(sys.argv[1])).description.signature.describe(), 'tensorflow' in sys.modules)"
    )
    command = [sys.executable, "-c", code, tmp_path / "m.keras"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "image float32[batch,6,6,3] → class float32[batch,5] False"


# --- SavedModel -------------------------------------------------------------------------------------------------------


class Two(tf.Module):
    def __init__(self):
        super().__init__()
        self.weight = tf.Variable(np.arange(12, dtype=np.float32).reshape(4, 3))
        names = tf.constant(["ant", "bee", "cat"])
        numbers = tf.constant([5, 6, 7], tf.int64)
        self.table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(names, numbers), -1)

    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, name="x")])
    def predict(self, x):
        return {"z scores": x @ self.weight, "again": x}

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, None), tf.int32, name="left"),
            tf.TensorSpec((None, None), tf.int32, name="right"),
        ]
    )
    def add(self, left, right):
        return {"total": left + right}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="words")])
    def look_up(self, words):
        return {"numbers": self.table.lookup(words), "words_again": tf.identity(words)}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="words")])
    def hashes(self, words):
        return {"hash": tf.strings.to_hash_bucket_fast(words, 10)}

    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.complex64, name="x")])
    def angles(self, x):
        return {"angle": tf.math.angle(x)}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    model = Two()
    path = tmp_path_factory.mktemp("saved") / "two"
    signatures = {
        "serving_default": model.predict, "add": model.add, "look_up": model.look_up, "hashes": model.hashes,
        "angles": model.angles,
    }  # fmt: skip
    tf.saved_model.save(model, str(path), signatures=signatures)
    return model, path


def test_saved_model_serves_its_default(two, tmp_path):
    model, path = two
    assert recognise(path) == "tf_saved_model"
    report, requests, made = export(path, tmp_path / "out")
    assert report.signature.describe() == "x float32[batch,4] → again float32[batch,4], z scores float32[batch,3]"
    assert report.route == "tf2onnx"
    assert report.parameters == 12
    assert_answers(requests, made, lambda feeds: {k: v.numpy() for k, v in model.predict(feeds["x"]).items()})


def test_another_signature_by_name(two, tmp_path):
    path = two[1]
    report, requests, made = export(path, tmp_path / "out", signature="add")
    assert [tensor.name for tensor in report.signature.inputs] == ["left", "right"]
    assert report.signature.outputs[0].describe().startswith("total int32[batch,")
    for request in requests:
        expected = request.inputs["left"] + request.inputs["right"]
        assert np.array_equal(request.outputs["total"], expected)
        assert np.array_equal(plain_run(made, dict(request.inputs))[0], expected)
    said = failure(path, tmp_path, signature="nonsense")
    assert "no signature 'nonsense'; it has add, angles, hashes, look_up, serving_default" in said
    assert "complex64" in failure(path, tmp_path, signature="angles")


def test_strings_with_a_table(two, tmp_path):
    _, path = two
    samples = tmp_path / "words.npz"
    np.savez(samples, words=np.array(["bee", "cat", "dog", "ant", "", "zoë"]))
    report, requests, made = export(path, tmp_path / "out", signature="look_up", samples=samples)
    assert report.signature.describe() == "words string[batch] → numbers int64[batch], words_again string[batch]"
    seen = [number for request in requests for number in request.outputs["numbers"].tolist()]
    assert seen == [6, 7, -1, 5, -1, -1]
    for request in requests:
        numbers, again = plain_run(made, dict(request.inputs))
        assert np.array_equal(numbers, request.outputs["numbers"])
        assert again.tolist() == request.inputs["words"].tolist()


def test_operators_that_onnx_has_not(two, tmp_path):
    said = failure(two[1], tmp_path, BuildError, signature="hashes")
    assert "ONNX has no operator for StringToHashBucketFast" in said


def test_describe_saved_model_without_tensorflow(two):
    found = tf_saved_model.describe(two[1])
    assert found.signature.describe() == "x float32[batch,4] → again float32[batch,4], z scores float32[batch,3]"
    assert found.parameters == 12
    assert "signatures: add: left, right → total" in found.notes[0]
    assert found.operators["MatMul"] == 1


def test_damaged_saved_models(two, tmp_path):
    path = tmp_path / "cut"
    path.mkdir()
    content = (two[1] / "saved_model.pb").read_bytes()
    (path / "saved_model.pb").write_bytes(content[: len(content) // 2])
    assert "is damaged" in failure(path, tmp_path)
    (path / "saved_model.pb").write_bytes(content)
    assert "cannot be loaded" in failure(path, tmp_path)
    bare = tmp_path / "bare"
    tf.saved_model.save(tf.Module(), str(bare))
    assert "has no signature" in failure(bare, tmp_path)


def tf1_graph(path, **signatures):
    """A SavedModel as TensorFlow 1 wrote it, with a table and a graph tensor under two names."""
    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        x = v1.placeholder(tf.float32, (None, 4), "x")
        weight = v1.get_variable("w", initializer=np.arange(8, dtype=np.float32).reshape(4, 2), use_resource=False)
        y = tf.nn.relu(x @ weight - 20.0, name="y")
        session.run(v1.global_variables_initializer())
        made = v1.saved_model.signature_def_utils.predict_signature_def({"in put": x}, {"a": y, "b": y, "same": x})
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": made})
        builder.save()
    return lambda feeds: np.maximum(feeds["in put"] @ np.arange(8, dtype=np.float32).reshape(4, 2) - 20.0, 0)


def test_tf1_saved_model(tmp_path):
    reference = tf1_graph(tmp_path / "tf1")
    report, requests, made = export(tmp_path / "tf1", tmp_path / "out")
    assert report.signature.describe() == (
        "in put float32[batch,4] → a float32[batch,2], b float32[batch,2], same float32[batch,4]"
    )
    assert_answers(
        requests, made, lambda feeds: {"a": reference(feeds), "b": reference(feeds), "same": feeds["in put"]}
    )


def test_v1_loader_where_the_other_refuses(tmp_path, monkeypatch):
    reference = tf1_graph(tmp_path / "tf1")

    def refuse(*_, **__):
        raise ValueError("no op in this binary")

    monkeypatch.setattr(tf.saved_model, "load", refuse)
    report, requests, made = export(tmp_path / "tf1", tmp_path / "out")
    assert_answers(
        requests, made, lambda feeds: {"a": reference(feeds), "b": reference(feeds), "same": feeds["in put"]}
    )
    assert "run by TensorFlow 1's loader, because tf.saved_model.load says: no op in this binary" in report.notes


# --- checkpoints ------------------------------------------------------------------------------------------------------


def saved_net(root, how):
    net = nets().Net()
    net.weight.assign(np.arange(12, dtype=np.float32).reshape(4, 3))
    net.bias.assign([1, 2, 3])
    holder = tf.train.Checkpoint(net) if how == "root" else tf.train.Checkpoint(net=net, step=tf.Variable(7))
    holder.save(str(root / "ckpt" / "run"))
    return net


@pytest.mark.parametrize(("how", "name"), [("root", "Net"), ("named", "Net"), ("named", "in_checkpoint")])
def test_checkpoint_with_callable(root, how, name):
    net = saved_net(root, how)
    folder = root / "ckpt"
    assert recognise(folder) == recognise(folder / "run-1.index") == "tf_checkpoint"
    report, requests, made = export(folder, root / "out", inputs=(X,), **by(name, root))
    assert report.signature.describe() == "x float32[batch,4] → doubled float32[batch,4], scores float32[batch,3]"
    assert_answers(requests, made, lambda feeds: {k: np.asarray(v) for k, v in net(feeds["x"]).items()})


def test_checkpoint_and_a_named_function(root):
    net = saved_net(root, "root")
    report, requests, made = export(root / "ckpt" / "run-1.index", root / "out", **by("Net", root, signature="serve"))
    assert report.signature.describe() == "row float32[batch,4] → output float32[batch,3]"
    assert_answers(requests, made, lambda feeds: {"output": net.serve(feeds["row"]).numpy()})
    assert "without the method run; it has serve" in failure(root / "ckpt", root, **by("Net", root, signature="run"))


def test_the_named_function_of_a_checkpoints_part_that_cannot_be_called(root):
    inner = nets().Functions()
    inner.weight.assign([4.0, 5.0])
    tf.train.Checkpoint(net=inner, step=tf.Variable(3)).write(str(root / "f" / "net-7"))
    chosen = by("functions_in_checkpoint", root, signature="scaled")
    _, requests, made = export(root / "f" / "net-7.index", root / "out", **chosen)
    assert_answers(requests, made, lambda feeds: {"output": inner.scaled(feeds["row"]).numpy()})


def test_checkpoint_of_keras_and_of_late_variables(root):
    model = nets().dense()
    tf.train.Checkpoint(model=model).save(str(root / "k" / "run"))
    report, requests, made = export(root / "k", root / "out", **by("dense", root))
    assert_answers(requests, made, lambda feeds: {"only": model(feeds["x"]).numpy()})
    assert report.parameters == 15
    lazy = nets().Lazy()
    lazy(tf.zeros((1, 4)))
    lazy.weight.assign(np.arange(8, dtype=np.float32).reshape(4, 2))
    tf.train.Checkpoint(lazy).save(str(root / "l" / "run"))
    _, requests, made = export(root / "l", root / "late", inputs=(X,), **by("Lazy", root))
    assert_answers(requests, made, lambda feeds: {"output": lazy(feeds["x"]).numpy()})


def test_checkpoints_that_do_not_do(root):
    saved_net(root, "root")
    path = root / "ckpt"
    assert "weights without the model's code" in failure(path, root)
    assert "do not fit" in failure(path, root, inputs=(X,), **by("Net", root, args='{"width": 5}'))
    assert "does not tell its inputs" in failure(path, root, **by("Net", root))
    assert "__call__" in failure(path, root, **by("nothing", root))
    tf.train.Checkpoint(nets().Net()).save(str(path / "other"))
    (path / "checkpoint").unlink()
    assert "several checkpoints" in failure(path, root)
    (path / "run-1.data-00000-of-00001").unlink()
    assert "the weights are missing" in failure(path / "run-1.index", root)


def test_a_checkpoint_by_its_prefix(root):
    """TensorFlow's own name of a checkpoint is no file."""
    from command_line import build

    from builder.inspection import inspect_model
    from builder.spec_draft import draft_spec

    saved_net(root, "root")
    prefix = root / "ckpt" / "run-1"
    assert not prefix.exists()
    assert recognise(prefix) == "tf_checkpoint"
    model = f"{{path: {prefix}, model: tf_nets_for_tests:Net}}"
    inputs = "[{name: x, dtype: float32, shape: [batch, 4]}]"
    (root / "spec.yaml").write_text(f"models: [{{name: net, source: {model}, inputs: {inputs}}}]")
    ran = build("spec.yaml", "-o", "repo", "--targets", "onnxruntime:fp32", cwd=root)
    assert ran.code == 0, ran.err
    found = inspect_model(prefix)
    assert found.path == f"{prefix}.index"
    assert f"name: {prefix.name}\n    source:\n      path: ckpt/run-1.index" in draft_spec([found], root)


def test_describe_checkpoint(root):
    saved_net(root, "named")
    found = tf_checkpoint.describe(root / "ckpt")
    assert found.parameters == 16  # the step too: a number like any other
    assert "net/weight" in found.notes[0]


def tf1_checkpoint(folder):
    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        x = v1.placeholder(tf.float32, (None, 4), "x")
        weight = v1.get_variable("w", initializer=np.arange(8, dtype=np.float32).reshape(4, 2))
        tf.nn.relu(x @ weight, name="y")
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(folder / "old.ckpt"))
    return folder / "old.ckpt.index"


def test_tf1_checkpoint_with_its_graph(tmp_path):
    path = tf1_checkpoint(tmp_path)
    assert "does not tell its outputs" in failure(path, tmp_path)
    assert "has no tensor 'nope'" in failure(path, tmp_path, outputs=("nope",))
    report, requests, made = export(path, tmp_path / "out", outputs=("y",))
    weight = np.arange(8, dtype=np.float32).reshape(4, 2)
    assert report.signature.describe() == "x float32[batch,4] → y float32[batch,2]"
    assert_answers(requests, made, lambda feeds: {"y": np.maximum(feeds["x"] @ weight, 0)})


def test_tf1_checkpoint_without_a_usable_graph(tmp_path):
    path = tf1_checkpoint(tmp_path)
    meta = tmp_path / "old.ckpt.meta"
    content = meta.read_bytes()
    meta.write_bytes(content[: len(content) // 2])
    assert "no usable graph" in failure(path, tmp_path, outputs=("y",))
    meta.unlink()
    assert "TensorFlow 1 checkpoint without its graph" in failure(path, tmp_path, outputs=("y",))


def test_tensorflows_own_words_are_kept(tmp_path):
    class Picky(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, name="x")])
        def three(self, x):
            return tf.reshape(tf.reshape(x, (7, -1)), (11, -1))

    model = Picky()
    tf.saved_model.save(model, str(tmp_path / "picky"), signatures=model.three)
    assert "accepts: Input to reshape is a tensor with 4 values" in failure(tmp_path / "picky", tmp_path)


def test_what_keras_cannot_trace_is_said(tmp_path):
    entry = keras.Input((None, None, 3), name="image")
    keras.Model(entry, keras.layers.UpSampling2D(2, interpolation="bilinear")(entry)).save(tmp_path / "up.keras")
    said = failure(tmp_path / "up.keras", tmp_path, BuildError)
    assert "TensorFlow cannot trace the model: Exception encountered when calling UpSampling2D.call()" in said
    assert "fix the axes in inputs:" in said
    fixed = (Tensor("image", "float32", ("batch", 8, 6, 3)),)
    report, _, _ = export(tmp_path / "up.keras", tmp_path / "out", inputs=fixed)
    assert report.signature.outputs[0].shape == ("batch", 16, 12, 3)


# --- routes -----------------------------------------------------------------------------------------------------------


def test_second_route_is_taken_and_said(tmp_path, monkeypatch):
    from builder.frameworks.tensorflow import routes

    sequential().save(tmp_path / "m.keras")
    real = routes._convert

    def wrong(graph, ports, opset, path, signature):
        """What a faulty rule of the converter looks like: an answer that is a little off."""
        real(graph, ports, opset, path, signature)
        model = onnx.load(path)
        for weight in model.graph.initializer:
            array = onnx.numpy_helper.to_array(weight)
            if array.dtype == np.float32 and array.ndim > 1:
                weight.CopyFrom(onnx.numpy_helper.from_array(array * 1.01, weight.name))
        onnx.save(model, path)

    monkeypatch.setattr(routes, "_convert", wrong)
    report, _, _ = export(tmp_path / "m.keras", tmp_path / "out")
    assert report.route == "keras"
    assert "exported by the keras exporter, because tf2onnx: its result answers differently" in report.notes[0]


def test_the_same_model_gives_the_same_bytes(two, tmp_path):
    _, _, first = export(two[1], tmp_path / "first")
    _, _, second = export(two[1], tmp_path / "second")
    assert first.read_bytes() == second.read_bytes()


EXPORT = """
import sys
from pathlib import Path
from export_models import export
export(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.mark.slow
def test_a_recurrent_model_gives_the_same_bytes_whatever_the_hash_seed(tmp_path):
    """With these two seeds tf2onnx copies one of two equal values and the other."""
    import subprocess
    import sys

    from command_line import ROOT, environment

    keras.utils.set_random_seed(1)
    entry = keras.Input((None, 6), name="steps")
    both = keras.layers.Bidirectional(keras.layers.LSTM(5, return_sequences=True))(entry)
    keras.Model(entry, keras.layers.Dense(3)(keras.layers.GRU(4)(both))).save(tmp_path / "net.keras")
    paths = f"{ROOT}:{ROOT / 'tests'}"
    children = [
        subprocess.Popen(
            [sys.executable, "-c", EXPORT, tmp_path / "net.keras", tmp_path / seed],
            env=environment(PYTHONHASHSEED=seed) | {"PYTHONPATH": paths},
            stderr=subprocess.DEVNULL,
        )
        for seed in ("1", "3")
    ]
    assert [child.wait(timeout=200) for child in children] == [0, 0]
    first, second = (tmp_path / seed / "model.onnx" for seed in ("1", "3"))
    assert sum(node.op_type == "Loop" for node in onnx.load(first).graph.node) == 1
    assert first.read_bytes() == second.read_bytes()


# --- real models ------------------------------------------------------------------------------------------------------


@needs("basic_pitch")
@pytest.mark.slow
def test_basic_pitch(tmp_path):
    folder = inside("basic_pitch", "saved_models", "icassp_2022")
    report, requests, made = export(folder / "nmp", tmp_path / "out", max_batch_size=2)
    assert [tensor.name for tensor in report.signature.outputs] == ["contour", "note", "onset"]
    assert report.parameters == 16872
    shipped = onnx.load(folder / "nmp.onnx")
    request = requests[0]
    theirs = plain_run(folder / "nmp.onnx", {shipped.graph.input[0].name: request.inputs["input_2"]})
    for array in request.outputs.values():
        assert any(other.shape == array.shape and np.allclose(other, array, atol=1e-4) for other in theirs)
    assert np.allclose(plain_run(made, dict(request.inputs))[0], request.outputs["contour"], atol=1e-4)


@needs("guesslang")
@pytest.mark.slow
def test_guesslang_is_refused_with_its_operators(tmp_path):
    path = inside("guesslang", "data", "model")
    said = failure(path, tmp_path, BuildError, signature="predict")
    assert "StringNGrams" in said
    assert "it has classification, predict, serving_default" in failure(path, tmp_path, signature="detect")


@needs("fer")
def test_fer(tmp_path):
    path = inside("fer", "data", "emotion_model.hdf5")
    report, requests, made = export(path, tmp_path / "out")
    assert report.signature.describe() == "input_1 float32[batch,64,64,1] → predictions float32[batch,7]"
    model = keras.models.load_model(path, compile=False)
    assert_answers(requests, made, lambda feeds: {"predictions": model(feeds["input_1"], training=False).numpy()})


KINDS = (
    "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64",
    "string",
)  # fmt: skip


class Kinds(tf.Module):
    """Each type that Triton has, through operators that all of them have."""

    @tf.function(input_signature=[tf.TensorSpec((None, 3), kind, name=f"x_{kind}") for kind in KINDS])
    def serve(self, *values):
        pairs = zip(KINDS, values, strict=True)
        return {f"y_{kind}": tf.reshape(tf.identity(value), (-1, 3, 1)) for kind, value in pairs}

    @tf.function(input_signature=[tf.TensorSpec((), tf.float32, name="s"), tf.TensorSpec((None,), tf.int64, name="v")])
    def ranks(self, s, v):
        return {"doubled": s * 2, "total": tf.reduce_sum(v), "column": v[:, None]}


def test_every_type_and_rank_of_a_saved_model(tmp_path):
    model = Kinds()
    tf.saved_model.save(model, str(tmp_path / "saved"), signatures={"serve": model.serve, "ranks": model.ranks})
    report, requests, made = export(tmp_path / "saved", tmp_path / "out", signature="serve")
    assert {tensor.name: tensor.dtype for tensor in report.signature.outputs} == {f"y_{kind}": kind for kind in KINDS}
    assert report.batch.proven
    for request in requests:
        answers = plain_run(made, dict(request.inputs))
        for kind, answer in zip(sorted(KINDS), answers, strict=True):
            assert np.array_equal(answer[..., 0], request.inputs[f"x_{kind}"])
    report, requests, made = export(tmp_path / "saved", tmp_path / "ranks", signature="ranks")
    assert report.signature.describe().startswith("s float32[], v int64[")
    assert [len(tensor.shape) for tensor in report.signature.outputs] == [2, 0, 0]
    assert_answers(requests, made, lambda feeds: {"doubled": feeds["s"] * 2})


class Asset(tf.Module):
    """A vocabulary file, as text models have it: read when the table is initialised."""

    def __init__(self, path):
        super().__init__()
        self.file = tf.saved_model.Asset(str(path))
        table = tf.lookup.TextFileInitializer(
            self.file, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
        )
        self.table = tf.lookup.StaticHashTable(table, -1)

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="words")])
    def look_up(self, words):
        return {"numbers": self.table.lookup(words)}


class Reaching(tf.Module):
    """Operators with which a file could read, write or run something here."""

    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, name="x")])
    def reads(self, x):
        return {"y": x + tf.cast(tf.strings.length(tf.io.read_file("secret.txt")), tf.float32)}

    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, name="x")])
    def writes(self, x):
        with tf.control_dependencies([tf.io.write_file("written.txt", "content")]):
            return {"y": tf.identity(x)}

    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, name="x")])
    def runs(self, x):
        return {"y": tf.ensure_shape(tf.py_function(lambda a: a + 1, [x], tf.float32), (None, 4))}

    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, name="x")])
    def prints(self, x):
        tf.print(x, output_stream="file://printed.txt")
        return {"y": x + 1}


def test_graphs_that_reach_beyond_themselves_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "saved"
    model = Reaching()
    tf.saved_model.save(model, str(path), signatures=model.writes)
    said = failure(path, tmp_path)
    assert (
        "saved has operators that reach files, the network or Python code: "
        "EagerPyFunc (EagerPyFunc), PrintV2 (PrintV2), ReadFile (ReadFile), WriteFile (WriteFile)"
    ) in said
    assert "allow_pickle: true" in said
    assert any("EagerPyFunc" in note for note in tf_saved_model.describe(path).notes)
    assert not (tmp_path / "written.txt").exists()


def test_a_graph_that_prints_is_no_attack(tmp_path):
    class Printing(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, name="x")])
        def serve(self, x):
            tf.print(tf.shape(x))
            return {"y": x + 1}

    model = Printing()
    tf.saved_model.save(model, str(tmp_path / "saved"), signatures=model.serve)
    _, requests, made = export(tmp_path / "saved", tmp_path / "out")
    assert_answers(requests, made, lambda feeds: {"y": feeds["x"] + 1})


def test_a_graph_that_reaches_out_is_built_where_it_is_allowed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.txt").write_text("12345")
    path = tmp_path / "saved"
    model = Reaching()
    tf.saved_model.save(model, str(path), signatures=model.reads)
    said = failure(path, tmp_path, BuildError, allow_pickle=True)
    assert "ONNX has no operator for ReadFile" in said
    tf.saved_model.save(model, str(path), signatures=model.writes)
    report, requests, made = export(path, tmp_path / "out", allow_pickle=True)
    assert any("the file's own code ran" in note for note in report.notes)
    assert_answers(requests, made, lambda feeds: {"y": feeds["x"]})


def test_a_vocabulary_is_no_attack(tmp_path):
    (tmp_path / "words.txt").write_text("ant\nbee\ncat\n")
    model = Asset(tmp_path / "words.txt")
    path = tmp_path / "saved"
    tf.saved_model.save(model, str(path), signatures=model.look_up)
    assert "InitializeTableFromTextFileV2" in tf_saved_model.describe(path).operators
    samples = tmp_path / "words.npz"
    np.savez(samples, words=np.array(["bee", "cat", "dog", "ant"]))
    _, requests, made = export(path, tmp_path / "out", samples=samples)
    seen = [number for request in requests for number in request.outputs["numbers"].tolist()]
    assert seen == [1, 2, -1, 0]
    for request in requests:
        assert np.array_equal(plain_run(made, dict(request.inputs))[0], request.outputs["numbers"])


def test_a_tf1_graph_that_reads_files_is_refused(tmp_path):
    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        x = v1.placeholder(tf.float32, (None, 4), "x")
        weight = v1.get_variable("w", initializer=np.ones((4, 2), np.float32))
        length = tf.cast(tf.strings.length(tf.io.read_file("secret.txt", name="look")), tf.float32)
        tf.add(x @ weight, length, name="y")
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(tmp_path / "old.ckpt"))
    said = failure(tmp_path / "old.ckpt.index", tmp_path, outputs=("y",))
    assert "old.ckpt.meta has operators that reach files, the network or Python code: ReadFile (look)" in said
