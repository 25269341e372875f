"""Distillations that one process and several are compared by; `torchrun distil_several.py FOLDER` runs them all."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from test_distill import SMALL, settings

from edgekd import cli, journal, training
from edgekd.config import DistillSettings
from edgekd.distill import distill
from edgekd.run_folder import RunFolder

# Muon rounds to bfloat16; with Adam what differs is rounding in float32. Odd banks and parts are shared out unevenly.
# NAYER rewards disagreement only where both choose the same class: rounding may turn a choice, so it is left out.
ADAM = {"student_optimizer": "adam", "student_rate": 2e-3, "generator_width": 4, "prior": 301, "bank": 65}
DAFL = {"generator_batch": 64, "student_batch": 64, "latent": 8, "generator_width": 4, "generator_rate": 1e-3}
NAYER = {
    "generator_batch": 12,
    "generator_steps": 2,
    "adversary": 0.0,
    "student_optimizer": "adam",
    "student_rate": 2e-3,
}
PLAIN = {"student_optimizer": "sgd", "student_rate": 1e-4}
"""Adam's first steps are signs, and discriminators amplify what rounding makes of small gradients: at a rate of 1e-3 a
processor was met whose two processes were off by 2 % after three rounds, forty times as much as after two. At this one
they are off by 0.004 %."""
SLOW = ADAM | {"generator_rate": 4e-4}
"""An estimated gradient is a small difference over a small distance, and as uncertain as that: 0.2 % after five rounds
on that processor, at ten times this rate."""
ASKED = {"access": "scores", "gradient": "estimate", "directions": 2}
FRESH = ADAM | {"generator_batch": 30, "statistics": 0.0, **dict.fromkeys(("bank", "prior", "prior_share"), 0)}
CHOSEN = {
    "edgekd": settings(recipe=ADAM | {"children": 16, "doubted": 1.0}),
    "refined": settings(steps=3, recipe=ADAM | {"refined": 1, "refined_children": 2}),  # signs, which rounding may turn
    "committee": settings(student="2xcnn-small", width=0.25, recipe=ADAM),
    "dafl": settings(method="dafl", recipe={**DAFL, **dict.fromkeys(("bank", "prior", "prior_share"), 0)}),
    "nayer-style": settings(method="nayer-style", recipe={**NAYER, **dict.fromkeys(("prior", "prior_share"), 0)}),
    "cdfkd-mfs": settings(method="cdfkd-mfs", recipe=ADAM),
    "cdfkd": settings(method="cdfkd", recipe=FRESH),
    "teacher-class": settings(method="teacher-class", students=3, recipe=ADAM),
    "teacher-class-gan": settings(method="teacher-class-gan", chunks="balanced", steps=3, recipe=ADAM | PLAIN),
    "limited": settings(recipe=SLOW, **ASKED, max_queries=800),
    "spent": settings(recipe=SLOW, **ASKED, max_queries=320),  # in the midst of an estimate
}
TWICE = ("cdfkd-mfs", "cdfkd")
"""Methods with a header for every teacher, of which there are two."""
SAMPLED = "sampled"
"""The name of a run on real samples."""
INTERRUPTED = "resumed"
"""The name of a run that may lie in the folder, with the settings of "edgekd", to be taken up."""


def comparable() -> None:
    """A line for every round, and nothing rounded to bfloat16."""
    journal.LOG_SECONDS = 0.0
    training.bfloat16_is_fast = lambda _: False


def of_samples(folder: Path) -> DistillSettings:
    """The settings of a run on samples, which are written into the folder."""
    images = np.random.default_rng(0).integers(0, 256, (301, 1, 12, 12), dtype=np.uint8)
    np.savez(folder / "real.npz", images=images)
    return settings(method="teacher-class", samples=str(folder / "real.npz"), recipe=ADAM)


def distil_all(teacher: Path, folder: Path) -> None:
    """All of `CHOSEN`, and what was interrupted."""
    for name, chosen in CHOSEN.items():
        distill([teacher] * (1 + (name in TWICE)), chosen, RunFolder(folder / name))
    distill(teacher, of_samples(folder), RunFolder(folder / SAMPLED))
    if (folder / INTERRUPTED).is_dir():
        distill(teacher, CHOSEN["edgekd"], RunFolder(folder / INTERRUPTED), resume=True)


if __name__ == "__main__":
    comparable()
    here = Path(sys.argv[1])
    distil_all(here / "teacher.onnx", here)
    recipe = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    cli.main(["distill", str(here / "teacher.onnx"), "--steps", "1", *recipe])
