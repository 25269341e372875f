"""Every limit of a budget against what is known of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgekd import baseline, onnx_file, units
from edgekd.errors import BadRun, BadSetting
from edgekd.gate.budget import LIMITS, Budget, Limit, Step, Value, require_limits
from edgekd.gate.evidence import Evidence
from edgekd.run_folder import RunFolder, is_model
from edgekd.timing import Change

Student = Literal["student", "student.int8"]
Outcome = Literal["ok", "broken", "inconclusive"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One limit, held, broken, or beyond what the measurements can tell.

    `unit` is "B", "ms", "" (a count), "share", "ratio", "increase" (a share of the baseline) or "points"; `where` is
    the source, `baseline` its earlier value, `interval` the 95 % of `actual` where that was decisive.
    """

    metric: str
    limit: float
    actual: float
    unit: str
    ok: bool
    where: str
    outcome: Outcome
    baseline: float | None = None
    interval: tuple[float, float] | None = None
    note: str = ""

    def row(self) -> list[str]:
        """Metric, limit, actual, verdict and source as people read them."""
        write = WRITERS[self.unit]
        sign = "≥" if self.metric.startswith("min") else "≤"
        ends = f" [{write(self.interval[0])}, {write(self.interval[1])}]" if self.interval else ""
        verdict = "BROKEN" if self.outcome == "broken" else self.outcome
        return [self.metric, f"{sign} {write(self.limit)}", write(self.actual) + ends, verdict, self.where]


HEADERS = ("metric", "limit", "actual", "verdict", "from")

WRITERS: dict[str, Callable[[float], str]] = {
    "B": units.write_size,
    "ms": units.write_time,
    "": units.write_count,
    "share": units.write_share,
    "ratio": units.write_ratio,
    "increase": units.write_change,
    "points": units.write_points,
}


def check(
    subject: RunFolder | Path,
    limits: Budget,
    which: Student | None = None,
    *,
    bench: Path | None = None,
    earlier: Mapping[str, Any] | None = None,
    earlier_name: str = "baseline",
) -> list[Verdict]:
    """Compare a model with every limit of a budget.

    Args:
        subject: a run, as an object or its folder, or one `.onnx` file (which has no agreement or teacher).
        limits: the budget.
        which: the run's model to hold against it; by default the INT8 student, or the float one where there is no INT8.
        bench: the record of `edgekd bench --json`, if it is not the run's own bench.json.
        earlier: a baseline, for limits on what changed; `earlier_name` is what to call it.

    Returns:
        One verdict per limit that is set, in the order of `LIMITS`.

    Raises:
        BadSetting: no limit is set, or one needs a run or a baseline and there is none.
        BadRun: the run is not exported yet, or what was measured is missing or of another file; says what to run.
        BadModel: the file is not a usable ONNX model.
    """
    require_limits(limits, None)
    if earlier is None and (changes := limits.needs_baseline()):
        hint = "name one with --baseline FILE; edgekd bench --save-baseline FILE writes it"
        raise BadSetting(f"{', '.join(changes)} need a baseline", where="budget", hint=hint)
    evidence = _evidence(subject, which, bench)
    _require_sources(evidence, limits)
    return [_verdict(name, value, evidence, earlier, earlier_name) for name, value in limits.limits().items()]


def _evidence(subject: RunFolder | Path, which: Student | None, bench: Path | None) -> Evidence:
    if isinstance(subject, Path):
        if is_model(subject):
            return Evidence(subject, onnx_file.load(subject), None, bench)
        subject = RunFolder(subject)
    subject.record()
    files = {"student.int8": subject.student_int8_onnx, "student": subject.student_onnx}
    if which is None:
        which = "student.int8" if files["student.int8"].is_file() else "student"
    file = subject.exported(files[which])
    return Evidence(file, onnx_file.load(file), subject, bench)


def _require_sources(evidence: Evidence, limits: Budget) -> None:
    """A file alone has no run, and without a record no times."""
    if evidence.run is not None:
        return
    told = ("model", "bench") if evidence.bench else ("model",)
    alone = {n: one.of.source in told and one.rule != "to_teacher" for n, one in LIMITS.items()}
    if wanting := [name for name in limits.limits() if not alone[name]]:
        allowed = ", ".join(name for name, known in alone.items() if known)
        what = f"a file alone does not tell {', '.join(wanting)}"
        hint = "give its run folder instead, or for times --bench with what edgekd bench --json wrote"
        raise BadSetting(what, where=evidence.file, allowed=allowed, hint=hint)


def _verdict(
    name: str, value: Value, evidence: Evidence, earlier: Mapping[str, Any] | None, earlier_name: str
) -> Verdict:
    limit = LIMITS[name]
    told = {"metric": name, "where": evidence.where(limit.of.source)}
    if limit.rule in ("change", "to_baseline"):
        assert earlier is not None  # `check` saw to it
        return Verdict(**told | _against(limit, value, evidence, earlier, earlier_name))
    assert not isinstance(value, Step)
    actual = _to_teacher(name, limit, evidence) if limit.rule == "to_teacher" else limit.of.actual(evidence)
    ok = actual >= value if limit.of.more_is_better else actual <= value
    unit = "ratio" if limit.rule == "to_teacher" else limit.of.unit
    return Verdict(**told | {"limit": value, "actual": float(actual), "unit": unit} | _outcome(ok))


def _outcome(ok: bool) -> dict[str, Any]:
    return {"ok": ok, "outcome": "ok" if ok else "broken"}


def _to_teacher(name: str, limit: Limit, evidence: Evidence) -> float:
    assert limit.of.teacher is not None
    if limit.of.timed:
        evidence.require_equal_batches(name)
    return limit.of.actual(evidence) / limit.of.teacher(evidence)


# ------------------------------------------------------------------------------------------------ against a baseline


def _against(limit: Limit, value: Value, evidence: Evidence, earlier: Mapping[str, Any], where: str) -> dict[str, Any]:
    entry = baseline.entry_of(earlier, evidence.label, where)
    evidence.require_inputs_of(entry, where)
    before = limit.of.of_entry(entry)
    if not isinstance(before, int | float):
        hint = "save it again from a run that has it"
        raise BadRun(f"it does not tell the {limit.metric} of {evidence.label}", where=where, hint=hint)
    now = limit.of.actual(evidence)
    if limit.of.timed:
        return _timed(limit, value, evidence, earlier, where) | {"baseline": before}
    shown = {"baseline": before}
    if not isinstance(value, Step):
        ratio = now / before if before else float(now > 0)
        ok = ratio >= value if limit.of.more_is_better else ratio <= value
        return shown | {"limit": value, "actual": ratio, "unit": "ratio"} | _outcome(ok)
    moved = before - now if limit.of.more_is_better else now - before
    if value.absolute is not None:
        unit = "points" if limit.of.unit == "share" else limit.of.unit
        return shown | {"limit": value.absolute, "actual": moved, "unit": unit} | _outcome(moved <= value.absolute)
    assert value.relative is not None
    share = moved / before if before else float(moved > 0)
    return shown | {"limit": value.relative, "actual": share, "unit": "increase"} | _outcome(share <= value.relative)


def _timed(limit: Limit, value: Value, evidence: Evidence, earlier: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A time against its earlier one: broken only when the interval lies above the limit and above the noise."""
    entry, own = baseline.entry_of(earlier, evidence.label, where), evidence.measured
    baseline.require_same_task(own, entry, where)
    found = baseline.change_of(own, entry, limit.metric)
    if found is None:
        raise BadRun(f"it holds no samples of {limit.metric}", where=where, hint="save it again")
    before = float(limit.of.of_entry(entry))  # type: ignore[arg-type]  # `_against` saw that it is a number
    allowed = _as_ratio(value, before)
    least = baseline.floor(earlier, evidence.label, limit.metric)
    unlike = baseline.differences(evidence.bench_record, earlier)
    verdict = "inconclusive" if unlike else found.verdict(max(allowed, 1 + least))
    outcome = {"regressed": "broken", "improved": "ok"}.get(verdict, verdict)
    note = f"{limit.metric} cannot be compared: {'; '.join(unlike)}" if unlike else ""
    return _shown(found, allowed, isinstance(value, Step)) | {
        "outcome": outcome,
        "ok": outcome != "broken",
        "note": note,
    }


def _as_ratio(value: Value, before: float) -> float:
    if not isinstance(value, Step):
        return value
    return 1 + (value.relative if value.relative is not None else (value.absolute or 0) / before)


def _shown(found: Change, allowed: float, as_increase: bool) -> dict[str, Any]:
    less = 1 if as_increase else 0
    ends = (found.low - less, found.high - less) if found.low is not None and found.high is not None else None
    unit = "increase" if as_increase else "ratio"
    return {"limit": allowed - less, "actual": found.ratio - less, "interval": ends, "unit": unit}
