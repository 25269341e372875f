"""Charts show the numbers they are given, on the scale they tell."""

from __future__ import annotations

import pytest

from edgekd.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Series, bar, lines, thinned, whisker
from edgekd.tags import Node


def points(chart: Node) -> list[tuple[float, float]]:
    (line,) = chart.iter("polyline")
    return [tuple(map(float, pair.split(","))) for pair in line.get("points", "").split()]


def drawn(xs: list[float], ys: list[float]) -> Node:
    return lines("a line", [Series("a", xs, ys)], x_write=str, y_write=str)


def test_a_line_fills_the_frame_from_corner_to_corner() -> None:
    chart = drawn([0.0, 5.0, 10.0], [1.0, 3.0, 2.0])
    assert points(chart) == [
        (LEFT, HEIGHT - BOTTOM),
        ((LEFT + WIDTH - RIGHT) / 2, TOP),
        (WIDTH - RIGHT, pytest.approx(68)),
    ]
    assert [text.text for text in chart.iter("text")] == ["1.0", "2.0", "3.0", "0.0", "10.0"]
    assert (chart.get("role"), chart.get("aria-label")) == ("img", "a line")


@pytest.mark.parametrize("ys", [[2.0], [2.0, 2.0], [0.0, 0.0]])
def test_a_level_line_is_in_the_middle(ys: list[float]) -> None:
    heights = [y for _, y in points(drawn([float(k) for k in range(len(ys))], ys))]
    assert heights == [pytest.approx(TOP + (HEIGHT - TOP - BOTTOM) / 2)] * len(ys)


def test_long_lines_are_thinned_to_means() -> None:
    long = Series("a", [float(k) for k in range(1000)], [1.0, 3.0] * 500)
    thin = thinned(long, 100)
    assert len(thin.xs) == 100
    assert set(thin.ys) == {2.0}
    assert sum(thin.xs) / 100 == sum(long.xs) / 1000
    assert thinned(long, 1000) is long


def test_bars_and_whiskers_are_in_proportion() -> None:
    assert [rect.get("width") for rect in bar(1.0, 4.0)] == ["100", "25"]
    assert [rect.get("width") for rect in bar(9.0, 4.0)] == ["100", "100"]
    assert [rect.get("width") for rect in bar(1.0, 0.0)] == ["100", "0"]
    _, tail, block, middle = whisker(1.0, 2.0, 3.0, 8.0, 10.0)
    assert (block.get("x"), block.get("width")) == ("10", "20")
    assert (tail.get("x"), tail.get("width")) == ("20", "60")
    assert middle.get("x") == "19.6"
