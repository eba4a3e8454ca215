"""What is wrong in a spec file, at its place: all of it in one error."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from builder.errors import SpecError
from builder.yaml_lines import Lines, Path, line_of, path_text

__all__ = ("Path", "Problem", "nearest", "spec_error")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in the file, at a path of keys and positions."""

    path: Path
    message: str
    remedy: str = ""


def spec_error(origin: str, problems: Sequence[Problem], lines: Lines) -> SpecError:
    """One error of all problems, each with its line and path."""

    def text(problem: Problem) -> str:
        line = line_of(problem.path, lines)
        return f"{f'line {line}: ' if line else ''}{path_text(problem.path)}: {problem.message}"

    if len(problems) == 1:
        return SpecError(f"{origin}: {text(problems[0])}", remedy=problems[0].remedy)
    problems = sorted(problems, key=lambda problem: line_of(problem.path, lines) or 0)
    body = "\n".join(f"  {text(problem)}{f' ({problem.remedy})' if problem.remedy else ''}" for problem in problems)
    return SpecError(f"{origin}: {len(problems)} errors\n{body}")


def nearest(word: str, known: Sequence[str]) -> str:
    """`; did you mean 'classifier'?`, else what is known."""
    near = difflib.get_close_matches(word, known, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known: {', '.join(known)}" if known else ""
