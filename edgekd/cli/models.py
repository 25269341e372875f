"""`edgekd inspect`, `export` and `eval`: what models are, become and are worth."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from edgekd import flags, shipped, terminal
from edgekd.cli.options import (
    Bounds,
    Json,
    Run,
    Shape,
    Subject,
    TargetName,
    TaskName,
    TeacherFile,
    as_model,
    opened,
    refuse_of_run,
)
from edgekd.errors import BadSetting


def inspect(
    model: Annotated[Path, typer.Argument(help="ONNX file.")],
    input_shape: Shape = None,
    task: TaskName = None,
    json: Json = False,
) -> None:
    """Say what an ONNX model is, and what it would be as a teacher."""
    from edgekd import inspect as inspection

    found = inspection.inspect_model(model, input_shape=flags.shape(input_shape), task=task)
    record = {"schema": inspection.SCHEMA, **found.model_dump(mode="json")}
    terminal.show(record, terminal.table(inspection.rows(found)), as_json=json)


def aggregate(
    run: Run = None,
    samples: Annotated[
        Path | None, typer.Option(help=".npz with real images and, if there are any, labels; without it the mean.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the order in which samples are seen.")] = 0,
    trust_factory: Annotated[
        bool, typer.Option("--trust-factory", help="Run the code that a module:factory student of this run names.")
    ] = False,
    json: Json = False,
) -> None:
    """Learn from a few real samples how much each header of a student counts; without samples, all alike."""
    from edgekd.extras import require_distill

    require_distill("joining headers")
    from edgekd import aggregate as aggregation

    chosen = opened(run)
    record = aggregation.aggregate(chosen, samples, seed=seed, trust_factory=trust_factory)
    terminal.show(
        record, f"{terminal.joined(record)}; next: edgekd export {quote(str(chosen.path))} --int8", as_json=json
    )


def export(
    run: Run = None,
    int8: Annotated[bool, typer.Option("--int8", help="Also quantize the student.")] = False,
    target: TargetName = "cpu",
    calibration: Annotated[
        str,
        typer.Option(help="Recipe: a name or your own .toml.", autocompletion=lambda: shipped.names("calibration")),
    ] = "percentile",
    trust_factory: Annotated[
        bool, typer.Option("--trust-factory", help="Run the code that a module:factory student of this run names.")
    ] = False,
    keep_headers: Annotated[
        str | None,
        typer.Option(metavar="N[,N…]", help="Of a student with headers only these, from 0, for a smaller file."),
    ] = None,
    header_outputs: Annotated[
        bool, typer.Option("--header-outputs", help="Answer the logits of each header too.")
    ] = False,
    json: Json = False,
) -> None:
    """Write student and generator as ONNX, checked against torch, and the student as INT8."""
    from edgekd import export as exporting
    from edgekd.config import load_recipe, load_target

    device, recipe = load_target(target), load_recipe(calibration)
    form: dict[str, Any] = {
        "keep_headers": flags.whole(keep_headers, "--keep-headers"),
        "header_outputs": header_outputs,
    }
    record = exporting.export(opened(run), int8=int8, target=device, recipe=recipe, trust_factory=trust_factory, **form)
    for warning in record["warnings"]:
        terminal.note(f"warning: {warning}")
    terminal.show(record, terminal.exported(record), as_json=json)


def evaluate(
    subject: Subject = None,
    data: Annotated[
        Path | None, typer.Option(help=".npz with images (uint8 or float32) and labels.", show_default=False)
    ] = None,
    teacher: TeacherFile = None,
    input_range: Bounds = None,
    task: TaskName = None,
    json: Json = False,
) -> None:
    """Accuracy on labelled images, for people who have some. Nothing of it flows back into a distillation."""
    from edgekd import evaluate as evaluation
    from edgekd.run_folder import RunFolder

    if data is None:
        raise BadSetting("missing", where="--data", allowed="an .npz with images and labels")
    model, stated = as_model(subject), flags.bounds(input_range)
    if model is not None and not RunFolder(model.parent).record_file.is_file():
        low, high = stated or evaluation.input_range(model)
        read = task or evaluation.task_of(model)
        records = {model.name: evaluation.evaluate(model, data, teacher=teacher, low=low, high=high, task=read)}
    else:
        refuse_of_run(stated, "--input-range")
        refuse_of_run(task, "--task")
        run = RunFolder(model.parent) if model is not None else opened(subject)
        records = evaluation.evaluate_run(run, data, teacher=teacher, only=model)
    result = {"schema": evaluation.COLLECTION, "models": records}
    terminal.show(result, terminal.table(evaluation.rows(records), evaluation.headers(records)), as_json=json)
