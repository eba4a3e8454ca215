"""Logging: stderr only, one line per step; the command line may install a livelier handler."""

from __future__ import annotations

import logging
import sys

LOGGER_NAME = "build-repo"


def get_logger() -> logging.Logger:
    """The one logger of the package."""
    return logging.getLogger(LOGGER_NAME)


def set_up_logging(*, verbose: bool = False) -> None:
    """Send the package's log to stderr, one line a record."""
    logger = get_logger()
    logger.handlers.clear()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    logger.propagate = False
