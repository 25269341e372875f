"""Several students of one teacher, side by side: size, latency, and how far each agrees with its teacher.

The largest student is distilled as `edgekd distill` does it. The others learn from the images it left, with the answers
that were kept: the generator is trained once, and nothing is asked twice. A sweep's folder holds an ordinary run folder
for every student, which `export`, `bench`, `gate` and `report` take, and beside them

    sweep.json     the plan, and what came of it   (schema edgekd.sweep/1)
    sweep.html     the same to look at

The record:

    schema, tool, started, finished (null while it goes on), teachers, target
    settings   what all students are distilled with, but for name, width and time
    students   list of {run, student, width, parameters}, the one that made the images first
    rows       list of {run, model, file, sha256, bytes, parameters, p50_ms (null where it was not measured),
               agreement (on held-out generated images), interval (95 %), estimate (see `edgekd.fidelity`),
               front (no other is both smaller and closer to the teacher), broken (limits; null without a budget)}
    cheapest   {run, model}: the smallest file that meets the budget, or null
    not_measured   null, or why there are no times
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd import __version__, onnx_file, units
from edgekd.candidates import Candidate, candidates, shares
from edgekd.config import DistillSettings, Reach, Record, validated
from edgekd.devices import Target, load_recipe
from edgekd.errors import BadRun, BadSetting, NotMeasurable
from edgekd.gate import LIMITS, Budget, check
from edgekd.report.comparison import leading, write_comparison
from edgekd.run_folder import RunFolder, out_of_queries, read_json, write_json
from edgekd.settings import DEFAULT_MINUTES, following
from edgekd.user_code import is_file_name

if TYPE_CHECKING:
    from edgekd.journal import Watch
    from edgekd.teachers.open import Named

SCHEMA = "edgekd.sweep/1"
Tell = Callable[[str], None]


class Plan(Record):
    """What a sweep is to do, as its record keeps it."""

    teachers: tuple[str, ...]
    settings: DistillSettings
    students: tuple[Candidate, ...]
    target: str

    def settings_of(self, place: int, first: DistillSettings) -> DistillSettings:
        """What the student at a place is distilled with, by the settings of the first, which makes the images."""
        one, minutes = self.students[place], self.settings.minutes
        own = None if minutes is None else shares(minutes, len(self.students))[place]
        told = first.model_copy(update={"student": one.student, "width": one.width, "minutes": own})
        return following(told) if place else told


@dataclass(frozen=True)
class Watchers:
    """Who is told of what: the progress of each distillation, and which student it is the turn of."""

    progress: Watch | None = None
    tell: Tell = field(default=lambda _: None)


def planned(
    teachers: Sequence[Named],
    settings: DistillSettings,
    students: Sequence[str],
    widths: Sequence[float] | None,
    target: Target,
) -> Plan:
    """The plan of a sweep, checked as far as that is possible before anything runs.

    Args:
        teachers: as for `edgekd.distill`.
        settings: of all students; minutes are those of the whole sweep, steps those of each student.
        students, widths: every student is tried at every width, or at its own.
        target: what the students are exported for and measured as.

    Raises:
        BadSetting, UnknownName: a student, a width, or too little time for so many.
        BadModel: the teacher's file cannot be read.
    """
    if settings.samples is not None or settings.added_to is not None:
        raise BadSetting("images come from a generator", where="samples, added_to", allowed="with edgekd distill")
    if not students:
        raise BadSetting("no student", where="--students", allowed="names, separated by commas")
    for width in widths or ():
        validated(DistillSettings, settings.model_dump() | {"width": width}, "--widths")
    spec, count = _read(teachers, settings)
    if spec is not None and spec.vocabulary is not None:
        what = "it takes token ids, which no generator makes"
        raise BadSetting(what, where=teachers[0], allowed="edgekd distill, one student at a time")
    found = candidates(students, widths or [None], spec, count)
    if settings.minutes is not None:
        shares(settings.minutes, len(found))
    following(settings)
    names = tuple(map(str, teachers))
    return Plan(teachers=names, settings=settings, students=tuple(found), target=target.name)


def default_minutes(count: int) -> float:
    """What leaves the first of so many students the time that `edgekd distill` takes."""
    return DEFAULT_MINUTES * (count + 1) / 2


def _read(teachers: Sequence[Named], settings: DistillSettings) -> tuple[Any, int | None]:
    """What the first teacher's file tells, and its parameters; nothing of a server or a function."""
    from edgekd.teachers.open import STATED  # noqa: PLC0415 - torch
    from edgekd.teachers.spec import read_spec  # noqa: PLC0415

    if not is_file_name(teachers[0]):
        return None, None
    path = Path(teachers[0])
    spec = read_spec(path, **{field: getattr(settings, field) for field in STATED})
    return spec, onnx_file.parameters(onnx_file.load(path)) or None


# -------------------------------------------------------------------------------------------------------------- running


def sweep(
    plan: Plan,
    folder: Path,
    target: Target,
    *,
    budget: Budget | None = None,
    resume: bool = False,
    reach: Reach | None = None,
    watchers: Watchers | None = None,
) -> dict[str, Any]:
    """Distil, export and measure every student of a plan, and compare them.

    It may be killed at any moment; what is finished is not done again on `resume`.

    Args:
        plan: see `planned`.
        folder: of the sweep; must not exist, unless it is resumed.
        target: the one of the plan.
        budget: limits; the smallest file that meets them is named.
        resume: go on with the sweep in the folder.
        reach: as for `edgekd.distill`.
        watchers: told meanwhile.

    Returns:
        The record of schema `edgekd.sweep/1`.

    Raises:
        BadRun: the folder is there already, or holds another sweep or none.
        BadSetting: the budget limits what a sweep does not find out.
        NotMeasurable: it limits times, and the target cannot be measured here.
        EdgekdError: what distilling, exporting or measuring raises; what is finished is kept.
        KeyboardInterrupt: passed on, likewise.
    """
    watchers, file = watchers or Watchers(), folder / "sweep.json"
    if budget is not None:
        _check_budget(budget, target)
    started = _begun(plan, folder, file, resume)
    write_json(file, started)
    for place, one in enumerate(plan.students):
        watchers.tell(f"{one.run}: student {place + 1} of {len(plan.students)}")
        _distilled(plan, folder, place, reach, watchers.progress)
        _exported(RunFolder(folder / one.run), target)
    watchers.tell("measuring")
    reasons = [_measured(RunFolder(folder / one.run), target) for one in plan.students]
    rows = [row for one in plan.students for row in _rows(RunFolder(folder / one.run), one.run)]
    _judge(rows, folder, budget)
    ended = {
        "finished": _now(),
        "rows": rows,
        "cheapest": _cheapest(rows),
        "not_measured": next(filter(None, reasons), None),
    }
    record = started | ended
    write_json(file, record)
    write_comparison(record, folder / "sweep.html")
    return record


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _check_budget(budget: Budget, target: Target) -> None:
    from edgekd.bench.quick import not_here  # noqa: PLC0415 - ONNX Runtime

    if changes := budget.needs_baseline():
        raise BadSetting(
            f"{', '.join(changes)} need a baseline", where="budget", allowed="limits on the files themselves"
        )
    labelled = [name for name in budget.limits() if LIMITS[name].of.source == "evaluation"]
    if labelled:
        hint = "hold the runs against it afterwards: edgekd eval, then edgekd gate"
        raise BadSetting(f"{', '.join(labelled)} need labelled images", where="budget", hint=hint)
    timed = [name for name in budget.limits() if LIMITS[name].of.source == "bench"]
    if timed and (reason := not_here(target)):
        raise NotMeasurable(f"{', '.join(timed)} cannot be held here, {reason}", where=f"target {target.name}")


def _begun(plan: Plan, folder: Path, file: Path, resume: bool) -> dict[str, Any]:
    """The record so far: that of a new folder, or of the sweep that goes on."""
    told = plan.model_dump(mode="json")
    RunFolder(folder).check_writable()
    if not resume:
        if folder.exists():
            raise BadRun("it exists already", where=folder, hint="choose another --out, or go on with --resume")
        head = {"schema": SCHEMA, "tool": {"name": "edgekd", "version": __version__}, "started": _now()}
        return head | told | {"finished": None, "rows": [], "cheapest": None, "not_measured": None}
    if not file.is_file():
        raise BadRun("there is no sweep to go on with", where=folder, hint="leave --resume out")
    stored = read_json(file)
    if stored.get("schema") != SCHEMA:
        raise BadRun(f"schema {stored.get('schema')!r} is not {SCHEMA}", where=file)
    if different := [key for key, value in told.items() if stored.get(key) != value]:
        hint = "resume with what it was started with, or start another"
        raise BadRun(f"it was started with other {', '.join(different)}", where=folder, hint=hint)
    return stored


def stored_plan(folder: Path) -> Plan | None:
    """The plan of the sweep in a folder, if there is one.

    Raises:
        BadRun, BadSetting: its record is damaged.
    """
    file = folder / "sweep.json"
    if not file.is_file():
        return None
    record = read_json(file)
    return validated(Plan, {key: record.get(key) for key in Plan.model_fields}, file)


def _distilled(plan: Plan, folder: Path, place: int, reach: Reach | None, watch: Watch | None) -> None:
    """See that a student is distilled: at once, from its checkpoint, or not again."""
    run = RunFolder(folder / plan.students[place].run)
    begun = run.record_file.is_file()
    if begun and _ended(run.record()):
        return
    import edgekd.distill as distillation  # noqa: PLC0415 - torch

    bank = RunFolder(folder / plan.students[0].run) if place else None
    # What was left to be found out about the teacher, a method that suits it say, the first one's record tells.
    first = validated(DistillSettings, bank.record()["settings"], bank.record_file) if bank else plan.settings
    settings = plan.settings_of(place, first)
    how: dict[str, Any] = {"watch": watch} if watch else {}
    how["overwrite"] = run.path.exists() and not begun  # killed before its record was written
    distillation.distill(list(plan.teachers), settings, run, resume=begun, reach=reach, bank=bank, **how)


def _ended(record: Mapping[str, Any]) -> bool:
    """Whether there is nothing more to be done: it is finished, or out of queries."""
    return record["state"] == "finished" or out_of_queries(record)


def _exported(run: RunFolder, target: Target) -> None:
    from edgekd.export import export  # noqa: PLC0415 - ONNX Runtime

    try:
        run.exported(run.student_onnx)
        done = run.export_file.is_file()
    except BadRun:
        done = False
    if not done:  # a factory was named on this very command line, so it may run
        int8 = target.quantization.precision == "int8"
        export(run, int8=int8, target=target, recipe=load_recipe("percentile"), trust_factory=True)


def _measured(run: RunFolder, target: Target) -> str | None:
    """See that a run's files are measured, and on probes too; why they could not be, if they could not."""
    from edgekd.bench import bench_run  # noqa: PLC0415 - ONNX Runtime
    from edgekd.fidelity import fidelity  # noqa: PLC0415
    from edgekd.unseen import shipped_calibration  # noqa: PLC0415

    if not run.fidelity_file.is_file():
        fidelity(run, calibration=shipped_calibration())
    record = read_json(run.bench_file) if run.bench_file.is_file() else bench_run(run, target)
    return record.get("not_measured")


def _rows(run: RunFolder, name: str) -> list[dict[str, Any]]:
    """What a run's students are, the float one first."""
    benched, probed = read_json(run.bench_file)["models"], read_json(run.fidelity_file)["models"]
    rows = []
    for label, path in run.models().items():
        if label == "teacher":
            continue
        measured, seen = benched[label], probed[path.name]
        latency, held = measured.get("latency_ms"), seen["probes"]["held_out"]
        told: dict[str, Any] = {"run": name, "model": label, "file": path.name}
        told |= {key: measured[key] for key in ("sha256", "bytes", "parameters")}
        told |= {"p50_ms": latency["p50"] if latency else None, "estimate": seen["estimate"]}
        rows.append(told | {"agreement": held["agreement"], "interval": held["interval"]})
    return rows


def _judge(rows: Sequence[dict[str, Any]], folder: Path, budget: Budget | None) -> None:
    """Say of each row whether it is on the front, and what of a budget it breaks."""
    for row, ahead in zip(rows, leading(rows, "bytes"), strict=True):
        row["front"], row["broken"] = ahead, None
        if budget is not None:
            held = check(RunFolder(folder / row["run"]), budget, row["model"])
            row["broken"] = [verdict.metric for verdict in held if not verdict.ok]


def _cheapest(rows: Sequence[Mapping[str, Any]]) -> dict[str, str] | None:
    """The smallest file that breaks nothing, of two alike the one that agrees more; None without a budget."""
    fit = [row for row in rows if row["broken"] == []]
    if not fit:
        return None
    best = min(fit, key=lambda row: (row["bytes"], -row["agreement"]))
    return {"run": best["run"], "model": best["model"]}


# -------------------------------------------------------------------------------------------------------------- telling

HEADERS = ("student", "model", "size", "parameters", "p50", "agrees, generated images", "", "budget")


def table(record: Mapping[str, Any]) -> list[list[str]]:
    """The rows of a record as people read them, under `HEADERS`, the smallest file first."""
    told = []
    for row in sorted(record["rows"], key=lambda one: one["bytes"]):
        p50 = "-" if row["p50_ms"] is None else units.write_time(row["p50_ms"])
        figures = [units.write_size(row["bytes"]), units.write_count(row["parameters"]), p50]
        held = "" if row["broken"] is None else "ok" if not row["broken"] else "breaks " + ", ".join(row["broken"])
        told.append(
            [row["run"], row["model"], *figures, units.write_share(row["agreement"]), "front" * row["front"], held]
        )
    return told
