"""What CI reads: each format is read back by a parser that is not ours."""

from __future__ import annotations

import json

import pytest

from edgekd.formats import (
    ANNOTATIONS,
    Case,
    Figure,
    Report,
    as_benchmark_action,
    as_github,
    as_json,
    as_junit,
    as_markdown,
    as_table,
    step_summary,
)

HOSTILE = "a|b <img src=x> `code` *bold* [link](x) & \x01 50 %"


def report(*cases: Case) -> Report:
    figures = [Figure("m size", "B", 1200), Figure("m p50", "ms", 0.5, "± 0.01", "a CPU")]
    rows = [["max_size", "1 kB", HOSTILE], ["max_p50", "2 ms", "1 ms"]]
    extra = [(("operator", "share"), [["Conv", "93%"]])]
    return Report(
        "edgekd gate", ("metric", "limit", "actual"), rows, "gate: broken", {"ok": False}, cases, figures, extra
    )


CASES = (
    Case("max_size", "broken", f"1.2 kB, limit 1 kB\nfrom {HOSTILE}"),
    Case("max_p50", "ok", "1 ms, limit 2 ms"),
    Case("max_p50_increase", "inconclusive", "+3 %"),
    Case("m", "not measured", "no such device"),
)


def test_junit_is_read_by_another_parser() -> None:
    junitparser = pytest.importorskip("junitparser")
    (suite,) = junitparser.JUnitXml.fromstring(as_junit(report(*CASES)).encode())
    assert (suite.tests, suite.failures, suite.skipped, suite.errors) == (4, 1, 2, 0)
    cases = list(suite)
    assert [case.name for case in cases] == [case.name for case in CASES]
    assert [case.is_passed for case in cases] == [False, True, False, False]
    assert [case.is_skipped for case in cases] == [False, False, True, True]
    assert "1.2 kB" in cases[0].result[0].message
    assert "<img src=x>" in cases[0].result[0].message
    assert "no such device" in cases[3].result[0].message


def test_junit_without_cases() -> None:
    junitparser = pytest.importorskip("junitparser")
    assert junitparser.JUnitXml.fromstring(as_junit(report()).encode()).tests == 0


def test_markdown_is_read_by_another_parser() -> None:
    markdown_it = pytest.importorskip("markdown_it")
    tokens = markdown_it.MarkdownIt("gfm-like", {"linkify": False}).parse(as_markdown(report(*CASES)))
    rows, inline = sum(t.type == "tr_open" for t in tokens), [t for t in tokens if t.type == "inline"]
    assert rows == 5
    cells = [t.content for t in inline]
    assert cells[:4] == ["edgekd gate", "metric", "limit", "actual"]
    children = [child.type for token in inline for child in token.children or []]
    assert not {"image", "link_open", "code_inline", "em_open", "strong_open", "html_inline"} & set(children)
    assert inline[-1].children[0].content.startswith("⛔ gate: broken")
    text = "".join(child.content for token in inline if "img" in token.content for child in token.children)
    assert "<img src=x> `code` *bold* [link](x) &" in text


def unescaped(text: str) -> str:
    """As the runner reads it: https://github.com/actions/toolkit, command.ts, backwards."""
    for code, sign in (("%3A", ":"), ("%2C", ","), ("%0D", "\r"), ("%0A", "\n"), ("%25", "%")):
        text = text.replace(code, sign)
    return text


def test_annotations_say_what_they_should_and_nothing_else() -> None:
    lines = [line for line in as_github(report(*CASES)).splitlines() if line.startswith("::")]
    assert [line.split(" ")[0] for line in lines] == ["::error", "::warning", "::notice"]
    head, _, message = lines[0].removeprefix("::error title=").partition("::")
    assert unescaped(head) == "edgekd gate: max_size"
    assert unescaped(message) == CASES[0].message


def test_no_more_annotations_than_github_shows() -> None:
    lines = as_github(report(*[Case(f"c{k}", "broken", "x") for k in range(30)])).splitlines()
    assert sum(line.startswith("::error") for line in lines) == ANNOTATIONS


def test_a_summary_that_is_too_long_is_cut_to_its_verdict() -> None:
    long = Report("t", ("a",), [["x" * 2**20]], "verdict", {})
    assert len(step_summary(long)) < 100
    assert "verdict" in step_summary(long)
    assert "| metric |" in step_summary(report())


def test_smaller_is_better() -> None:
    # https://github.com/benchmark-action/github-action-benchmark: an array of objects, name, unit and value required
    jsonschema = pytest.importorskip("jsonschema")
    text = {"type": "string"}
    entry = {
        "type": "object",
        "required": ["name", "unit", "value"],
        "properties": {"name": text, "unit": text, "value": {"type": "number"}, "range": text, "extra": text},
        "additionalProperties": False,
    }
    jsonschema.validate(json.loads(as_benchmark_action(report())), {"type": "array", "items": entry, "minItems": 2})


def test_json_is_the_record_and_a_table_has_every_cell() -> None:
    assert json.loads(as_json(report())) == {"ok": False}
    shown = as_table(report())
    assert all(word in shown for word in ("metric", "max_p50", "2 ms", "gate: broken", "Conv"))
