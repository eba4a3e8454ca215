"""The facts as Markdown for a pull request: the choice in the open, everything else folded."""

from __future__ import annotations

import re
from itertools import groupby
from typing import Final

from builder import __version__
from builder.report import tables
from builder.report.charts import Table
from builder.report.page import environment
from builder.report.plots import measured_plots
from builder.report.records import EnsembleFacts, ModelFacts, RepositoryFacts
from builder.report.tables import Section
from builder.report.tuning_plots import tuning_plots

SPECIAL: Final = re.compile(r"([\\`*_\[\]<>|#~])")


def render_markdown(facts: RepositoryFacts) -> str:
    """The whole text, for GitHub's and GitLab's dialect."""
    jinja = environment(autoescape=False)
    jinja.filters |= {"md": escape, "table": table, "fence": fence}
    text = jinja.get_template("report.md.j2").render(
        facts=facts,
        models=[(model, tables.targets_table(model.targets, model.tuning), _folded(model)) for model in facts.models],
        ensembles=[(ensemble, _folded(ensemble)) for ensemble in facts.ensembles],
        libraries=tables.libraries_table(facts.provenance),
        machines=tables.machines(facts.provenance),
        version=__version__,
    )
    return re.sub(r"\n{3,}", "\n\n", text)


def _folded(item: ModelFacts | EnsembleFacts) -> tuple[Section, ...]:
    """The numbers of the plots, then what the page folds too."""
    if isinstance(item, EnsembleFacts):
        return tables.ensemble_sections(item)
    plots = [*(tuning_plots(item.tuning) if item.tuning else ()), *measured_plots(item)]
    shown = [plot for plot in plots if plot.key not in ("settings", "speed-accuracy")]
    numbers = [Section(plot.key, plot.title, (plot.says,) if plot.says else (), (plot.numbers,)) for plot in shown]
    return (*numbers, *tables.sections(item))


def escape(text: object) -> str:
    """Text that Markdown shows as it is, on one line."""
    return SPECIAL.sub(r"\\\1", " ".join(str(text).split()))


def table(value: Table) -> str:
    """A pipe table."""
    lines = [value.head, tuple("---" for _ in value.head), *value.rows]
    return "\n".join(
        "| " + " | ".join(cell if index == 1 else escape(cell) for cell in line) + " |"
        for index, line in enumerate(lines)
    )


def fence(line: str) -> str:
    """A line of code in a block that it cannot end."""
    longest = max((len(list(run)) for sign, run in groupby(line) if sign == "`"), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}\n{line}\n{ticks}"
