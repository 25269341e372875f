"""The README's table of estimates without data: what `fidelity/fit.py` found."""

from __future__ import annotations

import json
import math
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
    rows.append(("**mean of data sets**", str(found["triples"]), "–", *shares))
    reach = found["promised_reach"] or found["reach"]
    low, high = (1 / (1 + math.exp(-(math.log(9) + sign * reach))) for sign in (-1, 1))
    told = f"The interval about an estimate of 90 % reaches from {100 * low:.0f} to {100 * high:.0f} %."
    ranks = f"Ranks of estimates and truths correlate with {found['rank_correlation']:.2f}."
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in rows)
    return f"{table}\n\nWanted were 80 % within 3 points and 90 % in the interval. {told} {ranks}"
