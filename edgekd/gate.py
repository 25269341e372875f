"""Hold a model against a budget: limit, actual and verdict for every limit that was set.

What the file alone decides (size, gzip size, parameters, MACs) is computed from the file, now; so is agreement, on the
held-out generated images. What had to be measured (latency, memory, load, accuracy) is taken from the run's records,
and only when they are of this very file. It measures nothing itself and compares with no earlier run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, Literal

from onnx import ModelProto
from pydantic import BeforeValidator, Field

from edgekd import inference, onnx_file, units
from edgekd.config import Record, validated
from edgekd.errors import BadRun, BadSetting, UnknownName
from edgekd.run_folder import RunFolder, is_model, read_json
from edgekd.shipped import read_toml

Student = Literal["student", "student.int8"]

Size = Annotated[int, BeforeValidator(units.read_size), Field(gt=0)]
Time = Annotated[float, BeforeValidator(units.read_time), Field(gt=0)]
Count = Annotated[int, BeforeValidator(units.read_count), Field(gt=0)]
Ratio = Annotated[float, BeforeValidator(units.read_ratio), Field(gt=0)]
Share = Annotated[float, BeforeValidator(units.read_share), Field(ge=0)]


class Budget(Record):
    """Limits on one model; what is not set is not checked. Ratios are to the teacher."""

    max_size: Size | None = Field(default=None, description="bytes of the file")
    max_gzip_size: Size | None = Field(default=None, description="bytes of the file, compressed by gzip -9")
    max_parameters: Count | None = Field(default=None, description="weights stored in the file")
    max_macs: Count | None = Field(default=None, description="multiply-accumulates of one image")
    max_p50: Time | None = Field(default=None, description="median latency, ms")
    max_p90: Time | None = Field(default=None, description="90th percentile of the latency, ms")
    max_memory: Size | None = Field(default=None, description="peak memory of the measuring process")
    max_load: Time | None = Field(default=None, description="time to load the file, ms")
    max_size_ratio: Ratio | None = Field(default=None, description="bytes, over the teacher's")
    max_parameters_ratio: Ratio | None = Field(default=None, description="parameters, over the teacher's")
    max_p50_ratio: Ratio | None = Field(default=None, description="median latency, over the teacher's")
    min_agreement: Share | None = Field(
        default=None, description="same class, labels or pixels as the teacher, generated images"
    )
    min_accuracy: Share | None = Field(default=None, description="on labelled images, from edgekd eval")

    def limits(self) -> dict[str, float]:
        """The limits that are set, in the order of the fields."""
        return {name: value for name, value in self if value is not None}


class Verdict(Record):
    """One limit, held or broken. `unit` is "B", "ms", "" (a count), "share" or "ratio"; `where` is the source."""

    metric: str
    limit: float
    actual: float
    unit: str
    ok: bool
    where: str

    def row(self) -> list[str]:
        """Metric, limit, actual, verdict and source as people read them."""
        write = _WRITERS[self.unit]
        sign = "≤" if self.metric.startswith("max") else "≥"
        verdict = "ok" if self.ok else "BROKEN"
        return [self.metric, f"{sign} {write(self.limit)}", write(self.actual), verdict, self.where]


HEADERS = ("metric", "limit", "actual", "verdict", "from")

_WRITERS: dict[str, Callable[[float], str]] = {
    "B": units.write_size,
    "ms": units.write_time,
    "": units.write_count,
    "share": units.write_share,
    "ratio": units.write_ratio,
}


# -------------------------------------------------------------------------------------------------------- budgets


def read_budget(path: Path | None = None, flags: Mapping[str, Any] | None = None) -> Budget:
    """A budget from the [budget] table of a TOML file, from flags, or from both: flags win, None is not set.

    Raises:
        UnknownName: no such metric; lists those there are and the nearest.
        BadSetting: unreadable, without a [budget] table, a value that cannot be read, or no limit at all.
    """
    values = _budget_table(path) if path is not None else {}
    values |= {name: value for name, value in (flags or {}).items() if value is not None}
    for name in values:
        if name not in Budget.model_fields:
            raise UnknownName("metric of the budget", name, Budget.model_fields)
    budget = validated(Budget, values, path if path is not None else "budget")
    _require_limits(budget, path)
    return budget


def _budget_table(path: Path) -> dict[str, Any]:
    content = read_toml(path)
    table = content.get("budget")
    if not isinstance(table, dict) or set(content) != {"budget"}:
        raise BadSetting(f"its tables are {', '.join(content) or 'none'}", where=path, allowed="one table, [budget]")
    return table


def _require_limits(budget: Budget, where: object) -> None:
    if not budget.limits():
        raise BadSetting(
            "a budget without a limit lets everything pass", where=where, allowed=", ".join(Budget.model_fields)
        )


# ------------------------------------------------------------------------------------------------------- evidence


@dataclass(frozen=True)
class Evidence:
    """What is known of one model: its file, and the run it belongs to, if any, whose records are read on demand."""

    file: Path
    model: ModelProto
    run: RunFolder | None

    def of_run(self) -> RunFolder:
        """The run; `check` lets no metric that needs one come here without it."""
        assert self.run is not None
        return self.run

    @cached_property
    def sha256(self) -> str:
        """Of the file as it is now."""
        return onnx_file.model_sha256(self.file)

    @cached_property
    def teacher(self) -> dict[str, Any]:
        """What run.json keeps of the teacher."""
        found: dict[str, Any] = self.of_run().record()["teacher"]
        return found

    @cached_property
    def measured(self) -> dict[str, Any]:
        """This file's entry of bench.json."""
        return self._benched(self.file.name.removesuffix(".onnx"), self.sha256)

    @cached_property
    def measured_teacher(self) -> dict[str, Any]:
        """The teacher's entry of bench.json."""
        return self._benched("teacher", self.teacher["sha256"])

    def _benched(self, label: str, sha256: object) -> dict[str, Any]:
        run = self.of_run()
        entry = _entry(read_json(run.require(run.bench_file, "bench")), label)
        if not entry or entry.get("sha256") != sha256:
            what = f"it holds no measurement of the {label} as it is now"
            raise BadRun(what, where=run.bench_file, hint=f"measure again: edgekd bench {quote(str(run.path))}")
        return entry

    def macs(self) -> float:
        """Multiply-accumulates of one image.

        Raises:
            BadSetting: the file does not tell them.
        """
        count = onnx_file.macs(self.model)
        if count is None:
            hint = "drop max_macs, or export it with fixed shapes"
            raise BadSetting("its MACs cannot be counted, shapes are unknown", where=self.file, hint=hint)
        return count

    def agreement(self) -> float:
        """With the teacher's choices on the held-out generated images, run now."""
        held_out = self.of_run().held_out()
        answers = inference.logits(self.file, held_out.images(), layout=held_out.layout)
        return inference.agreement(answers, held_out.logits, held_out.task)

    def accuracy(self) -> float:
        """From evaluation.json, if it is of this file."""
        run = self.of_run()
        command = f"eval {quote(str(self.file))} --data evaluation.npz"
        if not run.evaluation_file.is_file():
            raise BadRun("evaluation.json is missing", where=run.path, hint=f"run first: edgekd {command}")
        entry = _entry(read_json(run.evaluation_file), self.file.name)
        identity = entry.get("model")
        if not isinstance(identity, dict) or identity.get("sha256") != self.sha256:
            what = f"it holds no evaluation of {self.file.name} as it is now"
            raise BadRun(what, where=run.evaluation_file, hint=f"evaluate again: edgekd {command}")
        return number(entry, run.evaluation_file, "accuracy")


def _entry(record: Mapping[str, Any], label: str) -> dict[str, Any]:
    """One of a record's models; empty when it is not there."""
    models = record.get("models")
    entry = models.get(label) if isinstance(models, dict) else None
    return entry if isinstance(entry, dict) else {}


def number(record: Mapping[str, Any], where: Path, *keys: str) -> float:
    """A number deep in a record.

    Raises:
        BadRun: it is not there, or no number.
    """
    value: Any = record
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    if not isinstance(value, int | float):
        raise BadRun(f"{'.'.join(keys)} is no number", where=where, hint="write it again with this edgekd")
    return value


# -------------------------------------------------------------------------------------------------------- metrics


@dataclass(frozen=True)
class Metric:
    """How a limit's actual value is found, in what unit, and which file it is owed to."""

    unit: str
    source: Literal["model", "bench", "samples", "evaluation"]
    of_run: bool
    actual: Callable[[Evidence], float]

    def where(self, evidence: Evidence) -> str:
        """The file the value comes from."""
        if self.source == "model" or evidence.run is None:
            return str(evidence.file)
        run = evidence.run
        files = {"bench": run.bench_file, "samples": run.held_out_file, "evaluation": run.evaluation_file}
        return str(files[self.source])


def _of_file(unit: str, actual: Callable[[Evidence], float]) -> Metric:
    return Metric(unit, "model", False, actual)


def _measured(unit: str, *keys: str) -> Metric:
    return Metric(unit, "bench", True, lambda e: number(e.measured, e.of_run().bench_file, *keys))


def _to_teacher(key: str, actual: Callable[[Evidence], float]) -> Metric:
    return Metric("ratio", "model", True, lambda e: actual(e) / number(e.teacher, e.of_run().record_file, key))


def _p50_ratio(evidence: Evidence) -> float:
    where = evidence.of_run().bench_file
    entries = (evidence.measured, evidence.measured_teacher)
    own, theirs = (number(entry, where, "batch") for entry in entries)
    if own != theirs:
        what = f"max_p50_ratio compares a batch of {own:g} with the teacher's {theirs:g}"
        raise BadSetting(what, where=where, hint="drop it, or use a teacher whose batch is free")
    student, teacher = (number(entry, where, "latency_ms", "p50") for entry in entries)
    return student / teacher


METRICS: dict[str, Metric] = {
    "max_size": _of_file("B", lambda e: onnx_file.size(e.file)),
    "max_gzip_size": _of_file("B", lambda e: onnx_file.gzip_size(e.file)),
    "max_parameters": _of_file("", lambda e: onnx_file.parameters(e.model)),
    "max_macs": _of_file("", lambda e: e.macs()),
    "max_p50": _measured("ms", "latency_ms", "p50"),
    "max_p90": _measured("ms", "latency_ms", "p90"),
    "max_memory": _measured("B", "memory_bytes", "peak"),
    "max_load": _measured("ms", "load_ms"),
    "max_size_ratio": _to_teacher("bytes", lambda e: onnx_file.size(e.file)),
    "max_parameters_ratio": _to_teacher("parameters", lambda e: onnx_file.parameters(e.model)),
    "max_p50_ratio": Metric("ratio", "bench", True, _p50_ratio),
    "min_agreement": Metric("share", "samples", True, lambda e: e.agreement()),
    "min_accuracy": Metric("share", "evaluation", True, lambda e: e.accuracy()),
}


# ---------------------------------------------------------------------------------------------------------- check


def check(subject: RunFolder | Path, limits: Budget, which: Student | None = None) -> list[Verdict]:
    """Compare a model with every limit of a budget.

    Args:
        subject: a run, as an object or its folder, or one `.onnx` file (which has no latency, agreement or teacher).
        limits: the budget.
        which: the run's model to hold against it; by default the INT8 student, or the float one where there is no INT8.

    Returns:
        One verdict per limit that is set, in the order of the budget's fields.

    Raises:
        BadSetting: no limit is set, or one needs a run and only a file was given.
        BadRun: the run is not exported yet, or what was measured is missing or of another file; says what to run.
        BadModel: the file is not a usable ONNX model.
    """
    _require_limits(limits, None)
    evidence = _evidence(subject, which)
    needs_run = [name for name in limits.limits() if METRICS[name].of_run]
    if needs_run and evidence.run is None:
        known = ", ".join(name for name, metric in METRICS.items() if not metric.of_run)
        what = f"a file alone does not tell {', '.join(needs_run)}"
        raise BadSetting(what, where=evidence.file, allowed=known, hint="give its run folder instead")
    return [_verdict(name, limit, evidence) for name, limit in limits.limits().items()]


def _evidence(subject: RunFolder | Path, which: Student | None) -> Evidence:
    if isinstance(subject, Path):
        if is_model(subject):
            return Evidence(subject, onnx_file.load(subject), None)
        subject = RunFolder(subject)
    subject.record()
    files = {"student.int8": subject.student_int8_onnx, "student": subject.student_onnx}
    if which is None:
        which = "student.int8" if files["student.int8"].is_file() else "student"
    file = subject.exported(files[which])
    return Evidence(file, onnx_file.load(file), subject)


def _verdict(name: str, limit: float, evidence: Evidence) -> Verdict:
    metric = METRICS[name]
    actual = float(metric.actual(evidence))
    ok = actual <= limit if name.startswith("max") else actual >= limit
    return Verdict(metric=name, limit=limit, actual=actual, unit=metric.unit, ok=ok, where=metric.where(evidence))
