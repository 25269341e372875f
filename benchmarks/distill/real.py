"""The yardstick: the same student, taught by the same teacher for the same CPU time, on the real training images.

    python benchmarks/distill/real.py ROW --seed 0 [--minutes 5]

It uses the default method's student steps and nothing of its generator. It is no method of edgekd: it needs the data.
Prints a line of JSON. Run by `run.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
import data  # noqa: E402
from rows import ROWS, Row  # noqa: E402

from edgekd.config import DistillSettings, Reach  # noqa: E402
from edgekd.machine import keep_freed_memory  # noqa: E402
from edgekd.networks import generator_of, student_of  # noqa: E402
from edgekd.objectives import find_method  # noqa: E402
from edgekd.provenance import new_record  # noqa: E402
from edgekd.settings import resolve_settings, suited  # noqa: E402
from edgekd.teachers.codes import from_codes  # noqa: E402
from edgekd.teachers.ledger import Ledger  # noqa: E402
from edgekd.teachers.lesson import lesson_of  # noqa: E402
from edgekd.teachers.open import opened_teachers  # noqa: E402
from edgekd.training import Training  # noqa: E402


def trained(row: Row, seed: int, minutes: float, images: torch.Tensor, folder: Path) -> Training:
    """A student taught on uint8 images `[N, C, H, W]`; asking the teacher about them is part of the time."""
    flags = {"student": row.student, "minutes": minutes, "seed": seed, "recipe": {"bank": len(images)}}
    settings = resolve_settings(flags)
    started = time.process_time()
    training = begun(row, settings, folder)
    for part in images.split(512):
        pixels = from_codes(part, training.low, training.high)
        with torch.no_grad(), training.autocast:
            training.bank.add(pixels, training.objective.target([teacher(pixels) for teacher in training.teachers]))
    while (fraction := (time.process_time() - started) / (60 * minutes)) < 1:
        training.begin_round(fraction)
        for _ in range(settings.recipe.student_steps):
            training.student_step(*training.bank.draw(settings.recipe.student_batch))
        training.step += 1
    return training


def begun(row: Row, settings: DistillSettings, folder: Path) -> Training:
    """The training of a row's student at its beginning, as `edgekd distill` would set it up."""
    keep_freed_memory()
    ledger = Ledger(folder / "ledger.sqlite", None)
    with opened_teachers([row.teacher_file(folder)], settings, ledger, Reach()) as opened:
        settings = suited(settings, [opened[0].teacher.signals])
        record, teacher = new_record(opened, settings), opened[0].teacher
    torch.manual_seed(settings.seed)
    objective = find_method(settings.method).objective(settings.recipe, lesson_of([teacher], None))
    return Training([teacher], student_of(record), generator_of(record), objective, settings.recipe)


def accuracy(student: nn.Module, low: float, high: float, test: data.Split) -> float:
    """Of a student whose images are between low and high."""
    images, labels = test
    student.eval()
    with torch.no_grad():
        shown = torch.from_numpy(images)
        pixels = from_codes(shown, low, high) if shown.dtype == torch.uint8 else shown
        found = [student(part).argmax(1).numpy() for part in pixels.split(500)]
    return float((np.concatenate(found) == labels).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", choices=ROWS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    row = ROWS[arguments.row]
    (images, _), test = data.load(row.data)
    with tempfile.TemporaryDirectory() as folder:
        minutes = arguments.minutes or row.minutes
        training = trained(row, arguments.seed, minutes, torch.from_numpy(images), Path(folder))
    found = accuracy(training.students.first, training.low, training.high, test)
    print(json.dumps({"accuracy": found, "steps": training.step}))


if __name__ == "__main__":
    main()
