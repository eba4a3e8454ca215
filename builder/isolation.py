"""Code that a file runs when it is opened gets no network, where the host can do that."""

from __future__ import annotations

import ctypes
import os
from typing import Final

CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWNET: Final = 0x40000000
"""linux/sched.h"""


def leave_network() -> bool:
    """Move this process into an empty network of its own, for good; False where the kernel does not let it.

    Needs to be called before any thread starts: unshare(2) makes a user namespace only for a single thread.
    """
    unshare = getattr(ctypes.CDLL(None, use_errno=True), "unshare", None)
    if unshare is None:
        return False
    if os.geteuid() == 0 and unshare(CLONE_NEWNET) == 0:
        return True
    return bool(unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0)
