"""What options look like that several commands have, and what is made of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edgekd import shipped, terminal
from edgekd.errors import BadSetting

if TYPE_CHECKING:
    from edgekd.run_folder import RunFolder


Run = Annotated[Path | None, typer.Argument(metavar="[RUN]", help="Run folder; the latest under runs/ if left out.")]
Subject = Annotated[
    Path | None, typer.Argument(metavar="[RUN|MODEL.onnx]", help="Run folder or one model; the latest run if left out.")
]
Json = Annotated[bool, typer.Option("--json", help="JSON alone on stdout.")]
Shape = Annotated[
    str | None,
    typer.Option("--input-shape", metavar="C,H,W|F", help="Where the file leaves it free: 3,224,224; F of a table."),
]
Bounds = Annotated[
    str | None,
    typer.Option("--input-range", metavar="LOW,HIGH", help="Values of the input; from the graph, or 0,1."),
]
Accuracy = Annotated[
    str | None,
    typer.Option(
        metavar="SHARE", help="Of the teacher on real images, as its maker tells: for an estimate of the student's."
    ),
]
TaskName = Annotated[
    Literal["classes", "binary", "multilabel", "segmentation", "mask"] | None,
    typer.Option("--task", help="What it answers; as recognised."),
]
TargetName = Annotated[
    str,
    typer.Option(help="Device: a name or your own .toml.", autocompletion=lambda: shipped.names("targets")),
]
TeacherFile = Annotated[
    Path | None, typer.Option("--teacher", help="The teacher, if it is not where it was when the run began.")
]


def opened(path: Path | None) -> RunFolder:
    from edgekd import run_folder

    if path is not None:
        return run_folder.RunFolder(path)
    run = run_folder.latest()
    terminal.note(f"using {run.path}")
    return run


def as_model(path: Path | None) -> Path | None:
    """The path, if it names a model and no run folder."""
    from edgekd.run_folder import is_model

    return path if path is not None and is_model(path) else None


def refuse_of_run(stated: object, flag: str) -> None:
    """What a run's record tells is not for a flag to contradict."""
    if stated is not None:
        raise BadSetting("the run's record tells it", where=flag, allowed="with a MODEL.onnx")
