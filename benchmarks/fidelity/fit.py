"""Fit the step from what a curve lets expect to agreement on real images, and say how far it is to be trusted.

    python benchmarks/fidelity/fit.py           # prints and draws what was found; writes the calibration if it may

What to expect is `edgekd.unseen.Curve.expected` by the teacher's accuracy. The estimate lies between that and the share
on held-out images, in logits; its weight is the one by which the estimates of the triples of `measure.py` are off by
the fewest points. Every data set counts alike, however many triples it has. Students whose distillation loss came down
too little get no estimate.

How good it is comes from data sets that were left out whole: for each, the others fit the weight, and its triples are
estimated. The reach of the interval is a quantile of what those missed, for a data set that is not among them
(hierarchical conformal prediction: Dunn, Wasserman and Ramdas, JASA 2023; Lee, Barber and Willett, 2023): of K data
sets each counts 1 / (K + 1), and the one to come the rest. So 90 % cannot be promised by fewer than nine, however many
triples they have: K of them promise K / (K + 1), by all that any of them missed. Wanted: at most 3 points off for 80 %
of the triples, and as many in their interval as is promised; or nothing is written.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.run_folder import write_json
from edgekd.unseen import FOLLOWED, LEARNED, LEAST, Calibration, Curve, between, interval, missed

RESULTS = Path(__file__).resolve().parents[1] / "results"
PACKAGE = Path(__file__).resolve().parents[2] / "edgekd"
SCHEMA = "edgekd.fidelity-calibration/3"
LEAST_DATASETS, COVERED = 3, 0.9
WEIGHTS = np.linspace(-0.5, 1.5, 201)
"""Those that are tried."""
WITHIN, OFTEN = 0.03, 0.8

Triples = Sequence[dict[str, Any]]


def usable(triple: dict[str, Any]) -> bool:
    """Whether its student learned enough for an estimate."""
    enough = triple["held_out"] >= LEAST and triple["probes"]["held_out"] >= FOLLOWED
    return triple["curve"] is not None and enough and triple["loss"] <= LEARNED


def expected(triple: dict[str, Any]) -> float:
    """What is to be expected of real images: what a calibration takes."""
    return Curve.model_validate(triple["curve"]).expected(triple["teacher_accuracy"])


def parted(triples: Triples) -> Iterator[tuple[str, Triples, Triples]]:
    """Each data set, its own triples and all the others'."""
    for dataset in sorted({one["dataset"] for one in triples}):
        own = [one for one in triples if one["dataset"] == dataset]
        yield dataset, own, [one for one in triples if one["dataset"] != dataset]


def weight(triples: Triples) -> float:
    """That by which estimates are off by the fewest points."""
    known, true = np.array([one["expected"] for one in triples]), np.array([one["true"] for one in triples])
    shares = np.array([one["probes"]["held_out"] for one in triples])
    counts = Counter(one["dataset"] for one in triples)
    each = np.array([1 / counts[one["dataset"]] for one in triples])
    off = np.abs(between(known, shares, WEIGHTS[:, None]) - true)
    return float(WEIGHTS[(off @ each).argmin()])


def estimated(triples: Triples, by: float) -> list[dict[str, Any]]:
    """Triples with the estimate of such a weight, and what that missed."""
    found = []
    for one in triples:
        estimate = float(between(one["expected"], one["probes"]["held_out"], by))
        found.append(one | {"estimate": estimate, "missed": missed(estimate, one["true"], one["loss"])})
    return found


def left_out(triples: Triples) -> list[dict[str, Any]]:
    """All of them, each estimated by the weight of the other data sets."""
    return [one for _, own, others in parted(triples) for one in estimated(own, weight(others))]


def fitted(triples: Triples) -> Calibration:
    """The calibration of all the triples that are given."""
    told = {"schema": SCHEMA, "weight": weight(triples), "reach": quantile(left_out(triples))}
    datasets = sorted({one["dataset"] for one in triples})
    told["promised"] = promised(len(datasets))
    return Calibration.model_validate(told | {"triples": len(triples), "datasets": datasets})


def promised(sets: int) -> float:
    """How often a triple of another data set is in an interval by so many: as often as wanted, if they are enough."""
    return min(COVERED, sets / (sets + 1))


def quantile(told: Triples) -> float:
    """What a triple of another data set misses no more than, as often as is `promised`, if data sets are alike.

    Args:
        told: triples with what each `missed`.
    """
    counts = Counter(one["dataset"] for one in told)
    ranked = sorted(told, key=lambda one: one["missed"])
    shares = np.cumsum([1 / counts[one["dataset"]] / (len(counts) + 1) for one in ranked])
    return float(ranked[int(np.argmax(shares >= promised(len(counts)) - 1e-9))]["missed"])


def judged(triples: Triples) -> dict[str, Any]:
    """How far off estimates of left-out data sets are, and how many intervals hold; each by the others alone."""
    told: list[dict[str, Any]] = []
    by_set: dict[str, Any] = {}
    for dataset, every, others in parted(triples):
        calibration = fitted(others)
        own = estimated(every, calibration.weight)
        for one in own:
            one["interval"] = interval(one["estimate"], calibration.reach, one["loss"])
        by_set[dataset] = _told(own)
        told += own
    kept = "pair", "dataset", "student", "minutes", "file", "loss", "estimate", "interval", "true"
    return {
        **{key: float(np.mean([one[key] for one in by_set.values()])) for key in ("within_3_points", "covered")},
        "all": _told(told),
        "median_width": 100 * float(np.median([one["interval"][1] - one["interval"][0] for one in told])),
        "rank_correlation": rank_correlation([one["estimate"] for one in told], [one["true"] for one in told]),
        "datasets": by_set,
        "scatter": [{key: one[key] for key in kept} for one in told],
    }


def _told(triples: Triples) -> dict[str, Any]:
    """Of some estimates with their intervals."""
    off = np.array([abs(one["estimate"] - one["true"]) for one in triples])
    held = [one["interval"][0] <= one["true"] <= one["interval"][1] for one in triples]
    shares = {"within_3_points": float(np.mean(off <= WITHIN)), "covered": float(np.mean(held))}
    return {"triples": len(triples), **shares, "median_points": 100 * float(np.median(off))}


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's, of values that are hardly ever equal."""
    return float(np.corrcoef(*(np.argsort(np.argsort(values)) for values in (first, second)))[0, 1])


def drawn(found: dict[str, Any], path: Path) -> None:
    """The scatter of estimates and truths, a colour for each data set left out; intervals, 3 points in grey."""
    import matplotlib  # noqa: PLC0415 - of the `benchmarks` extra

    matplotlib.use("agg")
    from matplotlib import pyplot  # noqa: PLC0415

    figure, axes = pyplot.subplots(figsize=(5.2, 5), layout="constrained")
    axes.plot([0, 1], [0, 1], color="#888888", linewidth=1)
    axes.fill_between([0, 1], [-WITHIN, 1 - WITHIN], [WITHIN, 1 + WITHIN], color="#dddddd", linewidth=0)
    for one in found["scatter"]:
        axes.plot(one["interval"], [one["true"]] * 2, color="#777777", linewidth=0.6)
    for dataset in found["datasets"]:
        own = [one for one in found["scatter"] if one["dataset"] == dataset]
        axes.scatter([one["estimate"] for one in own], [one["true"] for one in own], s=14, label=dataset)
    least = min(min(one["interval"][0], one["true"]) for one in found["scatter"]) - 0.03
    ends = least, 1.01
    axes.set(xlabel="estimated, its data set left out", ylabel="agreement on real test images", xlim=ends, ylim=ends)
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=PACKAGE / "fidelity.json", help="where edgekd looks for it")
    told = parser.parse_args()
    every = json.loads((RESULTS / "fidelity.json").read_text())["triples"]
    triples = [one | {"expected": expected(one)} for one in every if usable(one)]
    print(f"{len(every) - len(triples)} of {len(every)} are of students that learned too little for an estimate")
    datasets = {one["dataset"] for one in triples}
    if len(datasets) < LEAST_DATASETS:
        raise SystemExit(f"triples of {len(datasets)} data sets: at least {LEAST_DATASETS}, or none can be left out")
    calibration = fitted(triples)
    found = {"refused": len(every) - len(triples), **judged(triples)}
    found |= {"calibration": calibration.model_dump(mode="json", by_alias=True)}
    write_json(RESULTS / "fidelity_judged.json", found)
    drawn(found, RESULTS / "fidelity.png")
    print(json.dumps({key: value for key, value in found.items() if key != "scatter"}, indent=2))
    if found["all"]["within_3_points"] < OFTEN or found["covered"] < calibration.promised:
        raise SystemExit("estimates of data sets that were left out are not good enough: nothing is written")
    write_json(told.out, found["calibration"])


if __name__ == "__main__":
    main()
