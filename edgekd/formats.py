"""A result in the formats that people and CI systems read: a table, JSON, Markdown, GitHub's commands, JUnit's XML.

They take any result that has a table, cases that pass or fail, and figures. Nothing here prints or measures.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from xml.etree import ElementTree as Xml

Outcome = Literal["ok", "broken", "inconclusive", "not measured"]
Format = Literal["table", "json", "markdown", "github", "junit", "benchmark-action"]
ANNOTATIONS = 10
"""GitHub shows so many errors of one step, and so many warnings."""
SUMMARY_BYTES = 2**20
"""GitHub's limit on what one step writes into its summary."""
_MARKS = {"ok": "✅", "broken": "⛔", "inconclusive": "❔", "not measured": "➖"}


@dataclass(frozen=True)
class Case:
    """One thing that was checked; `message` says what was found."""

    name: str
    outcome: Outcome
    message: str


@dataclass(frozen=True)
class Figure:
    """One number that is better when smaller, for tools that plot it over commits."""

    name: str
    unit: str
    value: float
    range: str = ""
    extra: str = ""


@dataclass(frozen=True)
class Report:
    """What a command found: a table, its cases and figures, one line that sums it up, and the whole record."""

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    summary: str
    record: dict[str, Any]
    cases: Sequence[Case] = ()
    figures: Sequence[Figure] = ()
    extra: Sequence[tuple[Sequence[str], Sequence[Sequence[str]]]] = field(default=())

    def tables(self) -> list[tuple[Sequence[str], Sequence[Sequence[str]]]]:
        """Headers and rows of every table."""
        return [(self.headers, self.rows), *self.extra]


def as_table(report: Report) -> str:
    """For a terminal: columns without lines to draw."""
    return "\n\n".join([*(columns(*table) for table in report.tables()), *filter(None, [report.summary])])


def columns(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as people read them in a terminal, without lines to draw."""
    from tabulate import tabulate  # noqa: PLC0415 - `edgekd --help` draws no table

    return tabulate(rows, headers, tablefmt="simple" if headers else "plain", disable_numparse=True)


def as_json(report: Report) -> str:
    """The whole record."""
    return json.dumps(report.record, indent=2, ensure_ascii=False)


def as_markdown(report: Report) -> str:
    """GitHub-flavoured: a heading, the tables, the verdict."""
    parts = [f"### {_plain(report.title)}"]
    for headers, rows in report.tables():
        lines = [headers, ["---"] * len(headers), *rows]
        parts.append("\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines))
    worst = next((o for o in ("broken", "inconclusive") if any(c.outcome == o for c in report.cases)), "ok")
    if report.summary:
        parts.append(f"{_MARKS[worst]} {_plain(report.summary)}")
    return "\n\n".join(parts)


def _cell(text: str) -> str:
    return _plain(text).replace("|", "\\|") or " "


def _plain(text: str) -> str:
    """Names out of files are nobody's markup."""
    for sign in "\\`*_<>[]":
        text = text.replace(sign, f"\\{sign}" if sign not in "<>" else {"<": "&lt;", ">": "&gt;"}[sign])
    return " ".join(text.split())


def as_github(report: Report) -> str:
    """Workflow commands: an error per broken case, a warning per one that nobody can decide, and the table itself."""
    lines = []
    for command, outcome in (("error", "broken"), ("warning", "inconclusive"), ("notice", "not measured")):
        found = [case for case in report.cases if case.outcome == outcome]
        shown = found[:ANNOTATIONS]
        lines += [f"::{command} title={_property(f'{report.title}: {c.name}')}::{_data(c.message)}" for c in shown]
    return "\n".join([as_table(report), *lines])


def step_summary(report: Report) -> str:
    """What goes into $GITHUB_STEP_SUMMARY."""
    text = as_markdown(report) + "\n\n"
    return text if len(text.encode()) <= SUMMARY_BYTES else f"### {report.title}\n\n{report.summary}\n\n"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def as_junit(report: Report) -> str:
    """JUnit's XML, as Jenkins and GitLab read it: a test case per case; what could not be decided is skipped."""
    counts = {outcome: sum(case.outcome == outcome for case in report.cases) for outcome in _MARKS}
    skipped = counts["inconclusive"] + counts["not measured"]
    told = {"tests": len(report.cases), "failures": counts["broken"], "errors": 0, "skipped": skipped}
    numbers = {key: str(value) for key, value in told.items()}
    root = Xml.Element("testsuites", numbers)
    suite = Xml.SubElement(root, "testsuite", {"name": _valid(report.title), **numbers, "time": "0"})
    for case in report.cases:
        own = {"name": _valid(case.name), "classname": _valid(report.title), "time": "0"}
        node = Xml.SubElement(suite, "testcase", own)
        if case.outcome == "broken":
            Xml.SubElement(node, "failure", {"message": _valid(case.message), "type": "broken"}).text = _valid(
                case.message
            )
        elif case.outcome != "ok":
            Xml.SubElement(node, "skipped", {"message": _valid(f"{case.outcome}: {case.message}")})
        else:
            Xml.SubElement(node, "system-out").text = _valid(case.message)
    Xml.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + Xml.tostring(root, encoding="unicode")


def _valid(text: str) -> str:
    """Without the control characters that XML 1.0 has no way to write."""
    return "".join(sign for sign in text if sign in "\t\n\r" or ord(sign) >= 32)


def as_benchmark_action(report: Report) -> str:
    """`customSmallerIsBetter` of github-action-benchmark: a list of {name, unit, value, range, extra}."""
    rows = [
        {"name": f.name, "unit": f.unit, "value": f.value}
        | ({"range": f.range} if f.range else {})
        | ({"extra": f.extra} if f.extra else {})
        for f in report.figures
    ]
    return json.dumps(rows, indent=2, ensure_ascii=False)


FORMATS: dict[Format, Callable[[Report], str]] = {
    "table": as_table,
    "json": as_json,
    "markdown": as_markdown,
    "github": as_github,
    "junit": as_junit,
    "benchmark-action": as_benchmark_action,
}
