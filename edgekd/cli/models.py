"""`edgekd inspect`, `export` and `eval`: what models are, become and are worth."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekd import flags, shipped, terminal
from edgekd.cli.options import (
    Accuracy,
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

if TYPE_CHECKING:
    from edgekd.devices import CalibrationRecipe, Target
    from edgekd.quantize import Stopwatch, Terms
    from edgekd.run_folder import RunFolder


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
    subject: Subject = None,
    int8: Annotated[bool, typer.Option("--int8", help="Also quantize the student, or the MODEL.")] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="Also bring it to half precision.")] = False,
    target: TargetName = "cpu",
    calibration: Annotated[
        str,
        typer.Option(
            help="Recipe: a name or your own .toml; auto tries all that ship.",
            autocompletion=lambda: ["auto", *shipped.names("calibration")],
        ),
    ] = "percentile",
    samples: Annotated[Path | None, typer.Option(help=".npz with real images to calibrate on.")] = None,
    real_share: Annotated[float, typer.Option(min=0, max=1, help="Their share beside generated ones.")] = 0.5,
    generator: Annotated[
        Path | None, typer.Option(metavar="RUN", help="For a MODEL: the run whose generator makes images.")
    ] = None,
    calibration_cache: Annotated[
        Path | None, typer.Option(help="File to keep ranges in, and to take them from.")
    ] = None,
    max_drop: Annotated[
        str | None, typer.Option(help="Answers that may differ from float's on held-out samples: 5%.")
    ] = None,
    qat: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="STEPS",
            help="Quantization-aware distillation of a run's student: so many steps; 0: never. If not told, only where "
            "all else fails.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write it even if it is worse or slower than float.")] = False,
    bom: Annotated[
        bool, typer.Option("--bom", help="Also write a CycloneDX bill of materials; needs edgekd[bom].")
    ] = False,
    measure: Annotated[bool, typer.Option(help="Time float and INT8 where the target is this machine.")] = True,
    out: Annotated[Path | None, typer.Option(help="For a MODEL: the file to write; MODEL.int8.onnx.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="For a MODEL: replace that file.")] = False,
    input_range: Bounds = None,
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
    split: Annotated[
        bool,
        typer.Option("--split", help="Of students side by side also each as a file, and the head that joins them."),
    ] = False,
    json: Json = False,
) -> None:
    """Write student and generator as ONNX, checked against torch, and the student, or any MODEL, as INT8 or float16."""
    from edgekd.devices import load_target

    device, recipes = load_target(target), _recipes(calibration, calibration_cache)
    watch, reason = _stopwatch(device, measure and (int8 or fp16))
    terms = _terms(max_drop, force, watch, calibration_cache, recipes[1:], samples, real_share, qat, bom)
    if model := as_model(subject):
        if keep_headers is not None or header_outputs or split:
            where = "--keep-headers, --header-outputs, --split"
            raise BadSetting("headers and students side by side are a run's", where=where, allowed="with a RUN")
        if qat is not None:
            raise BadSetting("a MODEL has no teacher to learn from", where="--qat", allowed="with a RUN")
        if int8 == fp16:
            raise BadSetting("a MODEL is made one of them", where="edgekd export", allowed="--int8 or --fp16")
        from edgekd.quantize.any_model import export_model

        record = export_model(
            model,
            target=device,
            precision="int8" if int8 else "fp16",
            recipe=recipes[0],
            terms=terms,
            generator=opened(generator) if generator else None,
            out=out,
            overwrite=overwrite,
            bounds=flags.bounds(input_range),
        )
    else:
        told = {"--generator": generator, "--out": out, "--overwrite": overwrite or None, "--input-range": input_range}
        for flag, value in told.items():
            refuse_of_run(value, flag)
        import edgekd.export as exporting

        options: dict[str, Any] = {"trust_factory": trust_factory, "fp16": fp16, "terms": terms}
        options |= {"keep_headers": flags.whole(keep_headers, "--keep-headers"), "header_outputs": header_outputs}
        options |= {"apart": split}
        record = exporting.export(opened(subject), int8=int8, target=device, recipe=recipes[0], **options)
    for warning in record["warnings"]:
        terminal.note(f"warning: {warning}")
    if reason:
        terminal.note(f"latency is not measured: {reason}")
    terminal.show(record, terminal.exported(record), as_json=json)


def _recipes(name: str, cache: Path | None) -> list[CalibrationRecipe]:
    """The recipe of that name; for `auto` all that ship, the default first."""
    from edgekd.devices import load_recipe

    if name != "auto":
        return [load_recipe(name)]
    if cache is not None:
        raise BadSetting("auto tries several recipes", where="--calibration-cache", allowed="with one --calibration")
    return [load_recipe(name) for name in sorted(shipped.names("calibration"), key=lambda name: name != "percentile")]


def _stopwatch(target: Target, wanted: bool) -> tuple[Stopwatch | None, str]:
    """What measures time, if it is wanted and can be, and why it cannot."""
    if not wanted:
        return None, ""
    from edgekd.bench.quick import not_here, stopwatch

    reason = not_here(target)
    return (None if reason else stopwatch(target)), reason


def _terms(
    max_drop: str | None,
    force: bool,
    watch: Stopwatch | None,
    cache: Path | None,
    others: list[CalibrationRecipe],
    samples: Path | None,
    real_share: float,
    qat: int | None,
    bom: bool,
) -> Terms:
    from edgekd import units
    from edgekd.quantize import MAX_DROP, Terms

    allowed = MAX_DROP
    if max_drop is not None:
        try:
            allowed = units.read_share(max_drop)
        except ValueError as error:
            raise BadSetting(str(error), where="--max-drop") from error
    return Terms(allowed, force, watch, cache, tuple(others), samples, real_share, qat, bom)


def evaluate(
    subject: Subject = None,
    data: Annotated[
        Path | None,
        typer.Option(help=".npz with images (uint8 or float32), or tokens, and labels.", show_default=False),
    ] = None,
    teacher: TeacherFile = None,
    input_range: Bounds = None,
    task: TaskName = None,
    no_data: Annotated[bool, typer.Option("--no-data", help="On probes made of held-out generated images.")] = False,
    calibration: Annotated[
        Path | None, typer.Option(help="Of --no-data: another one than edgekd's, fitted by benchmarks/fidelity.")
    ] = None,
    teacher_accuracy: Accuracy = None,
    json: Json = False,
) -> None:
    """Accuracy on labelled images, for people who have some. Nothing of it flows back into a distillation."""
    from edgekd import evaluate as evaluation
    from edgekd.run_folder import RunFolder

    if no_data:
        _refuse_beside_no_data(data=data, input_range=input_range, task=task)
        told = flags.share(teacher_accuracy, "--teacher-accuracy")
        _without_data(opened(subject), teacher, calibration, told, json)
        return
    if teacher_accuracy is not None:
        raise BadSetting("labels tell how often it is right", where="--teacher-accuracy", allowed="with --no-data")
    if data is None:
        hint = "if there are none, say --no-data"
        raise BadSetting("missing", where="--data", allowed="an .npz with images and labels", hint=hint)
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


def _refuse_beside_no_data(**given: object) -> None:
    if told := [f"--{name.replace('_', '-')}" for name, value in given.items() if value is not None]:
        raise BadSetting(f"{', '.join(told)} beside --no-data", where="--no-data", allowed="with a run alone")


def _without_data(
    run: RunFolder, teacher: Path | None, calibration: Path | None, accuracy: float | None, as_json: bool
) -> None:
    from edgekd import fidelity, unseen

    fitted = unseen.read_calibration(calibration) if calibration is not None else unseen.shipped_calibration()
    records = fidelity.fidelity(run, teacher=teacher, calibration=fitted, accuracy=accuracy)
    for name, record in records.items():
        for caution in fidelity.cautions(record):
            terminal.note(f"{name}: {caution}")
        if record["why"]:
            terminal.note(f"{name}: no estimate for real images: {record['why']}")
    result = {"schema": fidelity.COLLECTION, "models": records}
    tables = [terminal.table(fidelity.rows(records), fidelity.HEADERS)]
    if by_class := fidelity.class_rows(records):
        tables.append(terminal.table(by_class, fidelity.CLASS_HEADERS))
    terminal.show(result, "\n\n".join(tables), as_json=as_json)
