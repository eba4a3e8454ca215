"""Ctrl-C and SIGTERM end a command, whatever it was doing when they came.

Python runs a signal's handler between two instructions of the main thread. Where those stand in a `__del__`, a weak
reference's callback or a ctypes callback, an exception goes no further: `sys.unraisablehook` gets it and the program
runs on (https://docs.python.org/3/library/sys.html#sys.unraisablehook). So what the hook gets is raised again.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

AGAIN_S: Final = 0.01
"""After so long the interrupt is raised once more: by then the callback that swallowed it has mostly ended."""


def install() -> None:
    """From here on SIGTERM raises KeyboardInterrupt as Ctrl-C does, and neither is ever swallowed.

    In the main thread only. SIGALRM is taken for it.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGALRM, _interrupt)
    sys.unraisablehook = _unraisable


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
    raise KeyboardInterrupt


def _unraisable(lost: UnraisableHookArgs, /) -> None:
    if isinstance(lost.exc_value, KeyboardInterrupt):
        signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
    else:
        sys.__unraisablehook__(lost)
