"""Where the time goes as a picture: a bar per model for each kind of operator, float beside INT8, as one SVG file.

It loads nothing, follows the reader's dark or light, and tells the slowest nodes of a bar where the mouse rests on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as Xml

from edgekd import units
from edgekd.bench.operators import Kind, Spent, count_nodes, side_by_side, together
from edgekd.tags import Node, tag

WIDTH, LEFT, LONGEST = 860, 230, 420
"""Of the picture, of the column of names, and of the longest bar, in pixels."""
TOP, BAR, GAP, EDGE = 92, 14, 12, 16
SHOWN, NAMED, LETTERS = 16, 8, 29
"""Kinds of operators that have bars of their own, slowest nodes that a bar names, letters of a name that are shown."""

_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9")
"""Of models, in turn; told apart by colour-blind readers too (Okabe and Ito 2008)."""
_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #222 } .title { font-size: 16px; font-weight: 600 }
.quiet { fill: #666 } .page { fill: #fff }
@media (prefers-color-scheme: dark) { text { fill: #eee } .quiet { fill: #aaa } .page { fill: #16181d } }
"""


def chart(record: Mapping[str, Any]) -> str:
    """The picture, of a record with profiles of one model or more.

    Args:
        record: of schema `edgekd.bench/1`, measured with the task "profile".
    """
    kinds = _limited(side_by_side(record))
    labels = list(kinds[0].models)
    most = max(kind.worst for kind in kinds) or 1.0
    step = BAR * len(labels) + GAP
    height = TOP + step * len(kinds) + EDGE
    root = tag(
        "svg",
        tag("title", "Where the time of one inference goes"),
        tag("desc", _aloud(kinds)),
        tag("style", _STYLE),
        tag("rect", width=WIDTH, height=height, class_="page"),
        tag("text", "Where the time of one inference goes", x=EDGE, y=EDGE + 12, class_="title"),
        tag("text", _origin(record), x=EDGE, y=EDGE + 32, class_="quiet"),
        _legend(record, labels),
        [part for k, kind in enumerate(kinds) for part in _of_kind(kind, TOP + step * k, most)],
        **{"xmlns": "http://www.w3.org/2000/svg", "viewBox": f"0 0 {WIDTH} {height}", "role": "img"},
        width=WIDTH,
        height=height,
    )
    return Xml.tostring(root, encoding="unicode", xml_declaration=False) + "\n"


def _limited(kinds: Sequence[Kind]) -> list[Kind]:
    """The slowest kinds, and all others as one."""
    if len(kinds) <= SHOWN:
        return list(kinds)
    rest = kinds[SHOWN - 1 :]
    others = {label: together([one for kind in rest if (one := kind.models[label])]) for label in rest[0].models}
    return [*kinds[: SHOWN - 1], Kind(f"{len(rest)} others", others)]


def _origin(record: Mapping[str, Any]) -> str:
    """Which machine said so, and how it is to be read."""
    facts, target = record["environment"], record["target"]["name"]
    marked = "times are a simulator's" if record.get("simulated") else "profiling adds about 1 µs a node"
    return f"Target {target} on {facts['cpu']}, onnxruntime {facts['onnxruntime']}; {marked}"


def _legend(record: Mapping[str, Any], labels: Sequence[str]) -> list[Node]:
    """A colour per model, with the time of all its operators."""
    found, place = [], float(EDGE)
    for label, colour in zip(labels, _turns(len(labels)), strict=True):
        total = sum(one["us"] for one in record["models"][label]["operators"])
        told = f"{_short(label)}: {units.write_time(total / 1000)} in all"
        found += [tag("rect", x=place, y=TOP - 32, width=12, height=12, fill=colour)]
        found += [tag("text", told, x=place + 18, y=TOP - 22)]
        place += 40 + 7 * len(told)
    return found


def _of_kind(kind: Kind, top: float, most: float) -> list[Node]:
    """The name, and a bar for each model."""
    middle = top + BAR * len(kind.models) / 2 + 4
    name = tag("text", tag("title", kind.name), _short(kind.name), x=LEFT - 10, y=middle, text_anchor="end")
    bars = [
        _bar(label, one, top + BAR * k, most, colour)
        for k, ((label, one), colour) in enumerate(zip(kind.models.items(), _turns(len(kind.models)), strict=True))
        if one is not None
    ]
    return [name, *bars]


def _bar(label: str, one: Spent, top: float, most: float, colour: str) -> Node:
    long = max(LONGEST * one.us / most, 0.5)
    told = f"{units.write_time(one.us / 1000)}, {one.share:.0%}, {count_nodes(one.nodes)}"
    nodes = [f"{units.write_time(node['us'] / 1000)}  {node['node']}" for node in one.slowest[:NAMED]]
    rest = len(one.slowest) - NAMED
    lines = [f"{label}: {told}", *nodes, *([f"and {rest} more"] if rest > 0 else [])]
    return tag(
        "g",
        tag("title", "\n".join(lines)),
        tag("rect", x=LEFT, y=top, width=long, height=BAR - 2, fill=colour),
        tag("text", told, x=LEFT + long + 6, y=top + BAR - 4),
    )


def _turns(count: int) -> list[str]:
    return [_COLOURS[k % len(_COLOURS)] for k in range(count)]


def _short(name: str) -> str:
    return name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}…"


def _aloud(kinds: Sequence[Kind]) -> str:
    """What the bars say, for those who do not see them."""
    told = []
    for kind in kinds:
        shares = [f"{label} {one.share:.0%}" for label, one in kind.models.items() if one is not None]
        told.append(f"{kind.name}: {', '.join(shares)}")
    return "; ".join(told)
