"""The model that runs steps, as far as it needs no server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builder.frameworks.python.model import ContractError, Step, StepError, as_array, call, load_callable, named


def test_answers_by_dict_by_tuple_and_alone() -> None:
    one, two = np.ones(2), np.zeros(3)
    assert list(named({"b": one, "a": two}, None)) == ["b", "a"]
    assert list(named({"b": one, "a": two}, ("a",))) == ["a"]
    assert list(named((one, two), None)) == ["output_0", "output_1"]
    assert list(named([one, two], ("x", "y"))) == ["x", "y"]
    assert list(named(one, None)) == ["output_0"]
    assert named(3.5, ("x",))["x"].shape == ()


@pytest.mark.parametrize(
    ("result", "names", "says"),
    [
        (None, None, "output 'output_0' is None; return an array"),
        ({"a": np.ones(1)}, ("a", "b"), "it returned a dict without b; it holds a"),
        ((np.ones(1),), ("a", "b"), "it returned 1 output, expected 2: a, b"),
        (np.array([None], dtype=object), ("a",), "output 'a' holds a NoneType; return numbers, or strings"),
        ([[1, 2], {"x": 1}], ("a", "b"), "output 'b' holds a dict"),
    ],
)
def test_what_is_no_answer(result: Any, names: tuple[str, ...] | None, says: str) -> None:
    with pytest.raises(ContractError) as caught:
        named(result, names)
    assert says in str(caught.value)


def test_strings_keep_every_byte() -> None:
    items = [b"a\0", b"\xff", b"", "naïve".encode()]
    assert as_array("x", items).tolist() == items
    assert as_array("x", np.array(items, dtype=object)).tolist() == items
    assert as_array("x", [["naïve"], ["b"]]).tolist() == [["naïve".encode()], [b"b"]]
    assert as_array("x", np.array(["a", "bc"])).tolist() == [b"a", b"bc"]
    assert as_array("x", b"whole").tolist() == b"whole"


def write(folder: Path, code: str, outputs: list[dict[str, Any]]) -> Path:
    (folder / "code").mkdir(parents=True)
    (folder / "code" / "own.py").write_text(code, encoding="utf-8")
    facts = {
        "file": "own.py", "function": "run", "args": {"n": 2}, "files": {"table": "table/t.txt"},
        "inputs": [{"name": "x", "dtype": "string", "shape": ["batch"]}], "outputs": outputs,
    }  # fmt: skip
    (folder / "step.json").write_text(json.dumps(facts), encoding="utf-8")
    return folder


def test_an_answer_that_differs_from_what_was_built_is_an_error(tmp_path: Path) -> None:
    declared = [{"name": "y", "dtype": "float32", "shape": ["batch", 2]}]
    code = "import numpy as np\ndef run(x, n, table):\n    return np.ones((len(x), int(x[0])), x[-1].decode())\n"
    step = Step(write(tmp_path, code, declared))
    assert step.run({"x": np.array(["2", "float32"], dtype=object)})["y"].shape == (2, 2)
    with pytest.raises(ContractError, match=r"output 'y' is float64\[2, 2\]; the model declares float32\[-1, 2\]"):
        step.run({"x": np.array(["2", "float64"], dtype=object)})
    with pytest.raises(ContractError, match=r"output 'y' is float32\[2, 3\]"):
        step.run({"x": np.array(["3", "float32"], dtype=object)})
    with pytest.raises(StepError, match=r"ValueError: invalid literal .* \(own.py, line 3: return np.ones"):
        step.run({"x": np.array(["x", "float32"], dtype=object)})


def test_the_last_line_of_the_step_is_named_not_of_a_library(tmp_path: Path) -> None:
    (tmp_path / "parse.py").write_text("import json\n\n\ndef run(text):\n    return json.loads(text)\n")
    function = load_callable(tmp_path / "parse.py", "run", {})
    with pytest.raises(StepError) as caught:
        call(function, {"text": "{"}, tmp_path)
    assert str(caught.value).startswith("JSONDecodeError: Expecting property name")
    assert str(caught.value).endswith("(parse.py, line 5: return json.loads(text))")
    (tmp_path / "leave.py").write_text("def run(text):\n    raise SystemExit(3)\n")
    with pytest.raises(StepError, match=r"SystemExit: 3 \(leave.py, line 2"):
        call(load_callable(tmp_path / "leave.py", "run", {}), {"text": ""}, tmp_path)
