"""Steps in Python that tests build."""

from __future__ import annotations

from pathlib import Path

MIX = '''
import numpy as np

import tables.words
from helper import add


class Mix:
    """Two inputs, two outputs, an argument and a file."""

    def __init__(self, scale, table):
        self.scale = np.float32(scale)
        self.words = tables.words.read(table)

    def __call__(self, x, y):
        if (x > 1e6).any():
            raise ValueError("x is too large")
        word = [self.words[int(abs(row[0])) % len(self.words)] for row in y]
        return {"word": np.array(word, dtype=object)[:, None], "sum": add(x, y) * self.scale, "unused": 1}


def reverse(text):
    assert all(isinstance(item, bytes) for item in text)
    return np.array([len(item) for item in text]), np.array([item[::-1] for item in text], dtype=object)


def centred(x):
    return x - x.mean(axis=0)


def broken(x):
    return helper_of(x)


def helper_of(x):
    raise KeyError("no such thing")


def total(values):
    return np.float32(values.sum())
'''


def write_steps(folder: Path) -> Path:
    """`mix.py` with the module and the package that it imports, and files beside them that it does not."""
    (folder / "tables").mkdir(parents=True)
    (folder / "mix.py").write_text(MIX, encoding="utf-8")
    (folder / "helper.py").write_text("def add(x, y):\n    return x + y\n", encoding="utf-8")
    (folder / "other.py").write_text("raise RuntimeError('nobody imports this')\n", encoding="utf-8")
    (folder / "tables" / "__init__.py").write_text("", encoding="utf-8")
    words = "def read(path):\n    with open(path) as stream:\n        return stream.read().split()\n"
    (folder / "tables" / "words.py").write_text(words, encoding="utf-8")
    (folder / "words.txt").write_text("naïve two three", encoding="utf-8")
    return folder / "mix.py"
