"""`python -m builder` is `build-repo`."""

from builder.cli import entrypoint

if __name__ == "__main__":
    entrypoint()
