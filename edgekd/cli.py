"""The command line: parse, call one library function, print. Nothing else in edgekd prints or exits.

Exit codes: 0 done, 1 a budget is broken, 2 what was handed in cannot be used, 3 this machine cannot load or measure it,
4 it failed while running, 130 interrupted. Heavy modules are imported inside the commands, so that `--help` is quick.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edgekd import __version__, flags, shipped, terminal
from edgekd.errors import BadSetting

if TYPE_CHECKING:
    from edgekd.run_folder import RunFolder

app = typer.Typer(
    name="edgekd",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
targets_app = typer.Typer(no_args_is_help=True, help="The devices edgekd knows.")
calibration_app = typer.Typer(no_args_is_help=True, help="The ways to find INT8 ranges that edgekd knows.")
app.add_typer(targets_app, name="targets")
app.add_typer(calibration_app, name="calibration")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
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


# ------------------------------------------------------------------------------------------- what options look like

Run = Annotated[Path | None, typer.Argument(metavar="[RUN]", help="Run folder; the latest under runs/ if left out.")]
Subject = Annotated[
    Path | None, typer.Argument(metavar="[RUN|MODEL.onnx]", help="Run folder or one model; the latest run if left out.")
]
Json = Annotated[bool, typer.Option("--json", help="JSON alone on stdout.")]
Shape = Annotated[
    str | None, typer.Option("--input-shape", metavar="C,H,W", help="Where the file leaves it free: 3,224,224.")
]
Bounds = Annotated[
    str | None,
    typer.Option("--input-range", metavar="LOW,HIGH", help="Values of the input; from the graph, or 0,1."),
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


def _run_folder(path: Path | None) -> RunFolder:
    from edgekd import run_folder

    if path is not None:
        return run_folder.RunFolder(path)
    run = run_folder.latest()
    terminal.note(f"using {run.path}")
    return run


def _as_model(path: Path | None) -> Path | None:
    """The path, if it names a model and no run folder."""
    from edgekd.run_folder import is_model

    return path if path is not None and is_model(path) else None


def _refuse_of_run(stated: object, flag: str) -> None:
    """What a run's record tells is not for a flag to contradict."""
    if stated is not None:
        raise BadSetting("the run's record tells it", where=flag, allowed="with a MODEL.onnx")


# --------------------------------------------------------------------------------------------------------- commands


@app.command()
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


@app.command()
def distill(
    teachers: Annotated[
        list[str],
        typer.Argument(
            metavar="TEACHER...",
            help="An ONNX file, http(s)://HOST/v2/models/NAME, or python:module:function. Several are averaged.",
        ),
    ],
    method: Annotated[str | None, typer.Option(help="edgekd (if not told), dafl or nayer-style.")] = None,
    student: Annotated[str | None, typer.Option(help="A name, module:factory, or auto.")] = None,
    width: Annotated[float | None, typer.Option(help="Factor on the student's channels.")] = None,
    minutes: Annotated[float | None, typer.Option(help="How long to train.")] = None,
    steps: Annotated[int | None, typer.Option(help="Instead of minutes: a number of rounds, reproducible.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of every random number.")] = None,
    threads: Annotated[int | None, typer.Option(help="Of torch.")] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"] | None, typer.Option(help="auto (if not told): a CUDA GPU where there is one.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; runs/TEACHER-DATE-TIME if left out.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with --out, or with the latest run.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in --out.")] = False,
    config: Annotated[Path | None, typer.Option(help="TOML file of the same settings; flags win.")] = None,
    recipe: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A weight or size of the recipe.")
    ] = None,
    input_shape: Shape = None,
    input_range: Bounds = None,
    mean: Annotated[str | None, typer.Option(metavar="M[,M…]", help="Mean of the input, per channel.")] = None,
    std: Annotated[str | None, typer.Option(metavar="S[,S…]", help="Deviation of the input, per channel.")] = None,
    layout: Annotated[Literal["NCHW", "NHWC"] | None, typer.Option(help="Order of the input's axes.")] = None,
    task: TaskName = None,
    access: Annotated[
        Literal["auto", "gradient", "scores", "labels"] | None,
        typer.Option(help="How much of the teacher to use; auto (if not told): gradient where there is one."),
    ] = None,
    gradient: Annotated[
        Literal["exact", "estimate"] | None, typer.Option(help="estimate: from answers alone, by finite differences.")
    ] = None,
    directions: Annotated[int | None, typer.Option(help="Of an estimate: more questions per generated image.")] = None,
    coarse: Annotated[int | None, typer.Option(help="Of an estimate: side of squares that move together.")] = None,
    max_queries: Annotated[int | None, typer.Option(help="Samples to ask about at most; then it stops.")] = None,
    token_env: Annotated[
        str | None, typer.Option(metavar="VARIABLE", help="Environment variable that holds the server's bearer token.")
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VARIABLE", help="HTTP header, its value from the environment.")
    ] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds to wait for a server's answer.")] = None,
    patience: Annotated[float | None, typer.Option(help="Seconds to go on trying a server that fails.")] = None,
    batch: Annotated[int | None, typer.Option(help="Samples in one request, at most.")] = None,
    trust_callable: Annotated[
        bool, typer.Option("--trust-callable", help="Run the code that python:module:function names.")
    ] = False,
    json: Json = False,
) -> None:
    """Train a small student from the answers of one or more teachers to generated images."""
    from edgekd import run_folder
    from edgekd.config import Reach, validated
    from edgekd.extras import require_distill

    if resume and overwrite:
        raise BadSetting("--resume goes on with a run, --overwrite replaces it", allowed="one of them")
    told: dict[str, Any] = {"method": method, "student": student, "width": width, "minutes": minutes, "steps": steps}
    told |= {"seed": seed, "threads": threads, "recipe": flags.pairs(recipe, "--set", "adversary=0.5")}
    told |= {"input_shape": flags.shape(input_shape), "input_range": flags.bounds(input_range), "layout": layout}
    told |= {"mean": flags.numbers(mean, "--mean"), "std": flags.numbers(std, "--std")}
    told |= {"access": access, "gradient": gradient, "directions": directions, "coarse": coarse}
    told |= {"max_queries": max_queries, "task": task, "device": device}
    wait: dict[str, Any] = {"timeout": timeout, "patience": patience, "batch": batch, "token_env": token_env}
    wait |= {"headers": flags.pairs(header, "--header", "X-Api-Key=API_KEY"), "trust_callable": trust_callable}
    reach = validated(Reach, {name: value for name, value in wait.items() if value is not None}, "flags")
    require_distill("distilling")
    from edgekd import distill as distillation
    from edgekd.networks import is_factory

    run = _run_folder(out) if resume or out else run_folder.RunFolder(_new_name(teachers[0]))
    settings = distillation.resolve_settings(told, config, run if resume else None)
    own = ["--student", student] if student and is_factory(student) else []
    again = flags.command("distill", *teachers, "--out", str(run.path), "--resume", *own, *flags.reaching(reach))
    try:
        with terminal.distilling(f"writing {run.path}; stop with Ctrl-C, nothing is lost") as watch:
            distillation.distill(teachers, settings, run, resume=resume, overwrite=overwrite, watch=watch, reach=reach)
    except KeyboardInterrupt:
        begun = run.record_file.is_file()
        terminal.note(f"interrupted; go on with: {again}" if begun else "interrupted before the run began")
        raise typer.Exit(terminal.INTERRUPTED) from None
    if not terminal.speaks():
        return
    record = run.record()
    if record["state"] != "finished":
        terminal.note(f"go on with: {again} --max-queries MORE")
    done = f"{run.path}: {record['student']['name']} with {record['student']['parameters']:,} parameters"
    trust = " --trust-factory" if is_factory(record["student"]["name"]) else ""
    terminal.show(record, f"{done}; next: edgekd export {quote(str(run.path))} --int8{trust}", as_json=json)


def _new_name(teacher: str) -> Path:
    from edgekd.run_folder import RUNS

    stem = Path(teacher).stem if Path(teacher).suffix == ".onnx" else re.split(r"[/:]", teacher.rstrip("/"))[-1]
    return RUNS / f"{re.sub(r'[^A-Za-z0-9._-]', '-', stem)}-{datetime.now().astimezone():%Y%m%d-%H%M%S}"


@app.command()
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
    json: Json = False,
) -> None:
    """Write student and generator as ONNX, checked against torch, and the student as INT8."""
    from edgekd import export as exporting
    from edgekd.config import load_recipe, load_target

    device, recipe = load_target(target), load_recipe(calibration)
    record = exporting.export(_run_folder(run), int8=int8, target=device, recipe=recipe, trust_factory=trust_factory)
    for warning in record["warnings"]:
        terminal.note(f"warning: {warning}")
    terminal.show(record, terminal.exported(record), as_json=json)


@app.command()
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
    if model := _as_model(subject):
        models = {"teacher": teacher, "student": model} if teacher else {model.stem: model}
        with terminal.measuring() as watch:
            record = benching.bench(models, device, input_shape=shape, watch=watch)
    else:
        _refuse_of_run(input_shape, "--input-shape")
        run = _run_folder(subject)
        with terminal.measuring() as watch:
            record = benching.bench_run(run, device, teacher=teacher, watch=watch)
        if "teacher" not in record["models"]:
            path = run.record()["teacher"]["path"]
            terminal.note(f"without the teacher: {path} is no file, gone or changed; say --teacher FILE")
    terminal.show(record, terminal.table(benching.rows(record), benching.headers(record)), as_json=json)


@app.command("eval")
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
    model, stated = _as_model(subject), flags.bounds(input_range)
    if model is not None and not RunFolder(model.parent).record_file.is_file():
        low, high = stated or evaluation.input_range(model)
        read = task or evaluation.task_of(model)
        records = {model.name: evaluation.evaluate(model, data, teacher=teacher, low=low, high=high, task=read)}
    else:
        _refuse_of_run(stated, "--input-range")
        _refuse_of_run(task, "--task")
        run = RunFolder(model.parent) if model is not None else _run_folder(subject)
        records = evaluation.evaluate_run(run, data, teacher=teacher, only=model)
    result = {"schema": evaluation.COLLECTION, "models": records}
    terminal.show(result, terminal.table(evaluation.rows(records), evaluation.headers(records)), as_json=json)


@app.command()
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
    held = gating.check(_as_model(subject) or _run_folder(subject), limits, model)
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


# ------------------------------------------------------------------------------------------------------ shipped files


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


@targets_app.command("list")
def targets_list(json: Json = False) -> None:
    """Names and titles."""
    _listed("targets", json)


@targets_app.command("show")
def targets_show(name: str, json: Json = False) -> None:
    """Everything about one device, defaults included."""
    from edgekd.config import load_target

    record = load_target(name).model_dump(mode="json", by_alias=True)
    terminal.show(record, terminal.table(_flat(record)), as_json=json)


@calibration_app.command("list")
def calibration_list(json: Json = False) -> None:
    """Names and titles."""
    _listed("calibration", json)


@calibration_app.command("show")
def calibration_show(name: str, json: Json = False) -> None:
    """Everything about one recipe, defaults included."""
    from edgekd.config import load_recipe

    record = load_recipe(name).model_dump(mode="json", by_alias=True)
    terminal.show(record, terminal.table(_flat(record)), as_json=json)
