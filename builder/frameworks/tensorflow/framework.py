"""TensorFlow and Keras, imported late, quietly and on the CPU."""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from builder.errors import MachineError
from builder.log import get_logger
from builder.onnx_tools.reading import short

EXTRA: Final = "tensorflow"
NAMES: Final = ("tensorflow", "tensorflow-cpu", "tensorflow-intel", "tf-nightly")
"""Distributions that bring the module `tensorflow`."""
QUIET: Final = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": "-1"}
"""No GPU is looked for; without oneDNN's rewriting the answers do not depend on its thread count."""


def libraries(*more: str) -> tuple[str, ...]:
    """The distributions that decide a TensorFlow source's result; `tf_keras` only where it is installed."""
    tensorflow = next((name for name in NAMES if _installed(name)), NAMES[0])
    optional = tuple(name for name in more if _installed(name))
    return (tensorflow, "keras", "tf2onnx", "onnx", "onnxruntime", "numpy", *optional)


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def import_tensorflow() -> Any:  # noqa: ANN401 - the module tensorflow
    """TensorFlow, or the line that installs it.

    Raises:
        MachineError: it is not installed or does not load.
    """
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    os.environ["KERAS_BACKEND"] = "tensorflow"
    try:
        with silent():
            import tensorflow as tf
    except (ImportError, OSError) as error:
        raise _missing("TensorFlow", error, f"pip install 'build-repo[{EXTRA}]'") from error
    tf.get_logger().setLevel("ERROR")
    return tf


def import_keras() -> Any:  # noqa: ANN401 - the module keras
    """Keras 3 on TensorFlow.

    Raises:
        MachineError: it is not installed, or already runs on another backend.
    """
    import_tensorflow()
    try:
        with silent():
            import keras
    except (ImportError, OSError) as error:
        raise _missing("Keras", error, f"pip install 'build-repo[{EXTRA}]'") from error
    if keras.backend.backend() != "tensorflow":
        raise MachineError(
            f"Keras runs on {keras.backend.backend()} in this process", remedy="leave KERAS_BACKEND unset"
        )
    return keras


def import_tf_keras() -> Any:  # noqa: ANN401 - the module tf_keras
    """Keras 2.

    Raises:
        MachineError: it is not installed.
    """
    import_tensorflow()
    try:
        with silent():
            import tf_keras
    except (ImportError, OSError) as error:
        raise _missing("tf_keras (Keras 2)", error, "pip install tf_keras") from error
    return tf_keras


def _missing(what: str, error: Exception, remedy: str) -> MachineError:
    return MachineError(f"this model needs {what}, which cannot be imported: {short(error)}", remedy=remedy)


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """TensorFlow's C++ writes to the descriptor itself before any logger exists; its words help nobody."""
    saved = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    loud = get_logger().isEnabledFor(10)
    try:
        if not loud:
            os.dup2(null, 2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """TensorFlow and Keras put stack traces around what they have to say: only the latter is kept.

    Raises:
        RuntimeError: in place of theirs.
    """
    try:
        yield
    except Exception as error:
        text = telling_line(str(error))
        if text == str(error):
            raise
        raise RuntimeError(text) from error


def telling_line(text: str) -> str:
    """What went wrong, from a message of TensorFlow or Keras; any other message as it is."""
    bold = re.search(r"\x1b\[1m(.*?)\x1b\[0m", text, re.DOTALL)
    if text.startswith("in user code") or bold:
        head = re.search(r"^\s*\w*(?:Error|Exception): (.+)$", text, re.MULTILINE)
        said = [head.group(1).strip() if head else text.splitlines()[0]]
        return " ".join([*said, *([bold.group(1).split(". ")[0].strip()] if bold else [])])
    if text.startswith("Graph execution error"):
        passed = ("Graph execution error", "Detected at", "<stack", "[[", "Stack trace", " ", "\t")
        lines = [line for line in text.splitlines() if line.strip() and not line.startswith(passed)]
        return lines[0] if lines else text
    return re.sub(r"\{\{.*?\}\} ?", "", text)
