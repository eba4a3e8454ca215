"""Waking at a moment: gevent's own timers are rounded up to whole milliseconds, as long as a small model takes."""

from __future__ import annotations

import ctypes
import os
import time

import gevent

CLOCK_MONOTONIC = 1
ABSOLUTE = 1
FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
READ = 1
SHORTEST_S = 20e-6


class _Setting(ctypes.Structure):
    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("at_s", ctypes.c_long),
        ("at_ns", ctypes.c_long),
    )


class Alarm:
    """Sleeps of one greenlet until a moment of `time.perf_counter`."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL(None, use_errno=True)
        self.handle = self.library.timerfd_create(CLOCK_MONOTONIC, FLAGS)

    def sleep_until(self, moment: float) -> None:
        """Return at `moment`, other greenlets run meanwhile."""
        left = moment - time.perf_counter()
        if left < SHORTEST_S:
            return
        setting = _Setting(0, 0, int(moment), int(moment % 1 * 1e9))
        if self.handle < 0 or self.library.timerfd_settime(self.handle, ABSOLUTE, ctypes.byref(setting), None):
            gevent.sleep(left)
            return
        hub = gevent.get_hub()
        hub.wait(hub.loop.io(self.handle, READ))
        os.read(self.handle, 8)

    def close(self) -> None:
        """Give the timer back."""
        if self.handle >= 0:
            os.close(self.handle)
            self.handle = -1
