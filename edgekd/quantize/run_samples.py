"""The images of a run: what its student learned from, for calibration, and others to judge by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from edgekd.codes import Bound, Codes, stored_as
from edgekd.errors import BadRun
from edgekd.inference import scores_name
from edgekd.quantize.observation import runs
from edgekd.quantize.samples import Generated, Joined, Source, Stored, as_fed, cut, real_samples
from edgekd.run_folder import RunFolder, learned_alone

JUDGED = 1024
"""How many generated images recipes and remedies are chosen by."""


Labels = NDArray[np.int64]
_POOL = 4
"""Times the images wanted that are drawn to choose from where every class is to have its share."""


def calibration_images(
    run: RunFolder, record: dict[str, Any], count: int, classify: Callable[[Source], Labels] | None = None
) -> Source:
    """Images `[n, C, H, W]` like those the student learned from: procedural ones in the share of its recipe, generated
    ones; where it learned from real samples, three quarters of those that the run kept at most.

    Calibrated on generated ones alone, INT8 cost a Fashion-MNIST student 0.6 points; with procedural ones 0.0 to 0.1,
    as on real images (measured by edgekd).

    Args:
        run: whose generator was exported.
        record: the contents of its run.json.
        count: how many.
        classify: where generated images are to be of every class alike, tells their classes, `[n]`.

    Raises:
        BadRun: it was to learn from real samples, and kept none.
    """
    settings, teacher = record["settings"], record["teacher"]
    if learned_alone(record):
        return _evenly_of(_kept_samples(run, record)[0], count, classify)
    wanted = round(count * settings.get("recipe", {}).get("prior_share", 0.0))
    codes = _procedural(run, teacher)[:wanted]
    left = count - len(codes)
    generated = Generated(run.generator_onnx, left, settings["seed"])
    if classify is not None:
        labels = classify(Generated(run.generator_onnx, _POOL * left, settings["seed"]))
        generated = Generated(run.generator_onnx, left, settings["seed"], evenly(labels, left))
    # A fixed batch leaves some of the last ones out: of generated ones there are most.
    return Joined([Stored(codes, teacher["low"], teacher["high"]), generated])


def evenly(labels: Labels, count: int) -> Labels:
    """Numbers of so many samples, ascending: of every class the first ones, as many of each as there are, up to its
    share.

    Args:
        labels: class of every sample, `[n]`; n is not below `count`.
        count: how many are wanted.
    """
    places = np.zeros(len(labels), np.int64)  # which of its class a sample is
    for one in np.unique(labels):
        places[labels == one] = np.arange((labels == one).sum())
    chosen: Labels = np.sort(np.argsort(places, kind="stable")[:count])
    return chosen


def classifier(model: ModelProto, fit: Callable[[Source], Source]) -> Callable[[Source], Labels]:
    """What tells the classes that a model sees in images.

    Args:
        model: answers `[n, K]`.
        fit: brings a source of images into the order that the model takes.
    """
    name = scores_name(model)

    def classify(source: Source) -> Labels:
        parts = [values[name].argmax(axis=1) for values in runs(model, fit(source), [name])]
        labels: Labels = np.concatenate(parts)
        return labels

    return classify


def _kept_samples(run: RunFolder, record: dict[str, Any]) -> tuple[Stored, Stored]:
    """The real samples that a run kept: those to calibrate on, and those to judge by."""
    teacher = record["teacher"]
    codes = _procedural(run, teacher)
    if not len(codes):
        what = "it was interrupted before it kept samples to calibrate on"
        raise BadRun(what, where=run.path, hint="go on with --resume, or export without --int8")
    whole = Stored(codes, teacher["low"], teacher["high"])
    return cut(whole, len(codes) - min(JUDGED, len(codes) // 4))


def _procedural(run: RunFolder, teacher: dict[str, Any]) -> Codes:
    shape = (teacher["channels"], teacher["height"], teacher["width"])
    return run.procedural(shape, kind=stored_as(teacher["layout"]))


def _evenly_of(stored: Stored, count: int, classify: Callable[[Source], Labels] | None) -> Stored:
    count = min(count, len(stored))
    if classify is None:
        return cut(stored, count)[0]
    return Stored(stored.images[evenly(classify(stored), count)], stored.low, stored.high)


def unseen_images(run: RunFolder, record: dict[str, Any]) -> Source:
    """Images `[n, C, H, W]` that nothing else is done with: generated, or of the real samples that a run learned from.

    Raises:
        BadRun: as `calibration_images`.
    """
    if learned_alone(record):
        return _kept_samples(run, record)[1]
    return Generated(run.generator_onnx, JUDGED, record["settings"]["seed"] + 1)


def with_real(
    generated: Source, real: Path, taken: int, low: Bound, high: Bound, layout: str = "NCHW"
) -> tuple[Source, Source]:
    """Real images before generated ones, and the real ones left over, or these same where none are.

    Args:
        generated: as they are fed.
        real: an `.npz`, see `edgekd.quantize.samples.real_samples`, of images `[n, C, H, W]`.
        taken: how many of the real ones.
        low, high: where uint8 0 and 255 go.
        layout: as they are fed.
    """
    own, rest = cut(real_samples(real, low, high, layout), taken)
    return Joined([as_fed(own, layout), generated]), as_fed(rest if len(rest) else own, layout)
