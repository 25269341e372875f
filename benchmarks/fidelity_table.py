"""The README's table of estimates without data: what `fidelity/fit.py` found."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def fidelity() -> str:
    """How far estimates for data sets that were left out are from what students really do."""
    found = json.loads((ROOT / "benchmarks/results/fidelity_judged.json").read_text())
    rows: list[tuple[str, ...]] = [("left out", "triples", "median error", "within 3 points", "in the interval")]
    rows.append(("---",) * 5)
    for name, one in found["datasets"].items():
        shares = (f"{100 * one[key]:.0f} %" for key in ("within_3_points", "covered"))
        rows.append((name, str(one["triples"]), f"{one['median_points']:.1f} points", *shares))
    shares = (f"{100 * found[key]:.0f} %" for key in ("within_3_points", "covered"))
    rows.append(("**mean of data sets**", "–", "–", *shares))
    shares = (f"{100 * found['all'][key]:.0f} %" for key in ("within_3_points", "covered"))
    middle = f"{found['all']['median_points']:.1f} points"
    rows.append(("**all triples**", str(found["all"]["triples"]), middle, *shares))
    told = f"Half of the intervals are narrower than {found['median_width']:.0f} points. "
    told += f"Of {found['refused']} more triples there is no estimate: their students had learned too little."
    ranks = f"Ranks of estimates and truths correlate with {found['rank_correlation']:.2f}."
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in rows)
    return f"{table}\n\nWanted are 80 % of all triples within 3 points, and 90 % in the interval. {told} {ranks}"
