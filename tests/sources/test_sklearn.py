"""scikit-learn pickles: refused unless allowed, of one version, converted so that labels are equal."""

import pickle
import re

import numpy as np
import onnx
import pytest
from export_models import export, plain_run, work_of

from builder.errors import BuildError, SpecError
from builder.export import run_export
from builder.recognise import recognise
from builder.sources import sklearn_model
from builder.tensors import Tensor

sklearn = pytest.importorskip("sklearn", reason="scikit-learn is not installed")
pytest.importorskip("skl2onnx", reason="skl2onnx is not installed")
joblib = pytest.importorskip("joblib")


def digits():
    from sklearn.datasets import load_digits

    return load_digits(return_X_y=True)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200)).fit(*digits())
    path = tmp_path_factory.mktemp("sk") / "digits.joblib"
    joblib.dump(pipeline, path)
    return pipeline, path


def dumped(estimator, path, **options):
    joblib.dump(estimator, path, **options)
    return path


def failure(path, tmp_path, kind=SpecError, **options):
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    with pytest.raises(kind) as caught:
        run_export(work_of(path, **{"allow_pickle": True, **options}), out)
    return caught.value.message + " | " + caught.value.remedy


def check(estimator, tmp_path, name="m", **options):
    """Export; every answer of the file equal to the estimator's own, labels exactly."""
    path = dumped(estimator, tmp_path / f"{name}.joblib")
    report, requests, exported = export(path, tmp_path / name, allow_pickle=True, **options)
    for request in requests:
        for answer, output in zip(plain_run(exported, dict(request.inputs)), report.signature.outputs, strict=True):
            expected = request.outputs[output.name]
            if output.dtype.startswith("float"):
                assert np.allclose(answer, expected, atol=1e-4, rtol=1e-3)
            else:
                assert (answer == expected).all()
    return report, requests, exported


def test_a_pickle_is_refused_unless_allowed(classifier, tmp_path):
    _, path = classifier
    assert recognise(path) == "sklearn"
    message = failure(path, tmp_path, allow_pickle=False)
    assert "digits.joblib is a pickle (it names sklearn.pipeline.Pipeline" in message
    assert "allow_pickle: true" in message
    note, _, backends = sklearn_model.describe(path).notes
    assert "only the onnxruntime backend has" in backends
    assert f"scikit-learn {sklearn.__version__} that names sklearn.pipeline.Pipeline" in note


@pytest.mark.parametrize("name", ["plain.pkl", "zlib.joblib", "gzip.gz", "xz.xz", "bz2.bz2"])
def test_every_way_of_pickling(classifier, tmp_path, name):
    pipeline, _ = classifier
    path = tmp_path / name
    if name == "plain.pkl":
        path.write_bytes(pickle.dumps(pipeline))
    else:
        method = {"zlib": "zlib", "gzip": "gzip", "xz": "xz", "bz2": "bz2"}[name.split(".")[0]]
        joblib.dump(pipeline, path, compress=(method, 3))
    assert recognise(path) == "sklearn"
    assert sklearn.__version__ in sklearn_model.describe(path).notes[0]
    source = work_of(path, allow_pickle=True).source
    assert sklearn_model.load(source, (), ()).inputs == (Tensor("input", "float32", ("batch", 64)),)


def test_no_code_runs_without_the_word(tmp_path):
    from sklearn.preprocessing import FunctionTransformer

    class Bomb:
        def __reduce__(self):
            from pathlib import Path

            return Path.touch, (tmp_path / "exploded",)

    path = tmp_path / "bomb.pkl"
    path.write_bytes(pickle.dumps([FunctionTransformer(), Bomb()]))
    assert recognise(path) == "sklearn"
    sklearn_model.describe(path)
    failure(path, tmp_path, allow_pickle=False)
    assert not (tmp_path / "exploded").exists()


def test_another_version_is_refused_before_it_is_opened(classifier, tmp_path):
    pipeline, _ = classifier
    content = pickle.dumps(pipeline)
    here = sklearn.__version__
    other = re.sub(r"\d", "0", here)
    path = tmp_path / "old.pkl"
    path.write_bytes(content.replace(here.encode(), other.encode()))
    message = failure(path, tmp_path)
    assert f"old.pkl was pickled by scikit-learn {other}; {here} is installed" in message
    assert f"pip install scikit-learn=={other}" in message


def test_classifier(classifier, tmp_path):
    pipeline, path = classifier
    report, requests, exported = export(path, tmp_path / "out", allow_pickle=True)
    assert (
        report.signature.describe() == "input float32[batch,64] → label int64[batch], probabilities float32[batch,10]"
    )
    assert report.route == "skl2onnx"
    assert report.batch.proven
    assert "the source was opened as a pickle, which can run code: the spec allows it" in report.notes
    request = requests[3]
    assert (request.outputs["label"] == pipeline.predict(request.inputs["input"])).all()
    assert np.allclose(request.outputs["probabilities"], pipeline.predict_proba(request.inputs["input"]), atol=1e-6)
    onnx.checker.check_model(str(exported), full_check=True)


def test_outputs_may_be_chosen_and_inputs_be_doubles(classifier, tmp_path):
    _, path = classifier
    inputs = (Tensor("pixels", "float64", ("batch", 64)),)
    report, _, _ = export(path, tmp_path / "out", allow_pickle=True, inputs=inputs, outputs=("probabilities",))
    assert report.signature.describe() == "pixels float64[batch,64] → probabilities float64[batch,10]"
    message = failure(path, tmp_path, outputs=("scores",))
    assert "outputs: got scores; this estimator gives label, probabilities" in message
    message = failure(path, tmp_path, inputs=(Tensor("x", "float32", ("batch", 5)),))
    assert "inputs: got 5 columns; digits.joblib takes 64" in message


def test_where_float32_gives_other_labels_float64_is_computed(tmp_path):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = np.random.default_rng(0).standard_normal((50, 2))
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, rows.sum(1) > 0)
    # A mean and an intercept that cancel each other: float32 keeps one decimal of what is left.
    pipeline[0].mean_, pipeline[0].scale_ = np.full(2, 1e6), np.ones(2)
    pipeline[1].coef_, pipeline[1].intercept_ = np.ones((1, 2)), np.array([2e6])
    report, _, exported = check(pipeline, tmp_path)
    assert report.route == "skl2onnx float64"
    assert any(
        note.startswith("exported by the skl2onnx float64 exporter, because skl2onnx: ") for note in report.notes
    )
    assert report.signature.inputs[0].dtype == "float32"
    assert report.signature.outputs[1].dtype == "float32"
    assert onnx.load(str(exported)).graph.node[0].op_type == "Cast"


def test_other_kinds_of_estimators(tmp_path):
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.ensemble import GradientBoostingRegressor, IsolationForest, RandomForestClassifier
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.linear_model import LinearRegression
    from sklearn.svm import SVC, LinearSVC

    generator = np.random.default_rng(0)
    rows, words = generator.standard_normal((80, 5)), generator.choice(["cat", "dog", "cow"], 80)
    gives = {
        "forest": (RandomForestClassifier(4).fit(rows, words), "label string[batch], probabilities float32[batch,3]"),
        "linear": (LinearRegression().fit(rows, rows[:, :2]), "variable float32[batch,2]"),
        "boosted": (GradientBoostingRegressor(n_estimators=4).fit(rows, rows[:, 0]), "variable float32[batch]"),
        "clusters": (KMeans(3, n_init=1).fit(rows), "label int64[batch], scores float32[batch,3]"),
        "reduced": (PCA(2).fit(rows), "variable float32[batch,2]"),
        "outliers": (IsolationForest(n_estimators=4).fit(rows), "label int64[batch], scores float32[batch]"),
        "separator": (LinearSVC().fit(rows, words), "label string[batch]"),
        "process": (GaussianProcessRegressor(alpha=0.5).fit(rows, rows[:, 0]), "variable float32[batch]"),
        "machine": (SVC().fit(rows, words), "label string[batch]"),
    }
    for name, (estimator, outputs) in gives.items():
        report, _, _ = check(estimator, tmp_path, name)
        assert report.signature.describe() == f"input float32[batch,5] → {outputs}"


def test_columns_of_texts_and_numbers(tmp_path):
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    generator = np.random.default_rng(0)
    rows = np.empty((60, 3), object)
    rows[:, 0], rows[:, 2] = generator.standard_normal(60), generator.standard_normal(60)
    rows[:, 1] = generator.choice(["hello world", "a", "42"], 60)
    steps = [("numbers", StandardScaler(), [0, 2]), ("texts", OneHotEncoder(handle_unknown="ignore"), [1])]
    pipeline = make_pipeline(ColumnTransformer(steps), LogisticRegression())
    pipeline.fit(rows, generator.choice(["yes", "no"], 60))
    path = dumped(pipeline, tmp_path / "mixed.joblib")
    message = failure(path, tmp_path)
    assert "ColumnTransformer does not tell the types of its columns" in message
    assert "{name: column_1, dtype: float32, shape: [batch, 1]}" in message
    inputs = tuple(
        Tensor(name, dtype, ("batch", 1))
        for name, dtype in (("age", "float32"), ("town", "string"), ("pay", "float32"))
    )
    report, requests, _ = check(pipeline, tmp_path, inputs=inputs)
    assert report.signature.outputs == (
        Tensor("label", "string", ("batch",)),
        Tensor("probabilities", "float32", ("batch", 2)),
    )
    assert isinstance(requests[0].inputs["town"][0, 0], str)


def test_texts(tmp_path):
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.pipeline import make_pipeline

    pipeline = make_pipeline(CountVectorizer(), MultinomialNB()).fit(
        ["hello world fox", "lazy dog print"] * 3, [0, 1] * 3
    )
    report, _, _ = check(pipeline, tmp_path)
    assert report.signature.inputs == (Tensor("input", "string", ("batch", 1)),)


def test_a_wrong_answer_is_not_passed_by_fixing_the_batch(tmp_path):
    """onnxruntime cuts words at letters with accents: in "naïve café" it finds "ve", which scikit-learn does not."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    path = dumped(TfidfVectorizer().fit(["ve caf world"]), tmp_path / "m.joblib")
    assert "its result answers differently" in failure(path, tmp_path, kind=BuildError)


def test_the_same_estimator_gives_the_same_bytes(classifier, tmp_path):
    _, path = classifier
    first, second = (export(path, tmp_path / name, allow_pickle=True)[2] for name in ("one", "two"))
    assert first.read_bytes() == second.read_bytes()


def test_what_was_never_fitted_says_so(tmp_path):
    from sklearn.preprocessing import StandardScaler

    said = failure(dumped(StandardScaler(), tmp_path / "m.joblib"), tmp_path)
    assert "this StandardScaler is not fitted | call its fit()" in said


@pytest.mark.parametrize(("voting", "outputs"), [("hard", 1), ("soft", 2)])
def test_voting(tmp_path, voting, outputs):
    from sklearn.ensemble import VotingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import GaussianNB
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    generator = np.random.default_rng(0)
    rows, words = generator.standard_normal((80, 5)), generator.choice(["cat", "dog", "cow"], 80)
    members = [("linear", LogisticRegression()), ("bayes", GaussianNB())]
    voters = make_pipeline(StandardScaler(), VotingClassifier(members, voting=voting)).fit(rows, words)
    report, _, _ = check(voters, tmp_path)
    described = ("label string[batch]", "probabilities float32[batch,3]")[:outputs]
    assert [tensor.describe() for tensor in report.signature.outputs] == list(described)
    assert voters[-1].flatten_transform


def test_several_labels_at_once(tmp_path):
    """Their probabilities are one table a label, which no tensor can be."""
    from sklearn.tree import DecisionTreeClassifier

    generator = np.random.default_rng(0)
    rows, labels = generator.standard_normal((80, 5)), generator.integers(0, 3, (80, 2))
    tree = DecisionTreeClassifier(max_depth=3).fit(rows, labels)
    message = failure(dumped(tree, tmp_path / "tree.joblib"), tmp_path)
    assert "one table for each of several outputs" in message
    assert "choose outputs: [label] in the spec" in message
    report, _, _ = check(tree, tmp_path, outputs=("label",))
    assert report.signature.describe() == "input float32[batch,5] → label int64[batch,2]"


def test_what_skl2onnx_does_not_know(tmp_path):
    from sklearn.preprocessing import FunctionTransformer

    rows = np.random.default_rng(0).standard_normal((8, 2))
    path = dumped(FunctionTransformer(np.sin).fit(rows), tmp_path / "sine.joblib")
    assert "skl2onnx could not convert the estimator. skl2onnx: " in failure(path, tmp_path, BuildError)
    path = dumped({"model": FunctionTransformer()}, tmp_path / "dict.joblib")
    assert "dict.joblib holds a dict, no scikit-learn estimator" in failure(path, tmp_path)
