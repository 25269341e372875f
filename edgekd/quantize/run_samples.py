"""The images of a run: what its student learned from, for calibration, and others to judge by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekd.quantize.samples import Generated, Joined, Source, Stored, as_fed, cut, real_samples
from edgekd.run_folder import RunFolder

JUDGED = 1024
"""How many generated images recipes and remedies are chosen by."""


def calibration_images(run: RunFolder, record: dict[str, Any], count: int) -> Source:
    """Images `[n, C, H, W]` like those the student learned from: procedural ones in the share of its recipe, generated
    ones.

    Calibrated on generated ones alone, INT8 cost a Fashion-MNIST student 0.6 points; with procedural ones 0.0 to 0.1,
    as on real images (measured by edgekd).

    Args:
        run: whose generator was exported.
        record: the contents of its run.json.
        count: how many.
    """
    settings, teacher = record["settings"], record["teacher"]
    wanted = round(count * settings.get("recipe", {}).get("prior_share", 0.0))
    codes = run.procedural((teacher["channels"], teacher["height"], teacher["width"]))[:wanted]
    generated = Generated(run.generator_onnx, count - len(codes), settings["seed"])
    # A fixed batch leaves some of the last ones out: of generated ones there are most.
    return Joined([Stored(codes, teacher["low"], teacher["high"]), generated])


def unseen_images(run: RunFolder, record: dict[str, Any]) -> Source:
    """Generated images `[n, C, H, W]` that nothing else is done with."""
    return Generated(run.generator_onnx, JUDGED, record["settings"]["seed"] + 1)


def with_real(
    generated: Source, real: Path, taken: int, low: float, high: float, layout: str = "NCHW"
) -> tuple[Source, Source]:
    """Real images before generated ones, and the real ones left over, or these same where none are.

    Args:
        generated: as they are fed.
        real: an `.npz`, see `edgekd.quantize.samples.real_samples`, of images `[n, C, H, W]`.
        taken: how many of the real ones.
        low, high: where uint8 0 and 255 go.
        layout: as they are fed.
    """
    own, rest = cut(real_samples(real, low, high), taken)
    return Joined([as_fed(own, layout), generated]), as_fed(rest if len(rest) else own, layout)
