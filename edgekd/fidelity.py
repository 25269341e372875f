"""How well a student follows its teacher where there is no data: on probes, and what may be concluded from them.

A probe is a set of images that the student did not learn from: generated ones that were held out, and what becomes of
them when two are blended, when they are shifted, made faint or noisy; ones that the generator makes now; procedural
ones that were kept from the student, and blends of those with generated ones. What a student does there says something
about what it will do on real images, but not in the same numbers. The step from one to the other has to be learned
from many teachers, students and data sets for which both are known (`benchmarks/fidelity/`); where no such calibration
is at hand, shares are told and no estimate is made.

The record `edgekd.fidelity/1`:

    schema, tool, measured (ISO UTC), task
    model      file, sha256
    collapses  of the generator in the run
    probes     per name {n, agreement, interval (95 %, of the share on such images)}
    per_class  list of {class, n, agreement (null without images), interval} on held-out images; empty but for classes;
               with an estimate also `estimate`: the class's share, moved in logits as that of all is
    seldom     classes of which fewer than ten images were held out
    estimate   null, or {agreement, interval (90 %)} on the unseen real distribution
    why        why there is no estimate, or null
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

import edgekd
from edgekd import onnx_file, units
from edgekd.codes import Codes, from_codes, to_codes
from edgekd.config import Record, validated
from edgekd.errors import BadRun, BadSetting
from edgekd.inference import fed
from edgekd.quantize import Generated
from edgekd.run_folder import HeldOut, RunFolder, read_json, task_of, write_json
from edgekd.scoring import interval
from edgekd.tasks import choices
from edgekd.teachers import answers

SCHEMA = "edgekd.fidelity/1"
COLLECTION = "edgekd.fidelities/1"
FEW = 10
_OTHERS = 1_000_003
"""Added to a seed, so that the images are none of those that calibrated or judged INT8."""
EDGE = 0.005
"""Shares are kept so far from 0 and 1 before their logit is taken: of a thousand images few tell more."""
Images = NDArray[np.uint8]
Choices = NDArray[np.integer[Any]]


def _blended(codes: Images, random: np.random.Generator) -> Images:
    """The mean of two images each."""
    other = codes[random.permutation(len(codes))]
    return ((codes.astype(np.uint16) + other) // 2).astype(np.uint8)


def _shifted(codes: Images, random: np.random.Generator) -> Images:
    """Moved by two pixels to one of four sides, the border repeated."""
    side = random.integers(4, size=len(codes))
    grown = np.pad(codes, ((0, 0), (0, 0), (2, 2), (2, 2)), mode="edge")
    height, width = codes.shape[2:]
    starts = np.array([[0, 2], [4, 2], [2, 0], [2, 4]])[side]
    return np.stack(
        [one[:, top : top + height, left : left + width] for one, (top, left) in zip(grown, starts, strict=True)]
    )


def _faint(codes: Images, _: np.random.Generator) -> Images:
    """At half the contrast, about each image's mean."""
    mean = codes.mean(axis=(1, 2, 3), keepdims=True)
    faint: Images = np.rint(mean + (codes - mean) / 2).astype(np.uint8)
    return faint


def _noisy(codes: Images, random: np.random.Generator) -> Images:
    """With normal noise, a sixteenth of the range in deviation."""
    noisy: Images = np.rint(codes + 16 * random.standard_normal(codes.shape)).clip(0, 255).astype(np.uint8)
    return noisy


CHANGED: dict[str, Callable[[Images, np.random.Generator], Images]] = {
    "blended": _blended,
    "shifted": _shifted,
    "faint": _faint,
    "noisy": _noisy,
}
"""Probes that are made of held-out images; the teacher is asked about them anew."""
DRAWN = 1024
"""Images that the generator makes for a probe."""
PROBES = ("held_out", *CHANGED, "generated", "procedural", "mixed")


def probes(run: RunFolder, held: HeldOut, seed: int) -> dict[str, Images]:
    """What a teacher's file is asked about, by name; an older run, or one that is not exported, has fewer, and one of
    token ids has none.

    Args:
        run: of which images are taken, or made by its generator.
        held: its held-out images.
        seed: of what is drawn.
    """
    random = np.random.default_rng(seed)
    if held.codes.dtype != np.uint8:  # nothing lies between two token ids
        return {}
    codes = held.codes.astype(np.uint8, copy=False)
    found = {name: change(codes, random) for name, change in CHANGED.items()}
    procedural = run.procedural((codes.shape[1], codes.shape[2], codes.shape[3]), unseen=True)
    procedural = procedural.astype(np.uint8, copy=False)
    if run.generator_onnx.is_file():
        drawn = np.concatenate(list(Generated(run.generator_onnx, DRAWN, seed + _OTHERS).parts()))
        found["generated"] = to_codes(drawn, held.low, held.high).astype(np.uint8, copy=False)
    if len(procedural):
        found["procedural"] = procedural
    if "generated" in found and len(procedural):
        partner = found["generated"][: len(procedural)].astype(np.uint16)
        found["mixed"] = ((partner + procedural[: len(partner)]) // 2).astype(np.uint8)
    return found


# ---------------------------------------------------------------------------------------------------------- calibration


class Calibration(Record):
    """From shares on probes to the agreement on real images, as fitted by `benchmarks/fidelity/fit.py`.

    The estimate is the logistic function of `bias + weights · logit(shares)`; its interval is that of the logit plus
    and minus `reach`, a quantile of what was missed on data sets that were left out (split conformal: Vovk et al.,
    2005; Lei et al., 2018).
    """

    schema_version: Literal["edgekd.fidelity-calibration/1"] = Field(alias="schema")
    bias: float
    weights: dict[str, float]
    reach: float
    triples: int
    datasets: tuple[str, ...]

    def estimate(self, shares: Mapping[str, float]) -> tuple[float, float, float]:
        """Agreement on the unseen real distribution, and the ends of its interval."""
        middle = self.bias + sum(weight * float(logit(shares[name])) for name, weight in self.weights.items())
        low, mid, high = (float(1 / (1 + np.exp(-(middle + step)))) for step in (-self.reach, 0.0, self.reach))
        return mid, low, high


def logit(share: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """log(p / (1 - p)), of shares not nearer than `EDGE` to 0 and 1."""
    kept = np.clip(share, EDGE, 1 - EDGE)
    return np.asarray(np.log(kept / (1 - kept)))


def shipped_calibration() -> Calibration | None:
    """The calibration that came with edgekd, if one was good enough to be shipped."""
    path = Path(str(resources.files("edgekd") / "fidelity.json"))
    return read_calibration(path) if path.is_file() else None


def read_calibration(path: Path) -> Calibration:
    """A fitted calibration.

    Raises:
        BadSetting, BadRun: unreadable, or not one.
    """
    found = validated(Calibration, read_json(path), path)
    if unknown := sorted(set(found.weights) - set(PROBES)):
        raise BadSetting(f"no probe is called {', '.join(unknown)}", where=path, allowed=", ".join(PROBES))
    return found


# -------------------------------------------------------------------------------------------------------------- measure


def fidelity(
    run: RunFolder, *, teacher: Path | None = None, calibration: Calibration | None = None, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Measure a run's students on probes beside their teacher, and keep the records in its fidelity.json.

    Args:
        run: exported, with held-out images.
        teacher: where its file is now, if it is not where run.json says; without it only held-out images are a probe,
            for their answers were kept.
        calibration: for an estimate on real images.
        seed: of what is drawn.

    Returns:
        Records of schema `edgekd.fidelity/1` by file name.

    Raises:
        BadRun: not exported yet, without held-out images, or `teacher` is another one.
        CannotLoad, EdgekdError: a model cannot be loaded or run.
    """
    record, files, held = run.record(), run.models(teacher), run.held_out()
    if not len(held.codes):
        raise BadRun("it holds no held-out images", where=run.held_out_file, hint="distil for longer")
    known = files.pop("teacher", None)
    images = probes(run, held, seed) if known else {}
    asked: dict[str, Codes] = {"held_out": held.codes, **images}
    theirs: dict[str, Choices] = {"held_out": choices(held.logits, held.task)}
    for name, codes in images.items():
        assert known is not None
        theirs[name] = _answers(known, codes, held)
    found = {}
    for file in files.values():
        alike = {name: _answers(file, codes, held) == theirs[name] for name, codes in asked.items()}
        found[file.name] = _told(file, record, alike, theirs["held_out"], held, calibration)
    write_json(run.fidelity_file, {"schema": COLLECTION, "models": found})
    return found


def _answers(path: Path, codes: Codes, held: HeldOut) -> Choices:
    images = fed(from_codes(codes, held.low, held.high), held.layout)
    return choices(answers.logits(path, images, held.task, layout=held.layout), held.task)


def _told(
    file: Path,
    record: Mapping[str, Any],
    alike: Mapping[str, NDArray[np.bool_]],
    theirs: Choices,
    held: HeldOut,
    calibration: Calibration | None,
) -> dict[str, Any]:
    shares = {name: float(one.mean()) for name, one in alike.items()}
    seen = _seen(alike["held_out"], theirs, held, record)
    lacking = [] if calibration is None else sorted(set(calibration.weights) - set(shares))
    why = f"without the teacher's file there is no {', '.join(lacking)}" if lacking else None
    if calibration is None:
        why = "no calibration was given; see benchmarks/fidelity"
    middle = calibration.estimate(shares) if calibration is not None and not lacking else None
    if middle:
        _estimate_classes(seen["per_class"], float(logit(middle[0]) - logit(shares["held_out"])))
    return {
        "schema": SCHEMA,
        "tool": {"name": "edgekd", "version": edgekd.__version__},
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "task": task_of(record),
        "model": {"file": file.name, "sha256": onnx_file.model_sha256(file)},
        "probes": {name: _share(one) for name, one in alike.items()},
        **seen,
        "estimate": {"agreement": middle[0], "interval": list(middle[1:])} if middle else None,
        "why": why,
    }


def _share(alike: NDArray[np.bool_]) -> dict[str, Any]:
    """Of questions that are answered alike, bool `[N, Q]`; those about one image are related."""
    return {"n": alike.size, "agreement": float(alike.mean()), "interval": list(interval(alike))}


def _seen(alike: NDArray[np.bool_], theirs: Choices, held: HeldOut, record: Mapping[str, Any]) -> dict[str, Any]:
    """What held-out images tell beyond one share: that of each class, classes hardly seen, and the run's collapses."""
    classes = _by_class(alike, theirs, held.logits.shape[1]) if held.task == "classes" else []
    seldom = [one["class"] for one in classes if one["n"] < FEW]
    return {"per_class": classes, "seldom": seldom, "collapses": (record.get("progress") or {}).get("collapses")}


def _by_class(alike: NDArray[np.bool_], theirs: Choices, classes: int) -> list[dict[str, Any]]:
    found = []
    for number in range(classes):
        own = alike[theirs[:, 0] == number]
        told = _share(own) if len(own) else {"n": 0, "agreement": None, "interval": None}
        found.append({"class": number, **told})
    return found


def _estimate_classes(classes: list[dict[str, Any]], moved: float) -> None:
    """Move each class's share as that of all was moved: nothing is known by class but what is known of all."""
    for one in classes:
        share = one["agreement"]
        one["estimate"] = None if share is None else float(1 / (1 + np.exp(-(logit(share) + moved))))


def of_held_out(run: RunFolder, answer: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> dict[str, Any]:
    """What can be said of a student that is not a file yet: its answers beside those that were kept of the teacher.

    Args:
        run: with held-out images.
        answer: float32 images `[N, C, H, W]` to logits.

    Returns:
        As in a record `edgekd.fidelity/1`: the probe `held_out`, `per_class`, `seldom`, `collapses`.

    Raises:
        BadRun: there are no held-out images.
    """
    held, record = run.held_out(), run.record()
    theirs = choices(held.logits, held.task)
    alike = choices(answer(held.images()), held.task) == theirs
    return {"probes": {"held_out": _share(alike)}, **_seen(alike, theirs, held, record)}


def cautions(record: Mapping[str, Any]) -> list[str]:
    """What a reader of shares must not overlook, a line each: classes hardly seen, a generator that collapsed."""
    lines, few = [], record["seldom"]
    if few:
        more = " …" if len(few) > LISTED else ""
        lines.append(f"the student hardly saw classes {', '.join(map(str, few[:LISTED]))}{more}")
    if often := record.get("collapses"):
        lines.append(f"the generator collapsed {often} time{'s' * (often > 1)} in this run: expect a weaker student")
    return lines


CLASS_HEADERS = ("model", "class", "agrees with the teacher", "95 %", "held-out images")
LISTED = 20
"""Classes that are listed at most, the worst first."""


def class_rows(records: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """By class as people read it, under `CLASS_HEADERS`: those that agree least."""
    table = []
    for name, record in records.items():
        known = [one for one in record["per_class"] if one["agreement"] is not None]
        for one in sorted(known, key=lambda one: (one["agreement"], one["class"]))[:LISTED]:
            share, ends = units.write_share(one["agreement"]), units.write_shares(one["interval"])
            told = f"{share}, real images {units.write_share(one['estimate'])}" if "estimate" in one else share
            table.append([name, str(one["class"]), told, ends, f"{one['n']:,}"])
    return table


HEADERS = ("model", "probe", "agrees with the teacher", "95 %", "images")


def rows(records: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Records of schema `edgekd.fidelity/1` as people read them, under `HEADERS`."""
    table = []
    for name, record in records.items():
        for probe, one in record["probes"].items():
            ends = units.write_shares(one["interval"])
            table.append([name, probe.replace("_", " "), units.write_share(one["agreement"]), ends, f"{one['n']:,}"])
        if record["estimate"]:
            ends = units.write_shares(record["estimate"]["interval"]) + " (90 %)"
            table.append([name, "real images, estimated", units.write_share(record["estimate"]["agreement"]), ends, ""])
    return table
