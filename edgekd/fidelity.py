"""How well a student follows its teacher where there is no data: on probes, and what may be concluded from them.

A probe is a set of images that the student did not learn from: generated ones that were held out, and what becomes of
them when two are blended, when they are shifted, made faint or noisy; ones that the generator makes now; procedural
ones that were kept from the student, and blends of those with generated ones. What a student does there says something
about what it will do on real images, but not in the same numbers: `edgekd.unseen` makes the step from one to the other,
where it is told how accurate the teacher is.

The record `edgekd.fidelity/1`:

    schema, tool, measured (ISO UTC), task
    model      file, sha256
    collapses  of the generator in the run
    probes     per name {n, agreement, interval (95 %, of the share on such images)}
    per_class  list of {class, n, agreement (null without images), interval} on held-out images; empty but for classes;
               with an estimate also `estimate`: the class's share, moved in logits as that of all is
    seldom     classes of which fewer than ten images were held out
    loss       null, or the distillation loss at the end of the run
    curve      null, or {intercept, slope}: see `edgekd.unseen`
    estimate   null, or {agreement, interval, promised (share of data sets for which it holds), accuracy (of the
               teacher, as told)} on unseen real images
    why        why there is no estimate, or null
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import edgekd
from edgekd import onnx_file, units
from edgekd.codes import Codes, from_codes, to_codes
from edgekd.errors import BadRun
from edgekd.inference import fed
from edgekd.quantize import Generated
from edgekd.run_folder import HeldOut, RunFolder, learned_alone, task_of, write_json
from edgekd.scoring import interval
from edgekd.tasks import choices
from edgekd.teachers import answers
from edgekd.unseen import LEARNED, Calibration, Curve, NoEstimate, logit

SCHEMA = "edgekd.fidelity/1"
COLLECTION = "edgekd.fidelities/1"
FEW = 10
_OTHERS = 1_000_003
"""Added to a seed, so that the images are none of those that calibrated or judged INT8."""
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


def fidelity(
    run: RunFolder,
    *,
    teacher: Path | None = None,
    calibration: Calibration | None = None,
    accuracy: float | None = None,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Measure a run's students on probes beside their teacher, and keep the records in its fidelity.json.

    Args:
        run: exported, with held-out images.
        teacher: where its file is now, if it is not where run.json says; without it only held-out images are a probe,
            for their answers were kept.
        calibration: for an estimate on real images.
        accuracy: of the teacher on real images; None: what the run was told.
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
    found, loss = {}, loss_at_end(run)
    for file in files.values():
        alike = {name: _answers(file, codes, held) == theirs[name] for name, codes in asked.items()}
        seen = _seen(alike["held_out"], held, record, loss, calibration, accuracy)
        found[file.name] = _told(file, record, alike, seen)
    write_json(run.fidelity_file, {"schema": COLLECTION, "models": found})
    return found


def _answers(path: Path, codes: Codes, held: HeldOut) -> Choices:
    images = fed(from_codes(codes, held.low, held.high), held.layout)
    return choices(answers.logits(path, images, held.task, layout=held.layout), held.task)


def _told(
    file: Path, record: Mapping[str, Any], alike: Mapping[str, NDArray[np.bool_]], seen: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "tool": {"name": "edgekd", "version": edgekd.__version__},
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "task": task_of(record),
        "model": {"file": file.name, "sha256": onnx_file.model_sha256(file)},
        "probes": {name: _share(one) for name, one in alike.items()},
        **seen,
    }


def _share(alike: NDArray[np.bool_]) -> dict[str, Any]:
    """Of questions that are answered alike, bool `[N, Q]`; those about one image are related."""
    return {"n": alike.size, "agreement": float(alike.mean()), "interval": list(interval(alike))}


def _seen(
    alike: NDArray[np.bool_],
    held: HeldOut,
    record: Mapping[str, Any],
    loss: float | None,
    calibration: Calibration | None,
    accuracy: float | None,
) -> dict[str, Any]:
    """What held-out images tell beyond one share: that of each class, classes hardly seen, the run's collapses, and
    what is to be expected of real images.
    """
    classes = _by_class(alike, choices(held.logits, held.task), held.logits.shape[1]) if held.task == "classes" else []
    seldom = [one["class"] for one in classes if one["n"] < FEW]
    found = {"per_class": classes, "seldom": seldom, "collapses": (record.get("progress") or {}).get("collapses")}
    if accuracy is None:
        accuracy = record["settings"].get("teacher_accuracy")
    curve, share = None, float(alike.mean())
    try:
        curve = _curve(alike, held, own=learned_alone(record))
        estimate, why = _estimated(curve, share, loss, calibration, accuracy, 1 / held.logits.shape[1]), None
    except NoEstimate as reason:
        estimate, why = None, str(reason)
    if estimate:
        _estimate_classes(classes, float(logit(estimate["agreement"]) - logit(share)))
    return found | {"loss": loss, "curve": curve.model_dump() if curve else None, "estimate": estimate, "why": why}


def _curve(alike: NDArray[np.bool_], held: HeldOut, *, own: bool) -> Curve:
    if held.task != "classes" or held.codes.dtype != np.uint8:
        raise NoEstimate("it is made for images of one class each")
    if own:
        raise NoEstimate("the held-out images are real ones: on others like them expect the same share")
    return Curve.fitted(held.logits, alike[:, 0])


def _estimated(
    curve: Curve,
    share: float,
    loss: float | None,
    calibration: Calibration | None,
    accuracy: float | None,
    chance: float,
) -> dict[str, Any]:
    if loss is None:
        raise NoEstimate("it is made for students that learned from soft labels, and whose losses were logged")
    if loss > LEARNED:
        told = f"its distillation loss came down to {loss:.2f}, it takes {LEARNED:g}"
        raise NoEstimate(f"the student has not learned well what it was shown: {told}; distil for longer")
    if calibration is None:
        raise NoEstimate("no calibration was given; see benchmarks/fidelity")
    if accuracy is None:
        raise NoEstimate("how often is the teacher right on them, as its maker says? Tell by --teacher-accuracy")
    if not chance < accuracy < 1:
        raise NoEstimate(f"a teacher is right more often than by chance, {units.write_share(chance)}, and not always")
    middle, *ends = calibration.estimate(curve.expected(accuracy), share, loss)
    return {"agreement": middle, "interval": ends, "promised": calibration.promised, "accuracy": accuracy}


def loss_at_end(run: RunFolder) -> float | None:
    """How far the student was from its teacher in the last tenth of a run, on what it learned from: Kullback-Leibler
    divergence times T^2; None where it learns otherwise, or where nothing was logged.
    """
    try:
        told = [line["soft_labels"] for line in run.metrics() if "soft_labels" in line]
    except BadRun:
        return None
    return float(np.mean(told[-max(1, len(told) // 10) :])) if told else None


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


def of_held_out(
    run: RunFolder,
    answer: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    calibration: Calibration | None = None,
) -> dict[str, Any]:
    """What can be said of a student that is not a file yet: its answers beside those that were kept of the teacher.

    Args:
        run: with held-out images.
        answer: float32 images `[N, C, H, W]` to logits.
        calibration: for an estimate on real images.

    Returns:
        As in a record `edgekd.fidelity/1`: the probe `held_out`, and what follows from it.

    Raises:
        BadRun: there are no held-out images.
    """
    held = run.held_out()
    theirs = choices(held.logits, held.task)
    alike = choices(answer(held.images()), held.task) == theirs
    return {
        "probes": {"held_out": _share(alike)},
        **_seen(alike, held, run.record(), loss_at_end(run), calibration, None),
    }


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
            one = record["estimate"]
            ends = f"{units.write_shares(one['interval'])} ({units.write_level(one['promised'])})"
            table.append([name, "real images, estimated", units.write_share(one["agreement"]), ends, ""])
    return table
