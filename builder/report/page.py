"""The facts as one page that needs nothing else: no network, no font, no library. Its script only folds and colours."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from builder import __version__
from builder.report import tables
from builder.report.charts import Plot
from builder.report.figures import render_svg
from builder.report.plots import measured_plots
from builder.report.records import EnsembleFacts, ModelFacts, RepositoryFacts
from builder.report.tuning_plots import tuning_plots
from builder.resources import resource

if TYPE_CHECKING:
    from jinja2 import Environment

BUDGET_BYTES: Final = 2_700_000
"""Of all models together: a page under 3 MB is one that mail and code hosts take."""
FIGURE: Final = re.compile(r"(\d) (%|ms|s|rows/s|[kMG]?B|users?|points?)(?![\w/])")
BRIEF_BYTES: Final = 6_000
"""What is kept free for each model that may have to be shown in brief."""
COLOURS: Final = {
    "back": ("#f6f7f9", "#0f141b"), "card": ("#ffffff", "#171e27"), "deep": ("#eef1f5", "#1f2833"),
    "ink": ("#16202c", "#e7ecf2"), "soft": ("#566270", "#a6b1bf"), "line": ("#d9dfe7", "#33404f"),
    "accent": ("#0b57d0", "#8ab4ff"), "good": ("#0b6b3a", "#5fd896"), "warn": ("#8a5000", "#f2b862"),
    "bad": ("#b3261e", "#ff958a"),
    "c0": ("#2563eb", "#7db0ff"), "c1": ("#c2410c", "#ff9a5c"), "c2": ("#0f7b4f", "#56d39a"),
    "c3": ("#7c3aed", "#b79cff"), "c4": ("#0e7490", "#5bd0e6"), "c5": ("#be185d", "#ff8cc0"),
    "c6": ("#854d0e", "#e2b04a"), "c7": ("#475569", "#a9b6c6"),
}  # fmt: skip
"""Name → light and dark. `c0` to `c7` are those of plots: 3 to 1 on `card`; words have 4.5 to 1."""


def environment(*, autoescape: bool) -> Environment:
    """Jinja over `templates/report/`."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(resource("templates") / "report"),
        undefined=StrictUndefined,
        autoescape=autoescape,  # noqa: S701 - Markdown is no HTML, and escapes in its own way
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def unbroken(text: str) -> str:
    """With a space in each figure at which no line is broken: `87.5 %`."""
    return FIGURE.sub("\\1\u00a0\\2", text)


def render_page(facts: RepositoryFacts, budget_bytes: int = BUDGET_BYTES) -> str:
    """The whole page. Models that would make it too large are shown without plots and details, and it says so.

    Raises:
        MachineError: vl-convert-python is not installed.
    """
    jinja = environment(autoescape=True)
    jinja.filters["unbroken"] = unbroken
    template = jinja.get_template("article.html.j2")
    items: tuple[ModelFacts | EnsembleFacts, ...] = (*facts.models, *facts.ensembles)
    left = budget_bytes - BRIEF_BYTES * len(items)
    articles, brief = [], []
    for number, item in enumerate(items):
        text = template.render(article=_article(number, item)) if left > 0 else ""
        if not text or len(text.encode()) > left:
            brief.append(item.name)
            text = template.render(article={**_heading(number, item), "plots": (), "sections": ()})
        else:
            left -= len(text.encode())
        articles.append(text)
    return jinja.get_template("report.html.j2").render(
        facts=facts,
        articles=articles,
        brief=brief,
        overview=[_heading(number, item) for number, item in enumerate(items)],
        colours=COLOURS,
        libraries=tables.libraries_table(facts.provenance),
        machines=tables.machines(facts.provenance),
        version=__version__,
    )


def _heading(number: int, item: ModelFacts | EnsembleFacts) -> dict[str, Any]:
    """What every article has, also in brief."""
    severities = [finding.severity for finding in item.findings]
    shared = {
        "id": f"m{number}",
        "name": item.name,
        "headline": item.headline,
        "findings": item.findings,
        "counts": [(word, severities.count(word)) for word in ("error", "warning") if word in severities],
        "live": [folder.live for folder in item.folders[:1]],
    }
    if isinstance(item, EnsembleFacts):
        return shared | {"kind": "ensemble", "why": "", "cards": (), "targets": None, "rows": ()}
    table = tables.targets_table(item.targets, item.tuning)
    return shared | {
        "kind": item.served or "not served",
        "why": item.why,
        "cards": item.cards,
        "targets": table,
        "rows": tuple(zip(item.targets, table.rows, strict=True)),
    }


def _article(number: int, item: ModelFacts | EnsembleFacts) -> dict[str, Any]:
    heading = _heading(number, item)
    if isinstance(item, EnsembleFacts):
        return heading | {"plots": (), "sections": tables.ensemble_sections(item)}
    plots = [*(tuning_plots(item.tuning) if item.tuning else ()), *measured_plots(item)]
    return heading | {"plots": _drawn(plots), "sections": tables.sections(item)}


def _drawn(plots: Iterable[Plot]) -> list[dict[str, Any]]:
    from markupsafe import Markup

    # What goes into the SVG was escaped when it was written as XML.
    return [{"plot": plot, "svg": Markup(render_svg(plot))} for plot in plots]  # noqa: S704
