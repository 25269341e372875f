"""Where the time of an inference goes, operator by operator, from ONNX Runtime's profiler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from edgekd import units

Row = Mapping[str, Any]


def by_operator(nodes: Sequence[Row]) -> list[dict[str, Any]]:
    """The time of one inference per operator, the slowest first.

    The profiler itself costs about a microsecond a node, so the sum is above the measured median: read the shares.

    Args:
        nodes: from the child's `profile`: node, operator, provider, and one duration in µs per run.

    Returns:
        Per operator: `nodes`, `us` (sum over its nodes of each one's median), `share` of all, and `slowest`, its nodes
        from the slowest on as {node, us}.
    """
    spent = [(row["operator"], row["node"], float(median(row["us"]))) for row in nodes if row["us"]]
    total = sum(time for _, _, time in spent) or 1.0
    found = []
    for operator in {name for name, _, _ in spent}:
        own = sorted(((time, node) for name, node, time in spent if name == operator), reverse=True)
        time = sum(one for one, _ in own)
        slowest = [{"node": node, "us": one} for one, node in own]
        found.append({"operator": operator, "nodes": len(own), "us": time, "share": time / total, "slowest": slowest})
    return sorted(found, key=lambda one: -float(str(one["us"])))


BAR = 20
"""Characters of the longest bar."""


def profile_headers(record: Mapping[str, Any]) -> list[str]:
    """A pair of columns per model that was profiled."""
    return ["operator", *(head for label in _profiled(record) for head in (label, "share"))]


def profile_rows(record: Mapping[str, Any]) -> list[list[str]]:
    """One row per operator of any model, the slowest of all first: time and share in every model, and a bar."""
    models = {label: {one["operator"]: one for one in entry} for label, entry in _profiled(record).items()}
    worst = {name: max(m[name]["us"] for m in models.values() if name in m) for m in models.values() for name in m}
    most = max(worst.values(), default=1.0) or 1.0
    rows = []
    for name in sorted(worst, key=lambda one: -worst[one]):
        row = [name]
        for found in models.values():
            row += _cells(found.get(name), most)
        rows.append(row)
    return rows


def _cells(one: Row | None, most: float) -> list[str]:
    if one is None:
        return ["-", ""]
    bar = "█" * round(BAR * one["us"] / most)
    return [f"{units.write_time(one['us'] / 1000)}, {one['nodes']} nodes", f"{one['share']:4.0%} {bar}".rstrip()]


def _profiled(record: Mapping[str, Any]) -> dict[str, Sequence[Row]]:
    return {label: entry["operators"] for label, entry in record["models"].items() if entry.get("operators")}
