"""`build-repo`, which `python -m builder` is too."""

from __future__ import annotations

import sys

from builder.errors import EXIT_INTERRUPTED


def main() -> None:
    """The command line. Ctrl-C while it is still being imported ends it as at any other time, without a traceback."""
    try:
        from builder.cli import entrypoint
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    entrypoint()


if __name__ == "__main__":
    main()
