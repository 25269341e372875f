"""`edgekd targets` and `calibration`: the files that edgekd ships."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from edgekd import shipped, terminal
from edgekd.cli.options import Json

if TYPE_CHECKING:
    from edgekd.config import Record

targets = typer.Typer(no_args_is_help=True, help="The devices edgekd knows.")
calibration = typer.Typer(no_args_is_help=True, help="The ways to find INT8 ranges that edgekd knows.")


def _listed(kind: shipped.Kind, as_json: bool) -> None:
    titles = {name: str(shipped.read_toml(shipped.find(kind, name)).get("title", "")) for name in shipped.names(kind)}
    terminal.show(titles, terminal.table([list(pair) for pair in titles.items()]), as_json=as_json)


def _flat(record: dict[str, Any], prefix: str = "") -> list[list[str]]:
    rows = []
    for key, value in record.items():
        if isinstance(value, dict) and value:
            rows += _flat(value, f"{prefix}{key}.")
        else:
            rows.append([f"{prefix}{key}", "-" if value in (None, {}) else str(value)])
    return rows


def _schema(kind: type[Record]) -> None:
    told = {"$schema": "https://json-schema.org/draft/2020-12/schema", **kind.model_json_schema(by_alias=True)}
    terminal.show(told, "", as_json=True)


@targets.command("list")
def targets_list(json: Json = False) -> None:
    """Names and titles."""
    _listed("targets", json)


@targets.command("show")
def targets_show(name: str, json: Json = False) -> None:
    """Everything about one device, defaults included."""
    from edgekd.devices import load_target

    record = load_target(name).model_dump(mode="json", by_alias=True)
    terminal.show(record, terminal.table(_flat(record)), as_json=json)


@targets.command("schema")
def targets_schema() -> None:
    """The JSON Schema of a target's file, for editors and checkers."""
    from edgekd.devices import Target

    _schema(Target)


@calibration.command("list")
def calibration_list(json: Json = False) -> None:
    """Names and titles."""
    _listed("calibration", json)


@calibration.command("show")
def calibration_show(name: str, json: Json = False) -> None:
    """Everything about one recipe, defaults included."""
    from edgekd.devices import load_recipe

    record = load_recipe(name).model_dump(mode="json", by_alias=True)
    terminal.show(record, terminal.table(_flat(record)), as_json=json)


@calibration.command("schema")
def calibration_schema() -> None:
    """The JSON Schema of a recipe's file."""
    from edgekd.devices import CalibrationRecipe

    _schema(CalibrationRecipe)
