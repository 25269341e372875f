"""`edgekd report`: a run as a page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekd import terminal
from edgekd.cli.options import Json, Run, TeacherFile, opened


def report(
    run: Run = None,
    out: Annotated[Path | None, typer.Option(help="The file; report.html in the run folder if left out.")] = None,
    budget: Annotated[Path | None, typer.Option(help="TOML file with a [budget] table, to show it.")] = None,
    teacher: TeacherFile = None,
    class_names: Annotated[Path | None, typer.Option(help="Text file, a name a line in the teacher's order.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out even if it is no report.")] = False,
    json: Json = False,
) -> None:
    """Write a run as one HTML file to look at: figures, generated samples, curves, where it came from."""
    from edgekd import report as reporting

    folder = opened(run)
    names = reporting.read_names(class_names) if class_names is not None else None
    verdicts = None
    if budget is not None:
        from edgekd.gate import check, read_budget

        verdicts = [one.row() for one in check(folder, read_budget(budget))]
    record = reporting.report(folder, out, verdicts=verdicts, teacher=teacher, names=names, overwrite=overwrite)
    for one in record["missing"]:
        terminal.note(f"not in the report: {one['what']}, {one['why']}")
    terminal.show(record, record["path"], as_json=json)
