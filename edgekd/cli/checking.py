"""`edgekd check`: whether a device will take a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekd import terminal
from edgekd.cli.options import Json, TargetName


def check(
    model: Annotated[Path, typer.Argument(help="ONNX file, quantized or not.")],
    target: TargetName = "cpu",
    json: Json = False,
) -> None:
    """Say whether a device's runtime will take a model: yes, maybe or no, and why; exit 1 for no."""
    from edgekd import compatibility
    from edgekd.devices import load_target

    verdict = compatibility.check(model, load_target(target))
    record = {"schema": compatibility.SCHEMA, **verdict.model_dump(mode="json")}
    terminal.show(record, terminal.table(compatibility.rows(verdict)), as_json=json)
    if verdict.verdict == "no":
        raise typer.Exit(1)
