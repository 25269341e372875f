"""`edgekd bench` and `gate`: how large and how fast models are, and whether that will do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edgekd import flags, terminal
from edgekd.cli.options import Json, Shape, Subject, TargetName, TeacherFile, as_model, opened, refuse_of_run
from edgekd.cli.reporting import FormatName, format_of, of_measurement, of_verdicts, shown
from edgekd.errors import BadSetting, NotMeasurable

if TYPE_CHECKING:
    from edgekd.devices import Target
    from edgekd.run_folder import RunFolder

Strict = Annotated[bool, typer.Option("--strict", help="Exit 1 also when nodes fell back or nobody can decide.")]


def bench(
    subject: Subject = None,
    target: TargetName = "cpu",
    teacher: TeacherFile = None,
    input_shape: Shape = None,
    compare: Annotated[
        str | None,
        typer.Option(
            metavar="BASELINE",
            help="What to compare with: a record of --save-baseline, or to be measured in turn with it an ONNX file or "
            "a git revision (REV or REV:PATH).",
        ),
    ] = None,
    save_baseline: Annotated[
        Path | None, typer.Option(help="Measure everything twice, and write record and noise to a file.")
    ] = None,
    profile: Annotated[
        bool,
        typer.Option(
            "--profile",
            help="Where the time goes, operator by operator, float beside INT8: a table, and a chart as SVG.",
        ),
    ] = False,
    chart: Annotated[
        Path | None,
        typer.Option(help="Profile, and draw the chart here; else profile.svg in the run, or MODEL.profile.svg."),
    ] = None,
    placement: Annotated[
        bool, typer.Option("--placement", help="Which provider runs which share; always told of providers but the CPU.")
    ] = False,
    threads: Annotated[int | None, typer.Option(help="Of one operator; the target's if not told.")] = None,
    processes: Annotated[int | None, typer.Option(help="Fresh ones per model; the target's if not told.")] = None,
    affinity: Annotated[str | None, typer.Option(metavar="CORE[,CORE…]", help="Cores to stay on.")] = None,
    strict: Strict = False,
    require_measured: Annotated[
        bool, typer.Option("--require-measured", help="Exit 3 when the target cannot be measured here.")
    ] = False,
    output: FormatName = None,
    json: Json = False,
) -> None:
    """Measure size, latency and memory: teacher, student and INT8 student side by side."""
    from edgekd.bench.session import Session, measured

    form = format_of(output, json)
    device, profiled = _device(target, threads, processes, affinity), profile or _is_chart(chart)
    given: dict[str, Any] = {"teacher": teacher, "compare": compare, "saved": save_baseline}
    given |= {"profile": profiled, "chart": chart}
    given |= {"placement": placement or strict or device.runtime.provider != "CPUExecutionProvider"}
    if model := as_model(subject):
        asked = Session(model, device, shape=flags.shape(input_shape), **given)
    else:
        refuse_of_run(input_shape, "--input-shape")
        asked = Session(run := opened(subject), device, **given)
    with terminal.measuring() as watch:
        record = measured(asked, watch)
    if model is None and "teacher" not in record["models"]:
        _without_teacher(run)
    _told(record)
    report = of_measurement(record, strict=strict)
    shown(report, form)
    if profiled and not record["not_measured"]:
        drawn = asked.draw(record)
        terminal.note(f"chart: {drawn}" if drawn else f"no profile: a runner of kind {device.runner.kind} tells none")
    if require_measured and record["not_measured"]:
        raise NotMeasurable(record["not_measured"], where=f"target {device.name}")
    if any(case.outcome == "broken" for case in report.cases):
        raise typer.Exit(1)


def _device(name: str, threads: int | None, processes: int | None, affinity: str | None) -> Target:
    """A target, with what flags say otherwise."""
    from edgekd.config import validated
    from edgekd.devices import Target, load_target

    told = load_target(name).model_dump(by_alias=True)
    if threads is not None:
        told["runtime"]["intra_op_threads"] = threads
    if processes is not None:
        told["bench"]["processes"] = processes
    if affinity is not None:
        cores = flags.numbers(affinity, "--affinity") or ()
        if any(core != int(core) or core < 0 for core in cores):
            raise BadSetting(f"{affinity!r} are no cores", where="--affinity", allowed="0 or 0,1")
        told["bench"]["affinity"] = tuple(int(core) for core in cores)
    return validated(Target, told, "flags")


def _is_chart(path: Path | None) -> bool:
    if path is not None and path.suffix != ".svg":
        raise BadSetting(f"{path} is no SVG", where="--chart", allowed="a file that ends in .svg")
    return path is not None


def _without_teacher(run: RunFolder) -> None:
    path = run.record()["teacher"]["path"]
    terminal.note(f"without the teacher: {path} is no file, gone or changed; say --teacher FILE")


def _told(record: dict[str, Any]) -> None:
    """What people should know before they read the table."""
    if record["not_measured"]:
        terminal.note(f"not measured: {record['not_measured']}")
    if record["simulated"]:
        terminal.note("a simulator ran: placement and answers are the device's, times are not")
    for label, entry in record["models"].items():
        restless = [one for one in entry["processes"] if not one["stable"]]
        if restless:
            terminal.note(f"{label}: warm-up did not settle in {len(restless)} of {len(entry['processes'])} processes")
        for stray in (entry.get("placement") or {"fell_back": []})["fell_back"]:
            terminal.note(f"{label}: {stray['operator']} {stray['node']} runs on {stray['provider']}")
    if (compared := record.get("comparison")) and compared["differences"]:
        unlike = "; ".join(compared["differences"])
        terminal.note(f"warning: times are not comparable with {compared['against']}: {unlike}")


def gate(
    subjects: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RUN|MODEL.onnx]...", help="Run folder or models; the latest run if left out.", show_default=False
        ),
    ] = None,
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
    max_fallback: Annotated[str | None, typer.Option(help="Share of nodes on another provider: 0%.")] = None,
    max_size_increase: Annotated[str | None, typer.Option(help="Over the baseline: 5% or 10kB.")] = None,
    max_p50_increase: Annotated[str | None, typer.Option(help="Over the baseline: 5% or 0.1ms.")] = None,
    baseline: Annotated[
        str | None, typer.Option(metavar="FILE|REV:FILE", help="For limits on what changed: an earlier record.")
    ] = None,
    bench_record: Annotated[
        Path | None, typer.Option("--bench", help="What edgekd bench --json wrote, if not the run's bench.json.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 also when nobody can decide.")] = False,
    output: FormatName = None,
    json: Json = False,
) -> None:
    """Hold a model against a budget; exit 1 when it is broken."""
    limited = {name: value for name, value in locals().items() if name.startswith(("max_", "min_"))}
    form = format_of(output, json)
    import edgekd.gate as gating
    from edgekd import baseline as baselines

    limits = gating.read_budget(budget, limited)
    earlier = baselines.find(baseline) if baseline else None
    known: dict[str, Any] = {"bench": bench_record, "earlier": earlier, "earlier_name": baseline or ""}
    held = [
        verdict
        for subject in (*(subjects or ()),) or (None,)
        for verdict in gating.check(as_model(subject) or opened(subject), limits, model, **known)
    ]
    for verdict in held:
        if verdict.note:
            terminal.note(f"warning: {verdict.note}")
    report = of_verdicts(held, strict, several=len(subjects or []) > 1)
    shown(report, form)
    if not report.record["ok"]:
        raise typer.Exit(1)
