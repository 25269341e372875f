"""How well a student answers the class of every pixel of street scenes, of which its distillation saw none.

    python benchmarks/segmentation.py [--minutes 12] [--seeds 3] [--data ../shared/data/camvid_96x128.npz]

The teacher is that of `benchmarks/camvid.py`, which comes first. Runs the command line a person would run, once per
seed, and writes `benchmarks/results/segmentation.json`: accuracy and mean IoU of the last state on the 233 test images,
after each run has ended, and for scale those of the best answer that does not look at the image. Runs have one thread
and count CPU time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from camvid import CLASSES, DATA, split, write_test_images
from first_light import ROOT, default_recipe, edgekd, spread

from edgekd.scoring import Tally

RESULT, SCHEMA = ROOT / "benchmarks/results/segmentation.json", "edgekd.benchmark.segmentation/1"
TEACHER = ROOT / "runs/teachers/camvid.onnx"
FIGURES = ("accuracy", "mean_iou", "agreement")


def one_seed(seed: int, minutes: float, teacher: Path, test: Path, folder: Path) -> dict[str, Any]:
    """Distil, export and evaluate once."""
    run = folder / f"seed{seed}"
    clock = ("--minutes", minutes, "--clock", "cpu", "--threads", 1)
    record, seconds = edgekd("distill", teacher, "--out", run, "--seed", seed, *clock)
    edgekd("export", run, "--int8")
    evaluated, _ = edgekd("eval", run, "--data", test)
    return {
        "seed": seed,
        "seconds": seconds,
        "rounds": record["progress"]["step"],
        "student": record["student"],
        "models": {name: figures(found) for name, found in evaluated["models"].items()},
    }


def figures(evaluation: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a record of `edgekd eval`."""
    return {
        "bytes": evaluation["model"]["bytes"],
        "accuracy": evaluation["accuracy"],
        "mean_iou": evaluation["mean_iou"],
        "agreement": evaluation["teacher"]["agreement"],
        "iou_of_classes": [found["iou"] for found in evaluation["per_class"]],
    }


def constant(data: Path) -> dict[str, Any]:
    """The best answer that is the same for every pixel of every test image: the class there is most of."""
    labels = split(data, "test")[1].reshape(1, -1)
    largest = int(np.bincount(labels[labels < CLASSES]).argmax())
    tally = Tally(np.full_like(labels, largest), labels, CLASSES, "segmentation")
    return {"class": largest, **tally.summary()}


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and deviation of every figure by model."""
    models = [run["models"] for run in runs]
    return {
        figure: {name: spread([found[name][figure] for found in models]) for name in models[0]} for figure in FIGURES
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", type=Path, default=TEACHER)
    parser.add_argument("--minutes", type=float, default=12.0, help="of CPU time")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=DATA)
    arguments = parser.parse_args()
    teacher: Path = arguments.teacher
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_test_images(arguments.data, folder / "test.npz")
        same = arguments.minutes, teacher, folder / "test.npz", folder
        runs = [one_seed(seed, *same) for seed in range(arguments.seeds)]
    record = {
        "schema": SCHEMA,
        "host": {"machine": platform.machine(), "cores": os.cpu_count()},
        "minutes": arguments.minutes,
        "recipe": default_recipe(),
        "teacher": json.loads(teacher.with_suffix(".json").read_text()) | {"bytes": teacher.stat().st_size},
        "constant": constant(arguments.data),
        "summary": summary(runs),
        "runs": runs,
    }
    RESULT.write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record["summary"], indent=2))
    subprocess.run([sys.executable, ROOT / "benchmarks/readme.py"], check=True)


if __name__ == "__main__":
    main()
