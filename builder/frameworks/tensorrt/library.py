"""The package of TensorRT 10 or 11, or `tensorrt_rtx`, which has the same interface and compiles without a GPU."""

from __future__ import annotations

import sys
import warnings
from functools import cache
from importlib import import_module
from typing import Any, Final

from builder.errors import BuildError

REAL: Final = "tensorrt"
STAND_IN: Final = "tensorrt_rtx"
DISTRIBUTIONS: Final = {REAL: "tensorrt", STAND_IN: "tensorrt-rtx"}
NOISE: Final = ("checkMacros.cpp", "CUDA driver version is insufficient", "CUDA lazy loading")
"""What the stand-in says of every error on a machine without a driver."""


def load(name: str) -> Any:  # noqa: ANN401 - a module
    """The package.

    Raises:
        BuildError: it is installed and does not import.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return import_module(name)
    except (ImportError, OSError, RuntimeError) as error:
        raise BuildError(
            f"the Python package {DISTRIBUTIONS[name]} does not import: {error}",
            remedy=f"pip install --force-reinstall {DISTRIBUTIONS[name]}",
        ) from error


def describe(library: Any) -> str:  # noqa: ANN401
    """`tensorrt 11.1.0.106`."""
    return f"{DISTRIBUTIONS[library.__name__]} {library.__version__}"


@cache
def logger(library: Any) -> Any:  # noqa: ANN401
    """The one logger of this process: TensorRT keeps the first that it is given, and ignores every later one.

    Warnings go to stderr, which is the work's log; errors are kept in `errors` too, for the message.
    """

    class Logger(library.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            library.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, text: str) -> None:  # noqa: ANN401
            if severity > library.ILogger.WARNING or any(word in text for word in NOISE):
                return
            sys.stderr.write(f"{severity.name} {text}\n")
            if severity < library.ILogger.WARNING:
                self.errors.append(text)

    return Logger()
