"""The students of a sweep on one page: what each is, and which leave no reason to take another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekd import __version__, units
from edgekd.report.charts import Point, scatter
from edgekd.report.models import CAVEAT, KIND, TITLES
from edgekd.report.page import in_head
from edgekd.run_folder import atomic
from edgekd.tags import Cells, Child, Node, code, document, named, table, tag

Rows = Sequence[Mapping[str, Any]]


def write_comparison(record: Mapping[str, Any], path: Path) -> None:
    """Write a finished sweep as a page that loads nothing, as `edgekd report` writes a run.

    Args:
        record: of schema `edgekd.sweep/1`.
        path: the file.

    Raises:
        EdgekdError: it cannot be written.
    """
    title = f"{path.parent.absolute().name}: edgekd sweep"
    page = tag("html", tag("head", in_head(title)), tag("body", _body(record, path)), lang="en")
    with atomic(path) as file:
        file.write(document(page).encode())


def _body(record: Mapping[str, Any], path: Path) -> list[Node]:
    rows: Rows = sorted(record["rows"], key=lambda row: row["bytes"])
    teachers = tag(
        "p", "Teacher: ", named(", ".join(record["teachers"])), f"; target {record['target']}.", class_="quiet"
    )
    reason = record.get("not_measured")
    parts = [
        tag(
            "header",
            tag("h1", named(path.parent.absolute().name)),
            tag("p", _verdict(record), class_="verdict"),
            teachers,
        ),
        tag("p", f"Latency is not measured: {reason}.", class_="warning") if reason else None,
        tag("h2", "Size, latency and agreement", id="front"),
        tag("p", "Agreement with the teacher, on held-out generated images. ", CAVEAT),
        _chart(rows, "bytes", "Size", units.write_size),
        *([] if reason else [_chart(rows, "p50_ms", "Latency", units.write_time)]),
        tag("h2", "Students", id="students"),
        _table(rows),
    ]
    closing = f"Made by edgekd {__version__} from the sweep's record alone. This page loads nothing and sends nothing."
    return [tag("main", [part for part in parts if part is not None]), tag("footer", tag("p", closing))]


def _verdict(record: Mapping[str, Any]) -> list[Child]:
    best, rows = record["cheapest"], record["rows"]
    if best is not None:
        return ["The smallest that meets the budget: ", code(best["run"]), f", {TITLES[best['model']]}."]
    if any(row["broken"] is not None for row in rows):
        return ["No student meets the budget."]
    front = sum(row["front"] for row in rows)
    why = "nothing else is both smaller and closer to the teacher"
    return [f"{front} of {len(rows)} models leave no reason to take another: {why}."]


def leading(rows: Rows, cost: str) -> list[bool]:
    """Of each row whether no other leaves a reason to take it: as cheap, as close to the teacher, and not the same.

    Args:
        rows: of a sweep's record.
        cost: the key of what is to be small.
    """
    places = [(row[cost], -row["agreement"]) for row in rows]
    return [not any(other != own and other[0] <= own[0] and other[1] <= own[1] for other in places) for own in places]


def _chart(rows: Rows, cost: str, title: str, write: Callable[[float], str]) -> Node:
    first = leading(rows, cost)
    points = [
        Point(row["run"], row[cost], row["agreement"], KIND[row["model"]], ahead)
        for row, ahead in zip(rows, first, strict=True)
    ]
    label = f"{title} and agreement of {len(rows)} models; the table below tells the same"
    front = sorted((point for point in points if point.filled), key=lambda point: point.x)
    drawn = scatter(label, points, x_write=write, y_write=units.write_share, path=front)
    keys = [tag("span", TITLES[one], class_=f"key {KIND[one]}") for one in ("student", "student.int8")]
    told = [f"{title}. Filled: no other is better in both. ", *_spaced(keys)]
    return tag("figure", drawn, tag("figcaption", told))


def _spaced(nodes: Sequence[Node]) -> list[Child]:
    return [part for node in nodes for part in (node, " ")]


def _table(rows: Rows) -> Node:
    heads: list[Child] = ["student", "model", "size", "parameters", "p50", "agrees, generated images [95 %]"]
    estimated, held = any(row["estimate"] for row in rows), any(row["broken"] is not None for row in rows)
    heads += ["agrees, real images, estimated"] * estimated + ["budget"] * held
    body = [_cells(row, estimated, held) for row in rows]
    return table(heads, body, caption="Every model of the sweep, the smallest file first")


def _cells(row: Mapping[str, Any], estimated: bool, held: bool) -> Cells:
    p50 = "–" if row["p50_ms"] is None else units.write_time(row["p50_ms"])
    agreed = _interval(row["agreement"], row["interval"])
    told: Cells = [named(row["run"]), tag("span", TITLES[row["model"]], class_=f"key {KIND[row['model']]}")]
    told += [units.write_size(row["bytes"]), units.write_count(row["parameters"]), p50, agreed]
    if estimated:
        one = row["estimate"]
        level = units.write_level(one.get("promised", 0.9)) if one else ""  # sweeps of before it was told have 90 %
        told.append(f"{_interval(one['agreement'], one['interval'])} ({level})" if one else "–")
    if held:
        broken = row["broken"]
        told.append(tag("span", f"breaks {', '.join(broken)}" if broken else "met", class_="bad" if broken else "good"))
    return told


def _interval(share: float, ends: Sequence[float]) -> str:
    return f"{units.write_share(share)} [{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]"
