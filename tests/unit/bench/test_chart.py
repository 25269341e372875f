"""Where the time goes: kinds of operators beside each other, and bars that are as long as the numbers say."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.dom import minidom

import pytest

from edgekd.bench import chart, profile_headers, profile_rows
from edgekd.bench.chart import LETTERS, LONGEST, SHOWN
from edgekd.bench.operators import by_operator, side_by_side
from edgekd.bench.session import Session
from edgekd.devices import load_target
from edgekd.run_folder import RunFolder

HOSTILE = '</title><script>alert("1")</script>&amp; \x01 ]]>'


def nodes(**spent: float) -> list[dict[str, Any]]:
    """A profile: each operator's name, and the time of its one node in µs."""
    return [{"node": f"/{name}", "operator": name, "us": [us, us, 9 * us]} for name, us in spent.items()]


def record(**models: list[dict[str, Any]]) -> dict[str, Any]:
    entries = {label: {"operators": by_operator(found)} for label, found in models.items()}
    facts = {"cpu": "a CPU", "onnxruntime": "1.0"}
    return {"models": entries, "environment": facts, "target": {"name": "cpu"}, "simulated": False}


FLOAT = nodes(Conv=80, Relu=10, Softmax=10)
INT8 = nodes(QLinearConv=30, QuantizeLinear=6, Softmax=4)


def test_an_operator_of_int8_is_told_beside_its_float_form() -> None:
    both = record(student=FLOAT, int8=INT8)
    assert profile_headers(both) == ["operator", "student", "share", "int8", "share"]
    assert profile_rows(both) == [
        ["Conv / QLinearConv", "80.0 µs, 1 node", " 80% ████████████████████", "30.0 µs, 1 node", " 75% ████████"],
        ["Relu", "10.0 µs, 1 node", " 10% ██", "-", ""],
        ["Softmax", "10.0 µs, 1 node", " 10% ██", "4.00 µs, 1 node", " 10% █"],
        ["QuantizeLinear", "-", "", "6.00 µs, 1 node", " 15% ██"],
    ]


@pytest.mark.parametrize(
    ("form", "kind"),
    [
        ("QLinearConv", "Conv"),
        ("FusedConv", "Conv"),
        ("NhwcFusedConv", "Conv"),
        ("NhwcMaxPool", "MaxPool"),
        ("QGemm", "Gemm"),
        ("ConvInteger", "Conv"),
        ("MatMulInteger", "MatMul"),
        ("DynamicQuantizeMatMul", "MatMul"),
        ("QuantizeLinear", None),
        ("DynamicQuantizeLinear", None),
        ("Integer", None),
    ],
)
def test_forms_of_an_operator_are_of_one_kind(form: str, kind: str | None) -> None:
    told = side_by_side(record(a=nodes(**{kind or "Linear": 1}), b=nodes(**{form: 1})))
    assert len(told) == (1 if kind else 2)


def test_forms_within_one_model_are_added_up() -> None:
    (kind,) = side_by_side(record(m=nodes(Conv=30, FusedConv=10)))
    one = kind.models["m"]
    assert one is not None
    assert (kind.name, one.us, one.share, one.nodes) == ("Conv / FusedConv", 40, 1, 2)
    assert [node["node"] for node in one.slowest] == ["/Conv", "/FusedConv"]


def drawn(found: dict[str, Any]) -> minidom.Document:
    return minidom.parseString(chart(found).encode())


def texts(picture: minidom.Document, name: str) -> list[str]:
    return [
        "".join(c.data for c in e.childNodes if c.nodeType == c.TEXT_NODE) for e in picture.getElementsByTagName(name)
    ]


def bars(picture: minidom.Document) -> list[float]:
    return [
        float(e.getAttribute("width"))
        for g in picture.getElementsByTagName("g")
        for e in g.childNodes
        if e.tagName == "rect"
    ]


def test_bars_are_in_proportion_on_one_scale_and_told_in_words() -> None:
    picture = drawn(record(student=FLOAT, int8=INT8))
    assert bars(picture) == pytest.approx([LONGEST * us / 80 for us in (80, 30, 10, 10, 4, 6)], rel=1e-5)
    said = texts(picture, "text")
    assert {"80.0 µs, 80%, 1 node", "30.0 µs, 75%, 1 node", "student: 0.100 ms in all", "int8: 40.0 µs in all"} <= set(
        said
    )
    assert "Conv / QLinearConv: student 80%, int8 75%" in texts(picture, "desc")[0]
    assert "student: 80.0 µs, 80%, 1 node\n80.0 µs  /Conv" in texts(picture, "title")
    colours = {
        e.getAttribute("fill") for g in picture.getElementsByTagName("g") for e in g.getElementsByTagName("rect")
    }
    assert len(colours) == 2


def test_names_out_of_a_file_are_nobodys_markup() -> None:
    hostile = [{"node": HOSTILE, "operator": HOSTILE, "us": [5.0]}]
    picture = drawn(record(**{HOSTILE: hostile}))
    assert not picture.getElementsByTagName("script")
    shown = HOSTILE.replace("\x01", "\ufffd")
    assert any(shown in one for one in texts(picture, "title"))
    assert shown[: LETTERS - 1] + "…" in texts(picture, "text")


def test_it_loads_nothing() -> None:
    text = chart(record(student=FLOAT))
    assert text.count("http") == 1  # the name of SVG's own vocabulary
    assert not {"href", "<image", "<script", "@import", "url("} & {
        word for word in ("href", "<image", "<script", "@import", "url(") if word in text
    }


def test_what_takes_little_is_drawn_together() -> None:
    many = nodes(**{f"Op{k}": 100 - k for k in range(SHOWN + 3)})
    picture = drawn(record(m=many))
    rest = sum(100 - k for k in range(SHOWN - 1, SHOWN + 3))
    assert len(picture.getElementsByTagName("g")) == SHOWN
    assert texts(picture, "text")[-2:][0] == "4 others"
    assert bars(picture)[-1] == pytest.approx(LONGEST * rest / max(rest, 100), rel=1e-5)


def test_a_simulators_times_are_marked() -> None:
    assert "times are a simulator's" in chart(record(m=FLOAT) | {"simulated": True})


def test_it_lies_in_the_run_or_beside_where_one_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    device, found = load_target("cpu"), record(m=FLOAT)
    assert Session(RunFolder(tmp_path / "run"), device).draw(found) == tmp_path / "run" / "profile.svg"
    assert Session(Path("models/a.onnx"), device).draw(found) == Path("a.profile.svg")
    assert Path("a.profile.svg").read_text() == (tmp_path / "run" / "profile.svg").read_text() == chart(found)
    assert Session(Path("b.onnx"), device).draw({"models": {"b": {}}}) is None
