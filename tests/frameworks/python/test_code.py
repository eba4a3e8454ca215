"""Which files a step is made of, and what it imports, told without running it."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.errors import SpecError
from builder.frameworks.python.code import callables, distribution_of, not_served, parse, read_code

CODE = """
from __future__ import annotations

import os.path
from typing import TYPE_CHECKING

import numpy.linalg
import plain
import tools.deep.inner
from flat import thing
from onnx import helper

try:
    import optional_of_ours
    import no_such_module
except ImportError:
    optional_of_ours = None
if TYPE_CHECKING:
    import only_for_checkers


def later(x):
    import inside
    return x


def _hidden(x):
    return x


class Called:
    def __call__(self, image, *, size=3):
        return image


class NotCalled:
    pass
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = {
        "step.py": CODE, "plain.py": "import second\n", "second.py": "import plain\nfrom . import third\n",
        "third.py": "", "flat.py": "thing = 1\n", "inside.py": "", "optional_of_ours.py": "", "unused.py": "(",
        "tools/__init__.py": "", "tools/deep/__init__.py": "from ..other import x\n", "tools/deep/inner.py": "",
        "tools/other.py": "x = 1\n", "tools/data.json": "{}", "tools/__pycache__/x.pyc": "",
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_imports_are_followed_through_the_folder(folder: Path) -> None:
    code = read_code(folder / "step.py")
    assert code.files == (
        "flat.py", "inside.py", "optional_of_ours.py", "plain.py", "second.py", "step.py", "third.py",
        "tools/__init__.py", "tools/data.json", "tools/deep/__init__.py", "tools/deep/inner.py", "tools/other.py",
    )  # fmt: skip
    assert [(item.module, item.file, item.line) for item in code.foreign] == [("onnx", "step.py", 11)]


def test_a_package_that_only_build_repo_has_is_found(folder: Path) -> None:
    found = not_served(read_code(folder / "step.py"))
    assert found is not None
    assert found.module == "onnx"
    assert distribution_of("onnx").startswith("onnx==")
    assert distribution_of("no_such_module") == "no_such_module"
    (folder / "step.py").write_text("import no_such_module\n")
    assert not_served(read_code(folder / "step.py")) is None


def test_what_could_be_called_is_listed_with_its_arguments(folder: Path) -> None:
    assert callables(parse(folder / "step.py")) == {"later": ("x",), "Called": ("image", "size")}


def test_code_that_is_none_and_code_for_another_python(folder: Path) -> None:
    with pytest.raises(SpecError, match=r"unused.py, line 1: '\(' was never closed"):
        parse(folder / "unused.py")
    (folder / "new.py").write_text("match 1:\n    case 1:\n        pass\n")
    parse(folder / "new.py")
    with pytest.raises(SpecError, match=r"Pattern matching is only supported in Python 3.10") as caught:
        parse(folder / "new.py", (3, 9))
    assert caught.value.remedy == "the file must be Python 3.9 or older"
    (folder / "null.py").write_bytes(b"x = 1\0")
    with pytest.raises(SpecError, match=r"null.py"):
        parse(folder / "null.py")
