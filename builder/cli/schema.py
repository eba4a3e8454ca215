"""`build-repo schema`."""

from __future__ import annotations

import typer

from builder.cli.show import print_json

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def schema() -> None:
    """The JSON Schema of the spec file, for editors."""
    from builder.spec import RepoSpec

    print_json({"$schema": "https://json-schema.org/draft/2020-12/schema"} | RepoSpec.model_json_schema())
