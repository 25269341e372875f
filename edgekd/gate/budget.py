"""Budgets: limits as people write them, from a TOML file, from flags, or from both.

[budget]
max_size = "300 kB"                    # one line a limit, as the flags are called, or a table a metric:

[budget.p50]
max = "2 ms"
max_increase = "5 %"                   # over the baseline: a share, or an amount such as "0.1 ms"
max_ratio_to = { teacher = 0.5, baseline = 1.05 }

[budget.accuracy]                      # where more is better: min, max_drop, min_ratio_to
min = "90 %"
max_drop = "1 pp"                      # percentage points
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgekd import units
from edgekd.errors import BadSetting, UnknownName
from edgekd.gate.metrics import METRICS, READERS, Metric
from edgekd.shipped import read_toml

Rule = Literal["bound", "change", "to_teacher", "to_baseline"]


@dataclass(frozen=True)
class Step:
    """How far a value may move from the baseline's: by a share of it, or by an amount in the metric's unit."""

    relative: float | None = None
    absolute: float | None = None


Value = float | Step


@dataclass(frozen=True)
class Limit:
    """One kind of limit: a metric, and what of it is limited."""

    metric: str
    rule: Rule

    @property
    def of(self) -> Metric:
        """The metric's definition."""
        return METRICS[self.metric]

    def read(self, value: object) -> Value:
        """A limit's value from what a person wrote.

        Raises:
            ValueError: it cannot be read, or forbids everything.
        """
        if self.rule == "change":
            return _step(value, self.of)
        read = READERS[self.of.unit] if self.rule == "bound" else units.read_ratio
        number = read(value)
        if number == 0 and self.of.unit != "share":
            raise ValueError(f"{value!r} should be greater than 0")
        return number


def _step(value: object, metric: Metric) -> Step:
    if metric.unit == "share":
        return Step(absolute=units.read_points(value))
    try:
        return Step(relative=units.read_percent(value))
    except ValueError:
        try:
            return Step(absolute=READERS[metric.unit](value))
        except ValueError as error:
            raise ValueError(f"{error}; or a share of the baseline's: 5 %") from error


def _limits() -> Iterator[tuple[str, Limit]]:
    """Every limit by its flat name: the spelling of flags, and of lines in a file."""
    for name, metric in METRICS.items():
        most, moved = ("min", "drop") if metric.more_is_better else ("max", "increase")
        yield f"{most}_{name}", Limit(name, "bound")
        yield f"max_{name}_{moved}", Limit(name, "change")
        if metric.teacher:
            yield f"{most}_{name}_ratio", Limit(name, "to_teacher")
        if metric.unit != "share" or metric.more_is_better:
            yield f"{most}_{name}_ratio_to_baseline", Limit(name, "to_baseline")


LIMITS: dict[str, Limit] = dict(_limits())


@dataclass(frozen=True)
class Budget:
    """Limits on one model, by their flat names; what is not in it is not checked."""

    values: Mapping[str, Value]

    def limits(self) -> dict[str, Value]:
        """The limits that are set, in the order of `LIMITS`."""
        return {name: self.values[name] for name in LIMITS if name in self.values}

    def needs_baseline(self) -> list[str]:
        """The limits that only an earlier measurement can decide."""
        return [name for name in self.limits() if LIMITS[name].rule in ("change", "to_baseline")]


def read_budget(path: Path | None = None, flags: Mapping[str, Any] | None = None) -> Budget:
    """A budget from the [budget] table of a TOML file, from flags, or from both: flags win, None is not set.

    Raises:
        UnknownName: no such metric or limit; lists those there are and the nearest.
        BadSetting: unreadable, without a [budget] table, values that cannot be read (all are told), or no limit at all.
    """
    written = _flat(_budget_table(path), path) if path is not None else {}
    written |= {name: value for name, value in (flags or {}).items() if value is not None}
    values: dict[str, Value] = {}
    problems = []
    for name, value in written.items():
        if name not in LIMITS:
            raise UnknownName(f"limit of the budget{f' {path}' if path else ''}", name, LIMITS)
        try:
            values[name] = LIMITS[name].read(value)
        except ValueError as error:
            problems.append(f"{name}: {error}")
    if problems:
        raise BadSetting(", ".join(problems), where=path if path is not None else "budget")
    budget = Budget(values)
    require_limits(budget, path)
    return budget


def require_limits(budget: Budget, where: object) -> None:
    """Refuse an empty budget.

    Raises:
        BadSetting: no limit is set.
    """
    if not budget.limits():
        what = "a budget without a limit lets everything pass"
        raise BadSetting(what, where=where, allowed=", ".join(LIMITS))


def _budget_table(path: Path) -> dict[str, Any]:
    content = read_toml(path)
    table = content.get("budget")
    if not isinstance(table, dict) or set(content) != {"budget"}:
        what, page = f"its tables are {', '.join(content) or 'none'}", "tutorial.md#a-gate-in-ci"
        raise BadSetting(what, where=path, allowed="one table, [budget]", page=page)
    return table


_SUFFIXES = {"max_increase": "_increase", "max_drop": "_drop"}


def _flat(table: Mapping[str, Any], path: Path | None) -> dict[str, Any]:
    """Lines as they are, and tables of metrics as the lines they stand for."""
    found: dict[str, Any] = {}
    for name, value in table.items():
        lines = _of_metric(name, value, path) if isinstance(value, dict) else {name: value}
        if twice := found.keys() & lines.keys():
            raise BadSetting(f"{', '.join(sorted(twice))} is set twice, in a line and in a table", where=path)
        found |= lines
    return found


def _of_metric(name: str, table: Mapping[str, Any], path: Path | None) -> dict[str, Any]:
    if name not in METRICS:
        raise UnknownName(f"metric of the budget {path}", name, METRICS)
    most = "min" if METRICS[name].more_is_better else "max"
    moved = "max_drop" if METRICS[name].more_is_better else "max_increase"
    found: dict[str, Any] = {}
    for key, value in table.items():
        if key == f"{most}_ratio_to" and isinstance(value, dict):
            names = {"teacher": f"{most}_{name}_ratio", "baseline": f"{most}_{name}_ratio_to_baseline"}
            if unknown := value.keys() - names.keys():
                raise BadSetting(f"{name}.{key}: unknown {', '.join(unknown)}", where=path, allowed="teacher, baseline")
            found |= {names[other]: ratio for other, ratio in value.items()}
        elif key in (most, moved):
            found[f"max_{name}{_SUFFIXES[key]}" if key == moved else f"{most}_{name}"] = value
        else:
            allowed = f"{most}, {moved}, {most}_ratio_to = {{ teacher = …, baseline = … }}"
            raise BadSetting(f"{name}.{key} is no limit", where=path, allowed=allowed)
    if beyond := found.keys() - LIMITS.keys():
        raise BadSetting(f"{', '.join(sorted(beyond))} means nothing", where=path, allowed=", ".join(LIMITS))
    return found
