"""What a repository says of itself: one record of facts, rendered as a page, as Markdown and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from builder.errors import SpecError
from builder.records import dump, write_text
from builder.report.facts import read_facts
from builder.report.records import RepositoryFacts

__all__ = ("FORMATS", "RepositoryFacts", "read_facts", "render", "write_report")

FORMATS: Final = (".html", ".md", ".json")


def write_report(repository: Path, output: Path) -> RepositoryFacts:
    """Read the repository and write its report in the format of the output's suffix.

    Raises:
        SpecError: the suffix is no format, the output cannot be there, or the repository has no manifest.
        MachineError: a page was asked for and vl-convert-python is not installed.
    """
    _refuse(repository, output)
    facts = read_facts(repository)
    text = render(facts, output.suffix)
    try:
        write_text(output, text)
    except OSError as error:
        raise SpecError(f"{output} cannot be written: {error}", remedy="give another file with -o") from error
    return facts


def _refuse(repository: Path, output: Path) -> None:
    if output.suffix not in FORMATS:
        raise SpecError(f"{output}: no report has the suffix {output.suffix!r}", remedy=f"one of {', '.join(FORMATS)}")
    folder = output.resolve().parent
    if not folder.is_dir():
        raise SpecError(f"{folder}: no such folder", remedy=f"mkdir -p {folder}")
    if output.is_dir():
        raise SpecError(f"{output} is a folder", remedy="give a file with -o")
    if folder.is_relative_to(repository.resolve()):
        raise SpecError(
            f"{output} would lie in the repository, which holds nothing but what is served",
            remedy="give a file elsewhere with -o",
        )


def render(facts: RepositoryFacts, suffix: str) -> str:
    """The facts in the format of a suffix of `FORMATS`.

    Raises:
        MachineError: a page was asked for and vl-convert-python is not installed.
    """
    if suffix == ".json":
        return dump(facts)
    if suffix == ".md":
        from builder.report.markdown import render_markdown

        return render_markdown(facts)
    from builder.report.page import render_page

    return render_page(facts)
