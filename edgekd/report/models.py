"""The verdict, and the models side by side: sizes, times, fidelity, and what they are of the teacher's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from edgekd import units
from edgekd.report.charts import bar, whisker
from edgekd.report.facts import Facts, Row, deep, number
from edgekd.tags import Cells, Child, Node, code, named, table, tag
from edgekd.tasks import KINDS

TITLES = {"teacher": "Teacher", "student": "Student", "student.int8": "INT8 student"}
KIND = {"teacher": "three", "student": "one", "student.int8": "two"}
CAVEAT = "Agreement on generated images is not accuracy on your data."
_SPEAKING = {
    "finished": "The run is finished.",
    "running": "The run is still going, or was killed.",
    "interrupted": "The run was interrupted before its end.",
    "failed": "The run failed.",
}


def verdict(facts: Facts) -> Node:
    """What came out, in two sentences and four figures: of the smallest model there is."""
    state = str(facts.record["state"])
    best = facts.rows[-1]
    sentence = tag("p", _sentence(facts, best), class_="verdict")
    cautions = [tag("p", text, class_="warning") for text in warnings(facts)]
    return tag("div", tag("p", _SPEAKING.get(state, f"State: {state}."), class_="state"), sentence, cautions)


def _sentence(facts: Facts, best: Row) -> list[Child]:
    if best.label == "teacher":
        return ["There is no exported student yet: ", code(facts.command("export", "--int8")), "."]
    teacher = facts.rows[0]
    told: list[Child] = [code(best.file), f" is {units.write_size(best.bytes or 0)}"]
    if best.bytes and teacher.bytes:
        told.append(f", {_percent(best.bytes / teacher.bytes)} of the teacher's {units.write_size(teacher.bytes)}")
    p50 = number(best.measured, "latency_ms", "p50")
    if p50 is not None:
        theirs = number(teacher.measured, "latency_ms", "p50")
        told.append(f", takes {units.write_time(p50)} an image")
        told.append(f" where the teacher takes {units.write_time(theirs)}" if theirs else "")
    accuracy, agreed = number(best.evaluated, "accuracy"), facts.agreement(best.label)
    if accuracy is not None:
        before = number(teacher.evaluated, "accuracy")
        told.append(f", is right on {units.write_share(accuracy)} of the labelled {KINDS[facts.task].counted}")
        told.append(f", the teacher on {units.write_share(before)}" if before is not None else "")
    if agreed is not None:
        told.append(f", and agrees with the teacher on {units.write_share(agreed[0])} of held-out generated ones")
    if (estimated := number(facts.probed(best), "estimate", "agreement")) is not None:
        told.append(f", by estimate on {units.write_share(estimated)} of real ones")
    return [*told, ". ", *([] if accuracy is not None else [CAVEAT])]


def warnings(facts: Facts) -> list[str]:
    """What a reader must not overlook."""
    found = []
    if collapses := number(facts.record, "progress", "collapses"):
        how = f"{collapses:.0f} times" if collapses > 1 else "once"
        found.append(f"The generator collapsed {how} in this run: expect a weaker student.")
    if deep(facts.record, "stopped"):
        found.append(f"Stopped: {facts.record['stopped']}.")
    told = facts.export.get("warnings")
    found += [f"From export: {one}." for one in told if isinstance(one, str)] if isinstance(told, list) else []
    if facts.bench.get("simulated") is True:
        found.append("Times are a simulator's, and say nothing about the device.")
    if isinstance(reason := facts.bench.get("not_measured"), str):
        found.append(f"Nothing could be measured: {reason}.")
    return found


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.3g} %"


# --------------------------------------------------------------------------------------------------------- side by side

Tell = Callable[[Facts, Row], tuple[str, float | None]]
"""What a cell says, and the number that is compared with the teacher's, or None."""


def side_by_side(facts: Facts) -> list[Node]:
    """One column per model, one row per figure, each with its ratio to the teacher's."""
    rows, teacher = facts.rows, facts.rows[0]
    body: list[Cells] = []
    for title, tell in _FIGURES.items():
        cells = [tell(facts, row) for row in rows]
        if all(text == "–" for text, _ in cells):
            continue
        whole = cells[0][1]
        ratios: Cells = [[text, _ratio(value, whole)] for text, value in cells[1:]]
        body.append([title, cells[0][0], *ratios])
    heads: list[Child] = ["", *(tag("span", TITLES[row.label], class_=f"key {KIND[row.label]}") for row in rows)]
    files = tag("p", _files(teacher, rows[1:]), class_="quiet")
    return [table(heads, body, caption="Models side by side; below a figure, its ratio to the teacher's"), files]


def _files(teacher: Row, students: list[Row]) -> list[Child]:
    told: list[Child] = ["Teacher: ", named(teacher.file)]
    for row in students:
        told += [f"; {TITLES[row.label]}: ", code(row.file)]
    return [*told, "."]


def _ratio(value: float | None, whole: float | None) -> Node | None:
    if value is None or not whole:
        return None
    return tag("small", units.write_ratio(value / whole))


def _plain(write: Callable[[float], str], value: float | None) -> tuple[str, float | None]:
    return (write(value), value) if value is not None else ("–", None)


def _measured(write: Callable[[float], str], *keys: str) -> Tell:
    return lambda _, row: _plain(write, number(row.measured, *keys))


def _p50(_: Facts, row: Row) -> tuple[str, float | None]:
    p50, ends = number(row.measured, "latency_ms", "p50"), deep(row.measured, "latency_ms", "p50_interval")
    if p50 is None:
        return "–", None
    between = (
        f" [{units.digits(ends[0])}, {units.digits(ends[1])}]" if isinstance(ends, list) and len(ends) == 2 else ""
    )
    return f"{units.digits(p50)}{between} ms", p50


def _agreement(facts: Facts, row: Row) -> tuple[str, float | None]:
    found = facts.agreement(row.label)
    if found is None:
        return "–", None
    return f"{units.write_share(found[0])} [{100 * found[1]:.1f}, {100 * found[2]:.1f}]", None


def _estimated(facts: Facts, row: Row) -> tuple[str, float | None]:
    told, _ = _share(facts.probed(row), "estimate", "agreement")
    promised = number(facts.probed(row), "estimate", "promised")
    return told if promised is None else f"{told} ({units.write_level(promised)})", None


def _accuracy(_: Facts, row: Row) -> tuple[str, float | None]:
    return _share(row.evaluated, "accuracy")


def _share(record: Mapping[str, Any], *keys: str) -> tuple[str, float | None]:
    """A share with the interval beside it; it has no ratio to the teacher's."""
    share, ends = number(record, *keys), deep(record, *keys[:-1], "interval")
    if share is None:
        return "–", None
    between = f" [{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]" if isinstance(ends, list) and len(ends) == 2 else ""
    return f"{units.write_share(share)}{between}", None


def _real_agreement(_: Facts, row: Row) -> tuple[str, float | None]:
    return _plain(units.write_share, number(row.evaluated, "teacher", "agreement"))[0], None


_FIGURES: dict[str, Tell] = {
    "size": lambda _, row: _plain(units.write_size, row.bytes),
    "size, gzip": _measured(units.write_size, "gzip_bytes"),
    "parameters": lambda _, row: _plain(units.write_count, row.parameters),
    "MACs of one image": lambda _, row: _plain(units.write_count, row.macs),
    "p50 [95 %]": _p50,
    "p90": _measured(units.write_time, "latency_ms", "p90"),
    "parts one by one, p50": _measured(units.write_time, "apart", "one_by_one", "p50"),
    "parts in parallel, p50": _measured(units.write_time, "apart", "parallel", "p50"),
    "load": _measured(units.write_time, "load_ms"),
    "peak memory": _measured(units.write_size, "memory_bytes", "peak"),
    "accuracy [95 %]": _accuracy,
    "F1": lambda _, row: (_plain(units.write_share, number(row.evaluated, "f1"))[0], None),
    "mean IoU": lambda _, row: (_plain(units.write_share, number(row.evaluated, "mean_iou"))[0], None),
    "agreement with the teacher": _real_agreement,
    "agreement, generated images [95 %]": _agreement,
    "agreement, real images, estimated": _estimated,
}


# -------------------------------------------------------------------------------------------------------------- latency


SPREAD = 2.5
"""Times the largest p50 that the scale of latencies reaches; on a busy machine tails are a hundred times longer."""
_LATENCY = (
    "Latency of one inference, on a scale from 0: the block is the interval of p50, the line goes on to the tail, "
    "at the edge beyond it"
)


def latency(facts: Facts) -> list[Node]:
    """p50 with its interval and what lies between p50 and p99, on one scale; the machine and the protocol."""
    timed = [row for row in facts.rows if number(row.measured, "latency_ms", "p50") is not None]
    if not timed:
        return [tag("p", "Nothing is measured yet: ", code(facts.command("bench")), ".")]
    highest = max(number(row.measured, "latency_ms", "p50") or 0.0 for row in timed)
    most = min(max(_tail(row)[1] for row in timed), SPREAD * highest)
    body: list[Cells] = []
    for row in timed:
        p50 = number(row.measured, "latency_ms", "p50") or 0.0
        ends = deep(row.measured, "latency_ms", "p50_interval")
        low, high = (float(ends[0]), float(ends[1])) if isinstance(ends, list) and len(ends) == 2 else (p50, p50)
        name, tail = _tail(row)
        drawn = whisker(low, p50, high, tail, most, KIND[row.label])
        body.append([TITLES[row.label], _p50(facts, row)[0], f"{name} {units.write_time(tail)}", drawn])
    heads: list[Child] = ["", "p50 [95 %]", "tail", ""]
    return [
        table(heads, body, caption=_LATENCY, class_="bars loose"),
        tag("p", _machine(facts), class_="quiet"),
    ]


def _tail(row: Row) -> tuple[str, float]:
    p99 = number(row.measured, "latency_ms", "p99")
    p90 = number(row.measured, "latency_ms", "p90")
    p50 = number(row.measured, "latency_ms", "p50") or 0.0
    return ("p99", p99) if p99 is not None else ("p90", p90) if p90 is not None else ("p50", p50)


def _machine(facts: Facts) -> str:
    environment, target = deep(facts.bench, "environment"), deep(facts.bench, "target", "name")
    told = [f"Target {target}"] if target else []
    for key in ("cpu", "cores", "governor", "system", "onnxruntime", "browser"):
        if (value := deep(environment, key)) is not None:
            told.append(
                f"{key} {value}"
                if key in ("onnxruntime", "governor")
                else f"{value} {key}" * (key == "cores") or str(value)
            )
    counts = [
        f"{count:.0f} {name}"
        for name in ("processes", "samples")
        if (count := number(_first(facts), "latency_ms", name))
    ]
    return "; ".join([*told, *counts, f"measured {facts.bench.get('measured', 'at an unknown time')}"]) + "."


def _first(facts: Facts) -> object:
    return next(iter(row.measured for row in facts.rows if row.measured), {})


def sizes(facts: Facts) -> Node:
    """Bytes of the files as bars on one scale."""
    known = [row for row in facts.rows if row.bytes]
    most = max((row.bytes or 0.0 for row in known), default=0.0)
    body: list[Cells] = [
        [TITLES[row.label], units.write_size(row.bytes or 0), bar(row.bytes or 0, most, KIND[row.label])]
        for row in known
    ]
    return table(["", "bytes", ""], body, caption="Size of the files, on a scale from 0", class_="bars")
