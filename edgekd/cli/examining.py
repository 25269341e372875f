"""`edgekd doctor` and `edgekd schema`: what this machine can do, and what the records look like."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from edgekd import shipped, terminal
from edgekd.cli.options import Json


def doctor(
    target: Annotated[
        list[str] | None, typer.Option(help="Only these: names or your own .toml; if not told, all that ship.")
    ] = None,
    json: Json = False,
) -> None:
    """What this machine is, and what each target could measure on it."""
    from edgekd.bench import doctor as examination
    from edgekd.devices import load_target

    found = examination.examine({name: load_target(name) for name in target or shipped.names("targets")})
    parts = (
        terminal.table(examination.rows(found)),
        terminal.table(examination.target_rows(found), examination.HEADERS),
    )
    terminal.show(found, "\n\n".join(parts), as_json=json)


def schema(record: Annotated[Literal["bench"], typer.Argument(help="Whose.")]) -> None:
    """The JSON Schema of a record that edgekd writes."""
    from edgekd.bench_record import json_schema

    terminal.show({"bench": json_schema}[record](), "", as_json=True)
