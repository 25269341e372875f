"""Fit the step from agreement on probes to agreement on real images, and say how far it is to be trusted.

    python benchmarks/fidelity/fit.py           # prints what was found; writes the calibration if it is good enough

Ridge regression in logits, on the triples of `measure.py`. How good it is comes from data sets that were left out
whole: for each, the others fit it, and its triples are estimated. The reach of the interval is the quantile of what
those missed (split conformal). Wanted: at most 3 points off for 80 % of the triples, and 90 % in their interval.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.fidelity import Calibration, logit
from edgekd.run_folder import write_json

RESULTS = Path(__file__).resolve().parents[1] / "results"
SCHEMA = "edgekd.fidelity-calibration/1"
LEAST_DATASETS, RIDGE, COVERED = 3, 1.0, 0.9
WITHIN, OFTEN = 0.03, 0.8

Triples = Sequence[dict[str, Any]]


def fitted(triples: Triples, reach: float = 0.0) -> Calibration:
    """The calibration of all the triples that are given."""
    names = sorted(set.intersection(*(set(one["probes"]) for one in triples)))
    shares = np.array([[one["probes"][name] for name in names] for one in triples])
    inputs, goals = logit(shares), logit(np.array([one["true"] for one in triples]))
    middle, goal = inputs.mean(axis=0), goals.mean()
    centred = inputs - middle
    # Towards equal weights that sum to one: without triples, agreement on real images is that on probes.
    prior = np.full(len(names), 1 / len(names))
    square = centred.T @ centred + RIDGE * np.eye(len(names))
    weights = prior + np.linalg.solve(square, centred.T @ (goals - goal - centred @ prior))
    told = {"schema": SCHEMA, "bias": float(goal - middle @ weights), "reach": reach, "triples": len(triples)}
    named = {name: float(weight) for name, weight in zip(names, weights, strict=True)}
    datasets = tuple(sorted({one["dataset"] for one in triples}))
    return Calibration.model_validate(told | {"weights": named, "datasets": datasets})


def left_out(triples: Triples) -> list[dict[str, Any]]:
    """Each triple with the estimate of a calibration that has seen nothing of its data set."""
    found = []
    for dataset in sorted({one["dataset"] for one in triples}):
        others = [one for one in triples if one["dataset"] != dataset]
        calibration = fitted(others)
        for one in (one for one in triples if one["dataset"] == dataset):
            found.append(one | {"estimate": calibration.estimate(one["probes"])[0]})
    return found


def quantile(missed: Sequence[float], covered: float = COVERED) -> float:
    """What the next one misses no more than with that probability, if it is like those: the conformal quantile."""
    rank = math.ceil((len(missed) + 1) * covered)
    return float(np.sort(missed)[min(rank, len(missed)) - 1])


def judged(triples: Triples) -> dict[str, Any]:
    """How far off estimates of left-out data sets are, and how many intervals hold; each without its own data set."""
    told = left_out(triples)
    missed = [abs(float(logit(one["estimate"]) - logit(one["true"]))) for one in told]
    holds = []
    for one, own in zip(told, missed, strict=True):
        others = [m for other, m in zip(told, missed, strict=True) if other["dataset"] != one["dataset"]]
        holds.append(own <= quantile(others))
    off = [abs(one["estimate"] - one["true"]) for one in told]
    return {
        "triples": len(told),
        "datasets": sorted({one["dataset"] for one in told}),
        "within_3_points": float(np.mean(np.array(off) <= WITHIN)),
        "median_points": 100 * float(np.median(off)),
        "coverage": float(np.mean(holds)),
        "reach": quantile(missed),
        "scatter": [
            {key: one[key] for key in ("pair", "student", "minutes", "file", "estimate", "true")} for one in told
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "fidelity-calibration.json")
    told = parser.parse_args()
    triples = json.loads((RESULTS / "fidelity.json").read_text())["triples"]
    datasets = {one["dataset"] for one in triples}
    if len(datasets) < LEAST_DATASETS:
        raise SystemExit(f"triples of {len(datasets)} data sets: at least {LEAST_DATASETS}, or none can be left out")
    found = judged(triples)
    write_json(RESULTS / "fidelity-judged.json", found)
    print(json.dumps({key: value for key, value in found.items() if key != "scatter"}, indent=2))
    if found["within_3_points"] < OFTEN or found["coverage"] < COVERED:
        raise SystemExit("not good enough to be shipped: more triples, of more data sets")
    write_json(told.out, fitted(triples, found["reach"]).model_dump(mode="json", by_alias=True))


if __name__ == "__main__":
    main()
