"""`edgekd bench` and `gate`: how large and how fast models are, and whether that will do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from edgekd import flags, terminal
from edgekd.cli.options import Json, Shape, Subject, TargetName, TeacherFile, as_model, opened, refuse_of_run


def bench(
    subject: Subject = None,
    target: TargetName = "cpu",
    teacher: TeacherFile = None,
    input_shape: Shape = None,
    json: Json = False,
) -> None:
    """Measure size, latency and memory on this machine: teacher, student and INT8 student side by side."""
    from edgekd import bench as benching
    from edgekd.config import load_target

    device, shape = load_target(target), flags.shape(input_shape)
    if model := as_model(subject):
        models = {"teacher": teacher, "student": model} if teacher else {model.stem: model}
        with terminal.measuring() as watch:
            record = benching.bench(models, device, input_shape=shape, watch=watch)
    else:
        refuse_of_run(input_shape, "--input-shape")
        run = opened(subject)
        with terminal.measuring() as watch:
            record = benching.bench_run(run, device, teacher=teacher, watch=watch)
        if "teacher" not in record["models"]:
            path = run.record()["teacher"]["path"]
            terminal.note(f"without the teacher: {path} is no file, gone or changed; say --teacher FILE")
    terminal.show(record, terminal.table(benching.rows(record), benching.headers(record)), as_json=json)


def gate(
    subject: Subject = None,
    budget: Annotated[Path | None, typer.Option(help="TOML file with a [budget] table; flags win.")] = None,
    model: Annotated[
        Literal["student", "student.int8"] | None, typer.Option(help="Which of the run's; INT8 if there is one.")
    ] = None,
    max_size: Annotated[str | None, typer.Option(help="Of the file: 300kB.")] = None,
    max_gzip_size: Annotated[str | None, typer.Option(help="Of the file, compressed.")] = None,
    max_parameters: Annotated[str | None, typer.Option(help="80k.")] = None,
    max_macs: Annotated[str | None, typer.Option(help="Multiply-accumulates of one image: 6M.")] = None,
    max_p50: Annotated[str | None, typer.Option(help="Median latency: 2ms.")] = None,
    max_p90: Annotated[str | None, typer.Option(help="90th percentile of the latency.")] = None,
    max_memory: Annotated[str | None, typer.Option(help="Peak of the process: 60MB.")] = None,
    max_load: Annotated[str | None, typer.Option(help="Time to load: 20ms.")] = None,
    max_size_ratio: Annotated[str | None, typer.Option(help="To the teacher: 0.25.")] = None,
    max_parameters_ratio: Annotated[str | None, typer.Option(help="To the teacher.")] = None,
    max_p50_ratio: Annotated[str | None, typer.Option(help="To the teacher.")] = None,
    min_agreement: Annotated[str | None, typer.Option(help="With the teacher, on generated images: 0.9.")] = None,
    min_accuracy: Annotated[str | None, typer.Option(help="From edgekd eval: 88%.")] = None,
    json: Json = False,
) -> None:
    """Hold a model against a budget; exit 1 when it is broken."""
    limited = {name: value for name, value in locals().items() if name.startswith(("max_", "min_"))}
    from edgekd import gate as gating

    limits = gating.read_budget(budget, limited)
    held = gating.check(as_model(subject) or opened(subject), limits, model)
    broken = [verdict.metric for verdict in held if not verdict.ok]
    record = {
        "schema": "edgekd.gate/1",
        "ok": not broken,
        "verdicts": [verdict.model_dump(mode="json") for verdict in held],
    }
    verdict = f"gate: broken, {', '.join(broken)}" if broken else f"gate: ok, {len(held)} limits held"
    text = terminal.table([one.row() for one in held], gating.HEADERS)
    terminal.show(record, f"{text}\n\n{verdict}", as_json=json)
    if broken:
        raise typer.Exit(1)
