"""Where the time of an inference goes, operator by operator, from ONNX Runtime's profiler."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    return sorted(found, key=lambda one: (-float(str(one["us"])), str(one["operator"])))


# ------------------------------------------------------------------------------------------------------- side by side


@dataclass(frozen=True)
class Spent:
    """What one model spends on one kind of operator: µs of an inference, the share of all, and the nodes it takes."""

    us: float
    share: float
    nodes: int
    slowest: Sequence[Row] = ()


@dataclass(frozen=True)
class Kind:
    """One kind of operator: its names in all models, and what each model spends on it, None where it has none."""

    name: str
    models: Mapping[str, Spent | None]

    @property
    def worst(self) -> float:
        """The longest that any model spends on it, in µs."""
        return max(one.us for one in self.models.values() if one is not None)


_FORM = re.compile(r"^(?:QLinear|DynamicQuantize(?!Linear)|NhwcFused|Nhwc|Fused|Q(?=[A-Z]))|(?<=.)Integer$")
"""How ONNX Runtime calls an operator that it took into another form: of INT8, of another layout, of two in one."""


def side_by_side(record: Mapping[str, Any]) -> list[Kind]:
    """What every profiled model spends on each kind of operator, the slowest kind of any model first.

    Operators that compute the same in another form are of one kind: QLinearConv of an INT8 model is told beside the
    Conv of the float one.
    """
    profiles = {label: entry["operators"] for label, entry in record["models"].items() if entry.get("operators")}
    names: dict[str, dict[str, None]] = {}
    for one in (one for operators in profiles.values() for one in operators):
        names.setdefault(_FORM.sub("", one["operator"]) or one["operator"], {})[one["operator"]] = None
    spent = {
        label: {o["operator"]: Spent(o["us"], o["share"], o["nodes"], o["slowest"]) for o in operators}
        for label, operators in profiles.items()
    }
    kinds = [
        Kind(" / ".join(forms), {label: together([own[o] for o in forms if o in own]) for label, own in spent.items()})
        for forms in names.values()
    ]
    return sorted(kinds, key=lambda kind: (-kind.worst, kind.name))


def together(parts: Sequence[Spent]) -> Spent | None:
    """What several operators take together; None of none."""
    if not parts:
        return None
    slowest = sorted((node for one in parts for node in one.slowest), key=lambda node: -node["us"])
    return Spent(sum(o.us for o in parts), sum(o.share for o in parts), sum(o.nodes for o in parts), slowest)


BAR = 20
"""Characters of the longest bar."""


def profile_headers(record: Mapping[str, Any]) -> list[str]:
    """A pair of columns per model that was profiled."""
    kinds = side_by_side(record)
    return ["operator", *(head for label in kinds[0].models for head in (label, "share"))] if kinds else ["operator"]


def profile_rows(record: Mapping[str, Any]) -> list[list[str]]:
    """One row per kind of operator: time and share in every model, and a bar on the scale that all share."""
    kinds = side_by_side(record)
    most = max((kind.worst for kind in kinds), default=0.0) or 1.0
    return [[kind.name, *(cell for one in kind.models.values() for cell in _cells(one, most))] for kind in kinds]


def _cells(one: Spent | None, most: float) -> list[str]:
    if one is None:
        return ["-", ""]
    bar = "█" * round(BAR * one.us / most)
    return [f"{units.write_time(one.us / 1000)}, {count_nodes(one.nodes)}", f"{one.share:4.0%} {bar}".rstrip()]


def count_nodes(count: int) -> str:
    """`1 node`, `2 nodes`."""
    return f"{count} node{'' if count == 1 else 's'}"
