"""What `bench` and `gate` found, made ready for any format, and shown in the one that was asked for."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekd import terminal, units
from edgekd.errors import BadSetting
from edgekd.formats import FORMATS, Case, Figure, Format, Outcome, Report, step_summary

if TYPE_CHECKING:
    from edgekd.gate import Verdict

FormatName = Annotated[
    Format | None, typer.Option("--format", help="How to show it; github also writes the step's summary.")
]


def format_of(chosen: Format | None, as_json: bool) -> Format:
    """The one format that two flags ask for; to be asked before anything is measured."""
    if as_json and chosen not in (None, "json"):
        raise BadSetting(f"--json and --format {chosen}", where="--format", allowed="one of them")
    return "json" if as_json else chosen or "table"


def shown(report: Report, name: Format) -> None:
    """Print a report; of GitHub also into the summary of the step."""
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if name == "github" and summary:
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(step_summary(report))
    terminal.write(FORMATS[name](report))


# -------------------------------------------------------------------------------------------------------------- gate


def of_verdicts(held: Sequence[Verdict], strict: bool, *, several: bool = False) -> Report:
    """The report of a gate. Under `strict`, what cannot be decided counts as broken; several models are named."""
    from edgekd.gate import HEADERS

    cases = [_case(verdict, strict, several) for verdict in held]
    broken, open_ones = _named(cases, "broken"), _named(cases, "inconclusive")
    told = f"; inconclusive, {', '.join(open_ones)}" if open_ones else ""
    kept = len(held) - len(open_ones)
    ok = f"gate: ok, {kept} limit{'' if kept == 1 else 's'} held"
    summary = f"gate: broken, {', '.join(broken)}{told}" if broken else f"{ok}{told}"
    record = {"schema": "edgekd.gate/1", "ok": not broken, "verdicts": [dataclasses.asdict(one) for one in held]}
    return Report("edgekd gate", HEADERS, [one.row() for one in held], summary, record, cases, _limited(held))


def _named(cases: Sequence[Case], outcome: Outcome) -> list[str]:
    return [case.name for case in cases if case.outcome == outcome]


def _limited(held: Sequence[Verdict]) -> list[Figure]:
    """The figures that are better when smaller: everything with a greatest value."""
    kept = [one for one in held if one.metric.startswith("max_")]
    return [Figure(one.metric, one.unit, one.actual, "", f"limit {one.limit:g}") for one in kept]


def _case(verdict: Verdict, strict: bool, several: bool) -> Case:
    name, limit, actual, _, where = verdict.row()
    outcome: Outcome = "broken" if strict and verdict.outcome == "inconclusive" else verdict.outcome
    note = f"; {verdict.note}" if verdict.note else ""
    return Case(f"{name} of {where}" if several else name, outcome, f"{actual}, limit {limit}, from {where}{note}")


# ------------------------------------------------------------------------------------------------------------- bench


def of_measurement(record: dict[str, Any], *, strict: bool = False) -> Report:
    """The report of a measurement, with what changed since its baseline and where the time goes, if it tells."""
    import edgekd.bench as benching

    extra: list[tuple[Sequence[str], list[list[str]]]] = []
    if any(entry.get("placement") for entry in record["models"].values()):
        extra.append((("model", "provider", "nodes", "MACs", "partitions"), _placements(record)))
    if any(entry.get("operators") for entry in record["models"].values()):
        extra.append((benching.profile_headers(record), benching.profile_rows(record)))
    if compared := record.get("comparison"):
        extra.append((("model", "metric", "baseline", "now", "change [95 %]", "noise", "verdict"), _changes(compared)))
    cases = [*_measured_cases(record), *_changed_cases(record, strict), *_fallback_cases(record, strict)]
    summary = _summary(cases) if compared or strict else ""
    figures = _figures(record)
    return Report(
        "edgekd bench", benching.headers(record), benching.rows(record), summary, record, cases, figures, extra
    )


def _summary(cases: Sequence[Case]) -> str:
    broken, open_ones = _named(cases, "broken"), _named(cases, "inconclusive")
    told = [f"regressed, {', '.join(broken)}"] if broken else []
    told += [f"inconclusive, {', '.join(open_ones)}"] if open_ones else []
    return f"bench: {'; '.join(told) or 'no regression'}"


def _measured_cases(record: Mapping[str, Any]) -> list[Case]:
    reason = record["not_measured"]
    if reason:
        return [Case(label, "not measured", reason) for label in record["models"]]
    return [
        Case(label, "ok", f"p50 {units.write_time(entry['latency_ms']['p50'])}")
        for label, entry in record["models"].items()
    ]


_VERDICTS: dict[str, Outcome] = {"ok": "ok", "improved": "ok", "regressed": "broken", "inconclusive": "inconclusive"}


def _changed_cases(record: Mapping[str, Any], strict: bool) -> list[Case]:
    """Of times alone: what is exact is for `edgekd gate` to limit."""
    found = []
    for label, name, one in _timed(record.get("comparison")):
        outcome = _VERDICTS.get(one["verdict"], "not measured")
        if strict and outcome == "inconclusive":
            outcome = "broken"
        found.append(Case(f"{label} {name}", outcome, f"{_moved(one)}; noise {units.write_share(one['floor'])}"))
    return found


DECISIVE = "p50"
"""Tails and load times vary several times as much on a shared machine: they are shown, and decide nothing here."""


def _timed(compared: Mapping[str, Any] | None) -> list[tuple[str, str, dict[str, Any]]]:
    models = compared["models"] if compared else {}
    return [(label, name, one) for label, found in models.items() for name, one in found.items() if name == DECISIVE]


def _fallback_cases(record: Mapping[str, Any], strict: bool) -> list[Case]:
    shares = {label: entry.get("fallback") for label, entry in record["models"].items()}
    wanted = record["target"]["runtime"]["provider"]
    return [
        Case(
            f"{label} fallback",
            "broken" if strict else "ok",
            f"{units.write_share(share)} of nodes are not on {wanted}",
        )
        for label, share in shares.items()
        if share
    ]


def _placements(record: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for label, entry in record["models"].items():
        for provider, told in (entry.get("placement") or {"providers": {}})["providers"].items():
            macs = units.write_share(told["macs"]) if told["macs"] is not None else "-"
            rows.append([label, provider, units.write_share(told["nodes"]), macs, str(told["partitions"] or "-")])
    return rows


_WRITERS = {"size": units.write_size, "gzip_size": units.write_size, "p50": units.write_time, "p90": units.write_time}
_WRITERS |= {"load": units.write_time}


def _changes(compared: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for label, found in compared["models"].items():
        for name, one in found.items():
            write = _WRITERS.get(name, units.write_count)
            sides = [write(one[key]) if one[key] is not None else "-" for key in ("baseline", "now")]
            noise = units.write_share(one["floor"]) if "floor" in one else "exact"
            rows.append([label, name, *sides, _moved(one), noise, one.get("verdict", "") if name == DECISIVE else ""])
    return rows


def _moved(one: Mapping[str, Any]) -> str:
    if one["ratio"] is None:
        return "-"
    ends = one.get("interval")
    interval = f" [{units.write_change(ends[0] - 1)}, {units.write_change(ends[1] - 1)}]" if ends else ""
    return f"{units.write_change(one['ratio'] - 1)}{interval}"


def _figures(record: Mapping[str, Any]) -> list[Figure]:
    host = f"{record['environment']['cpu']}, onnxruntime {record['environment']['onnxruntime']}"
    found = []
    for label, entry in record["models"].items():
        found.append(Figure(f"{label} size", "B", entry["bytes"]))
        if latency := entry["latency_ms"]:
            ends = latency["p50_interval"]
            half = f"± {(ends[1] - ends[0]) / 2:.4g}" if ends else ""
            found.append(Figure(f"{label} p50", "ms", latency["p50"], half, host))
            found.append(Figure(f"{label} load", "ms", entry["load_ms"], "", host))
            if memory := entry["memory_bytes"]:
                found.append(Figure(f"{label} peak memory", "B", memory["peak"], "", host))
    return found
