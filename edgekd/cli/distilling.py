"""`edgekd distill`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edgekd import flags, shipped, terminal
from edgekd.cli.options import Accuracy, Bounds, Json, Shape, TaskName, opened
from edgekd.errors import BadSetting, Refused

if TYPE_CHECKING:
    from edgekd.journal import Progress, Watch
    from edgekd.run_folder import RunFolder


def distill(
    teachers: Annotated[
        list[str],
        typer.Argument(
            metavar="TEACHER...",
            help="An ONNX file, http(s)://HOST/v2/models/NAME, or python:module:function. Several are averaged, or get "
            "a header of the student each (--method cdfkd-mfs).",
        ),
    ],
    method: Annotated[
        str | None,
        typer.Option(
            help="auto (if not told): edgekd, or student-guided where a teacher only answers. Others: dafl, "
            "nayer-style; of several teachers cdfkd-mfs, cdfkd; with several students teacher-class, teacher-class-gan."
        ),
    ] = None,
    student: Annotated[
        str | None, typer.Option(help="A name, module:factory, or auto; 4xNAME: four, one answer.")
    ] = None,
    width: Annotated[float | None, typer.Option(help="Factor on the student's channels.")] = None,
    headers: Annotated[
        Literal["shared", "plain"] | None,
        typer.Option(help="What each header of the student reads: all stages, or the last one."),
    ] = None,
    class_order: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="JSON: for each teacher null or its column of class 0, 1, … as [2, 0, 1]."),
    ] = None,
    students: Annotated[int | None, typer.Option(help="How many side by side (--method teacher-class).")] = None,
    chunks: Annotated[
        Literal["contiguous", "balanced"] | None,
        typer.Option(help="How the teacher's representation is shared out to them: in runs, or by variance."),
    ] = None,
    representation: Annotated[
        str | None, typer.Option(metavar="TENSOR", help="What they learn; the input of the last layer if not told.")
    ] = None,
    add_student: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Keep the students of a finished run as they are, add one.")
    ] = None,
    head_only: Annotated[
        bool,
        typer.Option(
            "--head-only",
            help="Of a RUN of several students, no teacher: learn another last layer, from labelled --samples.",
        ),
    ] = False,
    minutes: Annotated[float | None, typer.Option(help="How long to train.")] = None,
    steps: Annotated[int | None, typer.Option(help="Instead of minutes: a number of rounds, reproducible.")] = None,
    clock: Annotated[
        Literal["wall", "cpu"] | None, typer.Option(help="cpu: count minutes of CPU time, whatever else runs here.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of every random number.")] = None,
    threads: Annotated[int | None, typer.Option(help="Of torch.")] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"] | None, typer.Option(help="auto (if not told): a CUDA GPU where there is one.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; runs/TEACHER-DATE-TIME if left out.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with --out, or with the latest run.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in --out.")] = False,
    config: Annotated[
        str | None,
        typer.Option(
            help="TOML file of the same settings, or a preset by name; flags win.",
            autocompletion=lambda: shipped.names("presets"),
        ),
    ] = None,
    recipe: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A weight or size of the recipe.")
    ] = None,
    samples: Annotated[
        Path | None,
        typer.Option(
            help="Unlabelled images, a folder or an .npz: asked about first, or by several students alone; "
            "token ids in an .npz."
        ),
    ] = None,
    input_shape: Shape = None,
    input_range: Bounds = None,
    bounds: Annotated[
        Path | None,
        typer.Option(help="Text file with a line LOW,HIGH for each feature of a table, instead of --input-range."),
    ] = None,
    mean: Annotated[str | None, typer.Option(metavar="M[,M…]", help="Mean of the input, per channel.")] = None,
    std: Annotated[str | None, typer.Option(metavar="S[,S…]", help="Deviation of the input, per channel.")] = None,
    layout: Annotated[Literal["NCHW", "NHWC"] | None, typer.Option(help="Order of the input's axes.")] = None,
    task: TaskName = None,
    teacher_accuracy: Accuracy = None,
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
    live: Annotated[bool, typer.Option("--live", help="Serve the report on this machine while it trains.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of --live; any that is free if left out.")] = 0,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write losses as event files too.")] = False,
    json: Json = False,
) -> None:
    """Train a small student from the answers of one or more teachers to generated images."""
    given = locals()
    from edgekd import run_folder
    from edgekd.config import DistillSettings, Reach, validated
    from edgekd.extras import require_distill
    from edgekd.teachers import classes

    if resume and overwrite:
        raise BadSetting("--resume goes on with a run, --overwrite replaces it", allowed="one of them")
    # Most flags are settings of the same name; the others are read first.
    told: dict[str, Any] = {name: value for name, value in given.items() if name in DistillSettings.model_fields}
    told |= {"recipe": flags.pairs(recipe, "--set", "adversary=0.5"), "input_shape": flags.shape(input_shape)}
    told |= {"input_range": flags.bounds(input_range), "bounds": flags.every_bound(bounds)}
    told |= {"mean": flags.numbers(mean, "--mean"), "std": flags.numbers(std, "--std")}
    told |= {"teacher_accuracy": flags.share(teacher_accuracy, "--teacher-accuracy")}
    told |= {"added_to": _whole_path(add_student), "samples": str(samples) if samples else None}
    told |= {"class_order": classes.read_order(class_order) if class_order else None}
    if head_only:
        said = [name for name, value in told.items() if value and name not in ("samples", "seed")]
        _transferred(teachers, samples, out, seed or 0, overwrite, said + ["config"] * bool(config), json)
        return
    settings_file = shipped.find("presets", config) if config else None
    wait: dict[str, Any] = {"timeout": timeout, "patience": patience, "batch": batch, "token_env": token_env}
    wait |= {"headers": flags.pairs(header, "--header", "X-Api-Key=API_KEY"), "trust_callable": trust_callable}
    reach = validated(Reach, {name: value for name, value in wait.items() if value is not None}, "flags")
    require_distill("distilling")
    import edgekd.distill as distillation
    from edgekd.networks import is_factory

    run = opened(out) if resume or out else run_folder.RunFolder(run_folder.new_path(teachers[0]))
    settings = distillation.resolve_settings(told, settings_file, run if resume else None)
    own = ["--student", student] if student and is_factory(student) else []
    again = flags.command("distill", *teachers, "--out", str(run.path), "--resume", *own, *flags.reaching(reach))
    try:
        with _watched(run, port if live else None, tensorboard) as watch:
            distillation.distill(teachers, settings, run, resume=resume, overwrite=overwrite, watch=watch, reach=reach)
    except KeyboardInterrupt:
        begun = run.record_file.is_file()
        terminal.note(f"interrupted; go on with: {again}" if begun else "interrupted before the run began")
        raise typer.Exit(terminal.INTERRUPTED) from None
    except Refused:
        if run.record_file.is_file():
            terminal.note(f"stopped, and nothing that was answered is lost; go on with: {again}")
        raise
    if terminal.speaks():
        _told(run, again, json)


def _told(run: RunFolder, again: str, as_json: bool) -> None:
    """What came of a run, and what to do next."""
    from edgekd.closing import closing_lines
    from edgekd.networks import is_factory
    from edgekd.run_folder import out_of_queries

    record = run.record()
    if record["state"] != "finished":
        more = " --max-queries MORE" if out_of_queries(record) else ""
        terminal.note(f"go on with: {again}{more}")
    for line in closing_lines(run):
        terminal.note(line)
    done = f"{run.path}: {record['student']['name']} with {record['student']['parameters']:,} parameters"
    trust = " --trust-factory" if is_factory(record["student"]["name"]) else ""
    terminal.show(record, f"{done}; next: edgekd export {quote(str(run.path))} --int8{trust}", as_json=as_json)


def _transferred(
    runs: list[str], samples: Path | None, out: Path | None, seed: int, overwrite: bool, said: list[str], json: bool
) -> None:
    """`edgekd distill RUN --head-only`."""
    from edgekd.devices import load_target
    from edgekd.extras import require_distill

    where = "--head-only"
    if len(runs) > 1:
        raise BadSetting(f"{len(runs)} of them", where=where, allowed="one RUN")
    if said:
        raise BadSetting(f"{', '.join(said)} say how students learn, and none does", where=where, allowed="without")
    if samples is None:
        raise BadSetting("missing", where="--samples", allowed="an .npz with images and labels")
    require_distill("learning a last layer")
    from edgekd import transfer as transferring

    goal = out or Path(f"{samples.stem}.onnx")
    record = transferring.transfer(
        opened(Path(runs[0])), samples, goal, target=load_target("cpu"), seed=seed, overwrite=overwrite
    )
    held, classes = record["held_out"], record["samples"]["classes"]
    learned = f"{goal}: {classes} classes, accuracy {held['accuracy']:.1%} on {held['images']} samples held out"
    again = f"edgekd export {quote(str(goal))} --int8 --samples {quote(str(samples))}"
    terminal.show(record, f"{learned}; next: {again}", as_json=json)


def _whole_path(path: Path | None) -> str | None:
    """A path as a record keeps it: it must lead to the same place when the run is resumed from elsewhere."""
    return None if path is None else str(path.resolve())


@contextmanager
def _watched(run: RunFolder, port: int | None, tensorboard: bool) -> Iterator[Watch]:
    """A watcher of the terminal; of a page that is served at a port, unless that is None; and of event files."""
    watches: list[Watch] = []
    notes = [f"writing {run.path}; stop with Ctrl-C, nothing is lost"]
    with ExitStack() as stack:
        if tensorboard and terminal.speaks():
            from edgekd.report.events import event_files

            watches.append(stack.enter_context(event_files(run)))
        if port is not None and terminal.speaks():
            from edgekd.report.live import served

            address, renew = stack.enter_context(served(run, port))
            watches.append(lambda _: renew())
            notes.append(f"look at {address} on this machine while it trains")
        watches.append(stack.enter_context(terminal.distilling(*notes)))

        def watch(progress: Progress) -> None:
            for one in watches:
                one(progress)

        yield watch
