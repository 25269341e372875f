"""Where it all comes from: budgets it was held against, teachers, settings, versions, files, and what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekd import onnx_file, units
from edgekd.report.facts import Facts, Missing, deep, number, part, shown_name
from edgekd.tags import Cells, Child, Node, code, folded, named, table, tag

Verdicts = Sequence[Sequence[str]]
"""Rows of `edgekd.gate.Verdict.row`: metric, limit, actual, verdict, where from."""


def budget(facts: Facts, verdicts: Verdicts | None) -> list[Node]:
    """Limits and what was found, as `edgekd gate` has them."""
    if verdicts is None:
        command = code(facts.command("report", "--budget budget.toml"))
        return [tag("p", "It was held against no budget; ", command, " shows one.")]
    rows: list[Cells] = []
    for metric, limit, actual, verdict, _ in verdicts:
        kind = {"ok": "good", "BROKEN": "bad"}.get(verdict, "open")
        rows.append([metric, limit, actual, tag("b", verdict, class_=kind)])
    broken = sum(row[3] == "BROKEN" for row in verdicts)
    undecided = sum(row[3] not in ("ok", "BROKEN") for row in verdicts)
    told = (
        f"{broken} of {len(verdicts)} limits are broken." if broken else f"{len(verdicts) - undecided} limits are held."
    )
    told += f" {undecided} cannot be decided by what was measured." if undecided else ""
    return [tag("p", told), table(["limit", "allowed", "actual", "verdict"], rows, caption="Budget")]


def provenance(facts: Facts) -> list[Node]:
    """Teachers, student, method and its settings, machine, and digests of the files."""
    record = facts.record
    teachers = [record["teacher"], *(one for one in record.get("more_teachers") or [] if isinstance(one, Mapping))]
    rows: list[Cells] = []
    for number_, teacher in enumerate(teachers):
        title = "teacher" if len(teachers) == 1 else f"teacher {number_ + 1}"
        rows.append([title, [named(shown_name(str(teacher.get("path", "?")))), *_digest(teacher.get("sha256"))]])
    rows += [[name, value] for name, value in _told(facts)]
    for path in (facts.run.student_onnx, facts.run.student_int8_onnx, facts.run.generator_onnx):
        if path.is_file():
            rows.append([path.name, [units.write_size(path.stat().st_size), *_digest(onnx_file.sha256(path))]])
    settings = part(record, "settings")
    flat: list[Cells] = [[name, _value(value)] for name, value in _flat(settings)]
    inner = table(["setting", "value"], flat, caption="Every setting, as run.json has it")
    return [
        table(["what", "which"], rows, caption="What it was made from", class_="facts"),
        folded("Every setting", inner),
    ]


def _digest(value: object) -> list[Child]:
    return [tag("small", f"sha256 {value}", class_="digest")] if value else []


def _told(facts: Facts) -> list[tuple[str, str]]:
    record = facts.record
    size = record["teacher"]
    student = f"{record['student']['name']}, width {record['student']['width']:g}"
    if count := number(record, "student", "parameters"):
        student += f", {count:,.0f} parameters"
    if count := number(record, "student", "headers", "count"):
        student += f", {count:,.0f} {deep(record, 'student', 'headers', 'kind')} headers"
    host, versions = part(record, "host"), part(record, "versions")
    return [
        (
            "images",
            f"{size['channels']} × {size['height']} × {size['width']}, {size['classes']:,} classes, task {facts.task}",
        ),
        ("access", str(size.get("access", "?"))),
        ("method", str(deep(record, "settings", "method") or "?")),
        ("student", student),
        ("seed", str(record["settings"]["seed"])),
        ("started", str(record["started"])),
        ("finished", str(record.get("finished") or "not finished")),
        ("machine", ", ".join(f"{key} {value}" for key, value in host.items()) or "?"),
        ("edgekd", str(deep(record, "tool", "version") or "?")),
        ("versions", ", ".join(f"{key} {value}" for key, value in versions.items()) or "?"),
    ]


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in settings.items():
        found += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return found


def _value(value: object) -> str:
    if isinstance(value, str) and Path(value).is_absolute():  # where samples lie is nobody's business
        return shown_name(value)
    return "–" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def missing(found: Sequence[Missing]) -> Node:
    """What the run does not hold, and the command that makes it."""
    items = []
    for one in found:
        then: list[Child] = ["; run: ", code(one.command)] if one.command else []
        items.append(tag("li", tag("b", one.what), f": {one.why}", *then))
    return tag("ul", items)
