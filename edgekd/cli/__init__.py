"""The command line: parse, call one library function, print. Nothing else in edgekd prints or exits.

Exit codes: 0 done, 1 a budget is broken or a model regressed, 2 what was handed in cannot be used, 3 this machine
cannot load or measure it, 4 it failed while running, 130 interrupted. Heavy modules are imported inside the commands,
which are in the files beside this one, so that `--help` is quick.
"""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Sequence
from functools import partial
from typing import Annotated

import typer

from edgekd import __version__, terminal
from edgekd.cli import catalogue, checking, distilling, examining, looking, measuring, models, sweeping

app = typer.Typer(
    name="edgekd",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    atexit.register(gc.freeze)  # else the interpreter's last collections look through onnx: a fifth of a gate's time
    call = partial(app, list(arguments) if arguments is not None else None, standalone_mode=False, prog_name="edgekd")
    sys.exit(terminal.guarded(call))


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edgekd {__version__}")
        raise typer.Exit


@app.callback()
def edgekd(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """Distil a trained ONNX model into a small INT8 model for edge devices, without its training data.

    distill, then export --int8, then bench, then gate. A run folder left out means the latest one under runs/.
    """


for command in (models.inspect, distilling.distill, models.aggregate, models.export, measuring.bench):
    app.command()(command)
app.command("eval")(models.evaluate)
app.command()(sweeping.sweep)
app.command()(measuring.gate)
app.command()(looking.report)
app.command()(examining.doctor)
app.command()(examining.schema)
app.command()(checking.check)
app.add_typer(catalogue.targets, name="targets")
app.add_typer(catalogue.calibration, name="calibration")
