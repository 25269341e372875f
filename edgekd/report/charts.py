"""Static charts as SVG, in the colours of the page: lines over time, points in a plane, bars, and whiskers.

They are small on purpose: what a chart needs here is a scale, a line and words for those who do not see it. Colours
are classes of the page's style, so that one chart serves light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from edgekd.tags import Node, tag

WIDTH, HEIGHT = 340, 150
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 8, 22
POINTS = 160
WIDE, TALL, EDGE = 620, 300, 64
Write = Callable[[float], str]


@dataclass(frozen=True)
class Series:
    """A line: its name, and where it passes; `kind` is its colour in the page's style."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    kind: str = "one"


def lines(label: str, series: Sequence[Series], *, x_write: Write, y_write: Write) -> Node:
    """Lines over a common x, with the ends of both axes told; the label is what is read aloud.

    Args:
        label: the chart in words.
        series: of one point at least.
        x_write, y_write: how values are told at the axes.
    """
    thin = [thinned(one) for one in series]
    xs, ys = [x for one in thin for x in one.xs], [y for one in thin for y in one.ys]
    low, high = _padded(min(ys), max(ys))
    first, last = min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1
    wide, tall = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def across(x: float) -> float:
        return LEFT + wide * (x - first) / (last - first)

    def down(y: float) -> float:
        return TOP + tall * (high - y) / (high - low)

    grid = [
        tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=down(y), y2=down(y), class_="rule")
        for y in (low, (low + high) / 2, high)
    ]
    told = [
        tag("text", y_write(y), x=LEFT - 5, y=down(y) + 4, text_anchor="end") for y in (low, (low + high) / 2, high)
    ]
    told += [tag("text", x_write(first), x=LEFT, y=HEIGHT - 6)]
    told += [tag("text", x_write(last), x=WIDTH - RIGHT, y=HEIGHT - 6, text_anchor="end")]
    drawn = [
        tag(
            "polyline",
            points=" ".join(f"{across(x):.1f},{down(y):.1f}" for x, y in zip(one.xs, one.ys, strict=True)),
            class_=f"line {one.kind}",
        )
        for one in thin
    ]
    ends = [tag("circle", cx=across(one.xs[-1]), cy=down(one.ys[-1]), r=2.5, class_=f"fill {one.kind}") for one in thin]
    return tag(
        "svg", grid, drawn, ends, told, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=label, class_="chart"
    )


@dataclass(frozen=True)
class Point:
    """A place in a plane, what it is called, and how it is drawn: `kind` is its colour, `filled` sets it apart."""

    name: str
    x: float
    y: float
    kind: str = "one"
    filled: bool = True


def scatter(label: str, points: Sequence[Point], *, x_write: Write, y_write: Write, path: Sequence[Point] = ()) -> Node:
    """Points in a plane, each called what it is, with the ends of both axes told; x is drawn by its logarithm.

    Args:
        label: the chart in words.
        points: one at least, x above 0.
        x_write, y_write: how values are told at the axes.
        path: points that are joined by steps, from the left to the right.
    """
    first, last = _padded(math.log(min(p.x for p in points)), math.log(max(p.x for p in points)))
    low, high = _padded(min(p.y for p in points), max(p.y for p in points))
    wide, tall = WIDE - EDGE - 90, TALL - 2 * TOP - BOTTOM

    def at(point: Point) -> tuple[float, float]:
        across = EDGE + 10 + wide * (math.log(point.x) - first) / (last - first)
        return across, 2 * TOP + tall * (high - point.y) / (high - low)

    steps = [at(p) for p in path]
    corners = [corner for (x, y), (onward, _) in pairwise(steps) for corner in ((x, y), (onward, y))] + steps[-1:]
    drawn: list[Node] = [
        tag("line", x1=EDGE, x2=WIDE - RIGHT, y1=TALL - BOTTOM, y2=TALL - BOTTOM, class_="rule"),
        tag("line", x1=EDGE, x2=EDGE, y1=TOP, y2=TALL - BOTTOM, class_="rule"),
        tag("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in corners), class_="line three"),
    ]
    for point in points:
        x, y = at(point)
        drawn.append(tag("circle", cx=x, cy=y, r=4, class_=f"{'fill' if point.filled else 'ring'} {point.kind}"))
        drawn.append(tag("text", point.name, x=x + 3, y=y - 8))
    drawn += [
        tag("text", y_write(y), x=EDGE - 5, y=2 * TOP + tall * (high - y) / (high - low) + 4, text_anchor="end")
        for y in {low, high}
    ]
    drawn += [
        tag(
            "text",
            x_write(math.exp(x)),
            x=EDGE + 10 + wide * (x - first) / (last - first),
            y=TALL - 6,
            text_anchor="middle",
        )
        for x in {first, last}
    ]
    return tag("svg", drawn, viewBox=f"0 0 {WIDE} {TALL}", role="img", aria_label=label, class_="chart")


def _padded(low: float, high: float) -> tuple[float, float]:
    if high > low:
        return low, high
    room = abs(low) / 10 or 1.0
    return low - room, high + room


def thinned(series: Series, most: int = POINTS) -> Series:
    """A line of at most so many points: means of neighbours, so that no swing is made up or left out by chance."""
    count = len(series.xs)
    if count <= most:
        return series
    ends = [round(k * count / most) for k in range(most + 1)]
    spans = list(pairwise(ends))
    xs, ys = ([sum(part[a:b]) / (b - a) for a, b in spans] for part in (series.xs, series.ys))
    return Series(series.name, xs, ys, series.kind)


def bar(value: float, most: float, kind: str = "one") -> Node:
    """A bar as long as a value is of the largest; the value itself is told beside it, so nobody needs to see it."""
    share = 0.0 if most <= 0 else min(max(value / most, 0.0), 1.0)
    filled = tag("rect", width=100 * share, height=10, class_=f"fill {kind}")
    return _strip([tag("rect", width=100, height=10, class_="bed"), filled])


def whisker(low: float, middle: float, high: float, tail: float, most: float, kind: str = "one") -> Node:
    """An interval with its middle, and a thin line on to a tail, on a scale from 0 to `most`; told beside it too."""
    at = [100 * min(max(value / most, 0.0), 1.0) if most > 0 else 0.0 for value in (low, middle, high, tail)]
    marks = [
        tag("rect", width=100, height=10, class_="bed"),
        tag("rect", x=at[1], y=4.4, width=max(at[3] - at[1], 0.0), height=1.2, class_=f"fill {kind}"),
        tag("rect", x=at[0], y=2, width=max(at[2] - at[0], 0.4), height=6, class_=f"fill faint {kind}"),
        tag("rect", x=max(at[1] - 0.4, 0.0), width=0.8, height=10, class_=f"fill {kind}"),
    ]
    return _strip(marks)


def _strip(marks: Sequence[Node]) -> Node:
    return tag("svg", marks, viewBox="0 0 100 10", preserveAspectRatio="none", aria_hidden="true", class_="bar")
