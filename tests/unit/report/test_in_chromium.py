"""What a browser makes of the report: it says nothing on the console, asks for nothing, and fits a phone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import PROGRAM, Browser, browser
from folders import begun, finished
from test_tags import HOSTILE

from edgekd.report import report
from edgekd.report.comparison import write_comparison

pytestmark = [pytest.mark.slow, pytest.mark.skipif(PROGRAM is None, reason="no Chromium here")]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as found:
        yield found


def _row(name: str, model: str, size: int, agreement: float, front: bool) -> dict[str, Any]:
    told = {"run": name, "model": model, "bytes": size, "parameters": size // 4, "p50_ms": 0.1, "agreement": agreement}
    ends = {"interval": [agreement - 0.02, agreement + 0.02], "broken": [] if front else ["max_size"]}
    return told | ends | {"estimate": None, "front": front}


def _swept(folder: Path) -> Path:
    """The page of a sweep, of names as bad as they come."""
    rows = [_row(HOSTILE + str(k), "student", 300_000 >> k, 0.9 - k / 20, k % 2 == 0) for k in range(4)]
    rows += [_row(HOSTILE + str(k), "student.int8", 90_000 >> k, 0.89 - k / 20, True) for k in range(4)]
    best = {"run": HOSTILE, "model": "student.int8"}
    record = {"teachers": [HOSTILE], "target": "cpu", "rows": rows, "cheapest": best, "not_measured": None}
    folder.mkdir()
    write_comparison(record, folder / "sweep.html")
    return folder / "sweep.html"


@pytest.fixture(params=["finished", "begun", "sweep"])
def page(request: pytest.FixtureRequest, tmp_path: Path, make_picker: Callable[..., Path]) -> str:
    if request.param == "sweep":
        return _swept(tmp_path / "swept").as_uri()
    teacher = make_picker("teacher.onnx")
    made = (
        finished(tmp_path / "run", teacher, make_picker())
        if request.param == "finished"
        else begun(tmp_path / "run", teacher)
    )
    report(made, names=[HOSTILE + "x" * 300] * 4)
    return (made.path / "report.html").as_uri()


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (1200, True), (380, False)])
def test_it_loads_nothing_logs_nothing_and_fits(chromium: Browser, page: str, width: int, dark: bool) -> None:
    chromium.look(page, width=width, dark=dark)
    assert chromium.said() == []
    assert chromium.requested() == [page]
    assert chromium.value("document.documentElement.scrollWidth <= innerWidth")
    assert chromium.value("document.querySelectorAll('script').length") == 0


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_its_ground(chromium: Browser, page: str, dark: bool) -> None:
    """WCAG 2.2, 1.4.3: a contrast of 4.5 at least, of every element that holds text."""
    chromium.look(page, dark=dark)
    assert chromium.value(_LEAST_CONTRAST) >= 4.5
    ground = chromium.value("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)")


def test_it_has_one_first_heading_names_for_pictures_and_links_that_lead_somewhere(
    chromium: Browser, page: str
) -> None:
    chromium.look(page)
    assert chromium.value("document.querySelectorAll('h1').length") == 1
    assert chromium.value("[...document.images].every(i => i.alt && i.complete && i.naturalWidth > 0)")
    assert chromium.value("[...document.querySelectorAll('svg')].every(s => s.ariaLabel || s.ariaHidden)")
    assert chromium.value("[...document.querySelectorAll('a')].every(a => document.querySelector(a.hash))")
    assert chromium.value("document.documentElement.lang") == "en"


_LEAST_CONTRAST = """
(() => {
  const parse = c => (c.match(/[\\d.]+/g) || []).map(Number);
  const light = c => [0, 1, 2].map(k => c[k] / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
  const ground = e => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  let least = 21;
  for (const e of document.body.querySelectorAll('*')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
    const style = getComputedStyle(e);
    const ink = light(parse(e instanceof SVGElement ? style.fill : style.color)), below = light(ground(e));
    least = Math.min(least, (Math.max(ink, below) + 0.05) / (Math.min(ink, below) + 0.05));
  }
  return least;
})()
"""
