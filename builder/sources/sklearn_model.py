"""scikit-learn estimators and pipelines in a pickle or joblib file: opened only where the spec allows it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from builder.callables import use_import_root
from builder.errors import SpecError
from builder.frameworks.pytorch.unpickle import CODE_RAN, RUNS_CODE
from builder.frameworks.sklearn.estimator import SklearnSource, check_inputs, own_inputs
from builder.frameworks.sklearn.pickle_file import estimator_names, open_estimator, pickle_refusal, written_by
from builder.sources import Description
from builder.tensors import Tensor
from builder.work import SourceRef

LIBRARIES: Final = ("scikit-learn", "skl2onnx", "joblib", "onnx", "onnxruntime", "numpy")
EXTRA: Final = "sklearn"
FORMATS: Final = ("onnx",)
SHOWN: Final = 5


def recognise(path: Path) -> bool:
    """A pickle, compressed or not, that names something of scikit-learn."""
    return bool(estimator_names(path))


def describe(path: Path) -> Description:
    """What the pickle would import and which version wrote it; nothing in it is executed."""
    names = [name for name in estimator_names(path) if not name.startswith(("numpy.", "joblib."))]
    version = written_by(path)
    return Description(
        format="sklearn",
        signature=None,
        notes=(
            f"a pickle of scikit-learn {version or '(version not recorded)'} that names {', '.join(names[:SHOWN])}",
            RUNS_CODE,
            "most estimators become operators of ai.onnx.ml, which only the onnxruntime backend has",
        ),
    )


def screen(source: SourceRef) -> None:
    """Raises SpecError where the spec does not allow pickles."""
    if not source.allow_pickle:
        raise pickle_refusal(Path(source.path))


def load(source: SourceRef, inputs: tuple[Tensor, ...], outputs: tuple[str, ...]) -> SklearnSource:
    """Unpickle the estimator; it tells its inputs where they are one matrix.

    Raises:
        SpecError: not allowed, written by another version, no estimator, or inputs that do not fit.
    """
    path = Path(source.path)
    screen(source)
    use_import_root(source.import_root)
    estimator, notes = open_estimator(path)
    if not hasattr(estimator, "get_params"):
        raise SpecError(
            f"{path.name} holds a {type(estimator).__name__}, no scikit-learn estimator",
            remedy="save the fitted estimator or pipeline itself: joblib.dump(pipeline, ...)",
        )
    chosen = inputs or own_inputs(estimator, path)
    check_inputs(estimator, chosen, path)
    return SklearnSource(estimator, chosen, outputs, (CODE_RAN, *notes))
