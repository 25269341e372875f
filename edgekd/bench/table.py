"""A bench record as a table for a terminal: one column per model, so that three models fit 80 characters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgekd import units

Entry = dict[str, Any]


def headers(record: dict[str, Any]) -> list[str]:
    """The labels of the models, after an empty corner."""
    return ["", *record["models"]]


def rows(record: dict[str, Any]) -> list[list[str]]:
    """One row per metric under `headers`, from a record of schema `edgekd.bench/1`.

    What is unknown is a dash; metrics that are unknown of every model are left out.
    """
    entries = [entry | {"ratios": _to_teacher(record, label)} for label, entry in record["models"].items()]
    found = [[name, *(write(entry) for entry in entries)] for name, write in _METRICS.items()]
    if record.get("simulated"):
        found = [[f"{name}, simulated" if name in TIMES else name, *cells] for name, *cells in found]
    return [row for row in found if set(row[1:]) != {"-"}]


def _to_teacher(record: dict[str, Any], label: str) -> dict[str, float | None]:
    ratios: dict[str, float | None] = record["ratios"].get(f"{label}/teacher", {})
    return ratios


def _known(write: Callable[[float], str], value: float | None) -> str:
    return write(value) if value is not None else "-"


def _within(write: Callable[[float], str], facts: dict[str, Any] | None, key: str) -> str:
    return _known(write, facts[key] if facts else None)


def _apart(entry: Entry, way: str) -> dict[str, Any] | None:
    found: dict[str, Any] | None = (entry.get("apart") or {}).get(way)
    return found


def _p50(entry: Entry) -> str:
    latency = entry["latency_ms"]
    if latency is None:
        return "not measured"
    ends = latency["p50_interval"]
    interval = f" [{units.digits(ends[0])}, {units.digits(ends[1])}]" if ends else ""
    return f"{units.digits(latency['p50'])}{interval} ms"


TIMES = (
    "parts one by one, p50",
    "parts in parallel, p50",
    "p50 [95 %]",
    "p90",
    "p95",
    "p99",
    "load",
    "first run",
    "p50 / teacher",
)
"""What is no device's where a simulator ran."""

_METRICS: dict[str, Callable[[Entry], str]] = {
    "size": lambda e: units.write_size(e["bytes"]),
    "size, gzip": lambda e: units.write_size(e["gzip_bytes"]),
    "parameters": lambda e: units.write_count(e["parameters"]),
    "MACs": lambda e: _known(units.write_count, e["macs"]),
    "p50 [95 %]": _p50,
    "p90": lambda e: _within(units.write_time, e["latency_ms"], "p90"),
    "p95": lambda e: _within(units.write_time, e["latency_ms"], "p95"),
    "p99": lambda e: _within(units.write_time, e["latency_ms"], "p99"),
    "parts one by one, p50": lambda e: _within(units.write_time, _apart(e, "one_by_one"), "p50"),
    "parts in parallel, p50": lambda e: _within(units.write_time, _apart(e, "parallel"), "p50"),
    "load": lambda e: _known(units.write_time, e["load_ms"]),
    "first run": lambda e: _known(units.write_time, e["first_run_ms"]),
    "peak memory": lambda e: _within(units.write_size, e["memory_bytes"], "peak"),
    "of it, for the model": lambda e: _within(units.write_size, e["memory_bytes"], "added"),
    "instructions": lambda e: _known(units.write_count, e.get("instructions")),
    "fell back, nodes": lambda e: _known(units.write_share, e.get("fallback")),
    "difference from the CPU": lambda e: _within(units.digits, e.get("difference"), "absolute"),
    "agreement": lambda e: _known(units.write_share, e["agreement"]),
    "size / teacher": lambda e: _known(units.write_ratio, e["ratios"].get("bytes")),
    "parameters / teacher": lambda e: _known(units.write_ratio, e["ratios"].get("parameters")),
    "p50 / teacher": lambda e: _known(units.write_ratio, e["ratios"].get("p50")),
}
