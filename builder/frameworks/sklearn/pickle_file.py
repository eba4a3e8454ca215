"""A pickle of scikit-learn: which version wrote it, read from its bytes; opened only where the spec allows it."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any, Final

from builder.errors import MachineError, SpecError
from builder.frameworks.pytorch.unpickle import unpickle_failure
from builder.onnx_tools.reading import short
from builder.pickles import imported_names, pickle_content, pickle_head

VERSION: Final = re.compile(rb"_sklearn_version.{1,12}?(\d+\.\d+(?:\.\d+)?(?:(?:rc|a|b|\.dev)\d+)?)", re.DOTALL)


def estimator_names(path: Path) -> tuple[str, ...]:
    """What the pickle would import, where part of it is scikit-learn's; empty otherwise."""
    if not path.is_file():
        return ()
    content = pickle_head(path)
    if not content:
        return ()
    try:
        names = imported_names(content)
    except ValueError:
        return ()
    return names if any(name.startswith("sklearn.") for name in names) else ()


def written_by(path: Path) -> str | None:
    """The version of scikit-learn that the pickle records."""
    found = VERSION.search(pickle_content(path))
    return found.group(1).decode() if found else None


def installed() -> str:
    """The version of scikit-learn here.

    Raises:
        MachineError: it is not installed or does not load.
    """
    try:
        import sklearn
    except (ImportError, OSError) as error:
        raise MachineError(
            f"this model needs scikit-learn, which cannot be imported: {short(error)}",
            remedy="pip install 'build-repo[sklearn]'",
        ) from error
    return str(sklearn.__version__)


def pickle_refusal(path: Path) -> SpecError:
    """The refusal of a file whose opening would run code."""
    names = estimator_names(path)
    return SpecError(
        f"{path.name} is a pickle (it names {', '.join(names[:3])}): opening it can run any code, so it is refused",
        remedy="if you trust the file, write source: {path: ..., allow_pickle: true} in a spec; or convert it with "
        "skl2onnx where you trust it and give the .onnx file",
    )


def open_estimator(path: Path) -> tuple[Any, tuple[str, ...]]:
    """The estimator, and notes; this runs the code that the pickle names.

    Raises:
        SpecError: another version of scikit-learn wrote it, a class cannot be imported, or it is damaged.
    """
    here = installed()
    there = written_by(path)
    if there is not None and _minor(there) != _minor(here):
        raise _other_version(path, there, here)
    import joblib
    from sklearn.exceptions import InconsistentVersionWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            content = joblib.load(path)
        except Exception as error:
            raise unpickle_failure(path, error) from error
    others = {
        item.message.original_sklearn_version for item in caught if isinstance(item.message, InconsistentVersionWarning)
    }
    for other in sorted(others):
        if _minor(other) != _minor(here):
            raise _other_version(path, other, here)
    notes = tuple(f"pickled by scikit-learn {other}, opened by {here}" for other in sorted(others))
    return content, notes


def _minor(version: str) -> tuple[str, ...]:
    return tuple(version.split(".")[:2])


def _other_version(path: Path, there: str, here: str) -> SpecError:
    return SpecError(
        f"{path.name} was pickled by scikit-learn {there}; {here} is installed, and may read it wrongly",
        remedy=f"pip install scikit-learn=={there}, or train and save again with {here}",
    )
