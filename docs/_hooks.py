"""What the pages take from the code when they are built: commands, functions, settings, and the equations' own page.

A page names it in a comment, `<!-- generated: commands -->`; so no fact is written down twice.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import typer
from typer.main import get_command

from edgekd import api, config, devices
from edgekd.cli import app

ROOT = Path(__file__).parent.parent


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs for each page."""
    return re.sub(r"^<!-- generated: (\w+) -->$", lambda found: GENERATED[found[1]](), markdown, flags=re.MULTILINE)


# ------------------------------------------------------------------------------------------------------------ commands


def commands() -> str:
    """Every command with its arguments and options, as `--help` tells them."""
    return "\n\n".join(_described(get_command(app), "edgekd", None))


def _described(command: Any, name: str, above: Any) -> Iterator[str]:
    context = typer.Context(command, info_name=name, parent=above)
    if subcommands := getattr(command, "commands", {}):
        if above is not None:
            yield f"## {context.command_path}\n\n{command.help}"
        for below, one in subcommands.items():
            yield from _described(one, below, context)
        return
    level = "##" if above.parent is None else "###"
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    rows = [_row(parameter, context) for parameter in command.params if not getattr(parameter, "hidden", False)]
    table = "\n".join(["| | what it says |", "| --- | --- |", *filter(None, rows)])
    yield f"{level} {context.command_path}\n\n```\n{usage}\n```\n\n{_text(command.help or '')}\n\n{table}"


def _row(parameter: Any, context: Any) -> str:
    record = parameter.get_help_record(context)
    return f"| {_code(record[0])} | {_text(record[1])} |" if record else ""


def _code(text: str) -> str:
    """What is typed, in a cell of a table."""
    return f"<code>{escape(' '.join(text.split())).replace('|', '&#124;')}</code>"


def _text(text: str) -> str:
    """Help is text: what looks like markup in it is none."""
    text = " ".join(text.split())
    for sign in "<*_[|":
        text = text.replace(sign, f"\\{sign}")
    return text


# ---------------------------------------------------------------------------------------------------------- functions


def functions() -> str:
    """The functions of `edgekd.api` with their docstrings."""
    parts = []
    for name in ("distill", "export", "bench", "gate"):
        function = getattr(api, name)
        signature = inspect.signature(function)
        told = [f"    {one},".replace("'", "") for one in signature.parameters.values()]
        typed = "\n".join([f"def {name}(", *told, f") -> {signature.return_annotation}"])
        parts.append(f"## edgekd.{name}\n\n```python\n{typed}\n```\n\n{_documented(inspect.getdoc(function) or '')}")
    return "\n\n".join(parts)


def _documented(text: str) -> str:
    """A docstring as Markdown: its examples as code, its arguments and errors as lists."""
    text = re.sub(r"(?:^(?:>>>|\S).*\n?)+", lambda found: _example(found[0]), text, flags=re.MULTILINE)
    text = re.sub(r"^(Args|Returns|Raises):$", r"**\1**\n", text, flags=re.MULTILINE)
    return re.sub(r"^    (\w+(?:, \w+)*): ", r"- `\1`: ", text, flags=re.MULTILINE)


def _example(lines: str) -> str:
    return f"```pycon\n{lines.strip()}\n```\n" if lines.startswith(">>>") else lines


# ---------------------------------------------------------------------------------------------------------- settings

RECORDS = {
    "Of a distillation: `--config FILE`, run.json": config.DistillSettings,
    "Of its recipe: `--set KEY=VALUE`": config.Recipe,
    "Of a target, and its tables": devices.Target,
    "[runtime]": devices.Runtime,
    "[model]": devices.ModelLimits,
    "[quantization]": devices.Quantization,
    "[bench]": devices.Protocol,
    "Of a calibration recipe": devices.CalibrationRecipe,
}


def settings() -> str:
    """The fields of every record that a file can set."""
    return "\n\n".join(_fields(title, record) for title, record in RECORDS.items())


def _fields(title: str, record: Any) -> str:
    lines = [f"## {title}", "", "| key | type | default | |", "| --- | --- | --- | --- |"]
    for name, field in record.model_fields.items():
        kind = getattr(field.annotation, "__name__", None) if not hasattr(field.annotation, "__args__") else None
        default = "required" if field.is_required() else _code(repr(field.get_default(call_default_factory=True)))
        shown = re.sub(r"typing\.|edgekd\.(config|devices)\.", "", kind or str(field.annotation))
        cells = [_code(field.alias or name), _code(shown), default, _text(field.description or "")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------------------- equations


def equations() -> str:
    """The page beside the objectives; its links lead into the checkout, and are told as names here."""
    text = (ROOT / "edgekd" / "objectives" / "README.md").read_text(encoding="utf-8")
    return re.sub(r"\[([^\]]+)\]\((?!https?:)[^)]*\)", r"\1", text)


GENERATED = {"commands": commands, "functions": functions, "settings": settings, "equations": equations}
