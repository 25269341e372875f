"""Fill the README's tables from the results beside this script; `--check` only says whether they are in step."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"


def first_light() -> str:
    """Teacher, student and INT8 student of `make demo`."""
    record = json.loads((ROOT / "benchmarks/results/first_light.json").read_text())
    first, total = record["runs"][0], record["summary"]
    rows = [
        ("file", "size", "parameters", "p50, 1 thread", "accuracy, 10,000 test images", "agrees with teacher"),
        ("---",) * 6,
        row(
            "teacher.onnx", first["bench"]["teacher"], percent(first["accuracy_test"]["teacher.onnx"]["accuracy"]), "–"
        ),
    ]
    for label, name in (("student", "student.onnx"), ("student.int8", "student.int8.onnx")):
        figures = (spread(total[key][name]) for key in ("accuracy_test", "agreement_test"))
        rows.append(row(name, first["bench"][label], *figures))
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in rows)
    seconds, runs = total["seconds_in_all"]["mean"], len(record["runs"])
    drop = total["int8_drop_points"]
    many = f"Mean ± standard deviation over {runs} seeds" if runs > 1 else "One seed, so no spread is known"
    return (
        f"{table}\n\n{many}; last state; sizes and latency of the first. "
        f"{record['minutes']:g} minutes of distillation, {seconds / 60:.1f} minutes in all, on "
        f"{record['host']['cores']} shared CPU cores. INT8 costs {drop['mean']:.2f} points"
        f"{' ± ' + format(drop['sd'], '.2f') if runs > 1 else ''}; its p50 is "
        f"{total['int8_p50_to_teacher']['mean']:.2f} × the teacher's."
    )


def row(name: str, bench: dict[str, Any], *figures: str) -> tuple[str, ...]:
    latency = f"{bench['latency_ms']['p50']:.3f} ms"
    return (f"`{name}`", f"{bench['bytes'] / 1000:,.0f} kB", f"{bench['parameters']:,}", latency, *figures)


def percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def spread(figure: dict[str, float]) -> str:
    return f"{100 * figure['mean']:.2f} ± {100 * figure['sd']:.2f} %" if figure["sd"] else percent(figure["mean"])


TABLES = {"first_light": first_light}


def filled(text: str) -> str:
    """The README with every table between its markers made anew."""
    for name, make in TABLES.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        text, count = re.subn(pattern, lambda m, make=make: f"{m[1]}{make()}\n{m[2]}", text, flags=re.DOTALL)
        if count != 1:
            raise SystemExit(f"README.md must hold the markers of {name} once, it holds them {count} times")
    return text


if __name__ == "__main__":
    new = filled(README.read_text())
    if "--check" in sys.argv:
        sys.exit(new != README.read_text())
    README.write_text(new)
