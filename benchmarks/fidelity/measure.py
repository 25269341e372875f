"""Triples of teacher, student and data set: what a student does on probes, and what it does on real images.

    python benchmarks/fidelity/measure.py                     # those that are missing, one after the other
    python benchmarks/fidelity/measure.py --minutes 15 --seeds 1  # better students, others
    python benchmarks/fidelity/measure.py --again             # no new ones: other probes, say, of the runs at hand

Each is distilled without data, exported with INT8, measured on probes by `edgekd.fidelity`, and then on the test images
of the teacher's data set: the share on which student and teacher choose alike, labels are not used. The results are in
`benchmarks/results/fidelity.json`; `fit.py` fits the calibration on them. It may be stopped, and goes on where it was.
Teachers come from `benchmarks/teachers.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import data  # noqa: E402
import numpy as np  # noqa: E402

import edgekd  # noqa: E402
from edgekd import onnx_file  # noqa: E402
from edgekd.codes import from_codes  # noqa: E402
from edgekd.fidelity import fidelity  # noqa: E402
from edgekd.inference import agreement, fed  # noqa: E402
from edgekd.run_folder import RunFolder, write_json  # noqa: E402
from edgekd.teachers import answers  # noqa: E402

RESULTS = ROOT / "benchmarks/results/fidelity.json"
TEACHERS, KEPT = ROOT / "runs/teachers", ROOT / "benchmarks/kept"
PAIRS = {
    "fashion-bn": (ROOT / "examples/teacher.onnx", "fashion_mnist", ("auto", "lenet5-half")),
    "mnist-lenet": (KEPT / "mnist-lenet.onnx", "mnist", ("lenet5-half", "cnn-small")),
    "cifar10": (KEPT / "cifar10.onnx", "cifar10", ("auto", "lenet5-half")),
    "digits": (TEACHERS / "digits.onnx", "digits", ("auto", "lenet5-half")),
    "letters": (TEACHERS / "letters.onnx", "letters", ("auto", "lenet5-half")),
    "mnist-bn": (TEACHERS / "mnist-bn.onnx", "mnist", ("auto",)),
    "greek": (TEACHERS / "greek.onnx", "greek", ("auto", "lenet5-half")),
    "signs": (TEACHERS / "signs.onnx", "signs", ("auto", "lenet5-half")),
    "sounds": (TEACHERS / "sounds.onnx", "sounds", ("auto", "lenet5-half")),
    "streets": (TEACHERS / "streets.onnx", "streets", ("auto", "lenet5-half")),
    "letters-lenet": (TEACHERS / "letters-lenet.onnx", "letters", ("cnn-small",)),
    "fashion-lenet": (KEPT / "lenet.onnx", "fashion_mnist", ("lenet5-half",)),
    "cifar10-lenet": (TEACHERS / "cifar10-lenet.onnx", "cifar10", ("cnn-small",)),
    "fashion-vit": (TEACHERS / "vit.onnx", "fashion_mnist", ("auto",)),
    "fashion-mobile": (TEACHERS / "mobile.onnx", "fashion_mnist", ("auto",)),
}
"""Teacher, data set, students."""
REAL = 5000
"""Test images that are looked at, at most: every second one of 10,000. A share then errs by half a per cent."""


@cache
def shown(name: str, low: float, high: float, layout: str) -> np.ndarray:
    """Test images as a model is fed them."""
    images = data.images_to_test(name)
    return fed(from_codes(images[:: -(-len(images) // REAL)], low, high), layout)


@cache
def theirs(teacher: Path, name: str, low: float, high: float, layout: str, task: str) -> np.ndarray:
    """A teacher's answers to the test images; they are those of all its students."""
    return answers.logits(teacher, shown(name, low, high, layout), task, layout=layout)


def on_real_images(run: RunFolder, student: Path, teacher: Path, name: str) -> float:
    """Share of test images for which two models choose alike."""
    held = run.held_out()
    how = held.low, held.high, held.layout
    own = answers.logits(student, shown(name, *how), held.task, layout=held.layout)
    return agreement(own, theirs(teacher, name, *how, held.task), held.task)


def finished(run: RunFolder) -> bool:
    return run.record_file.is_file() and run.record()["state"] == "finished" and run.student_onnx.is_file()


def distilled(run: RunFolder, teacher: Path, student: str, minutes: float, seed: int) -> None:
    """Make the run, if it is not there yet."""
    if finished(run):
        return
    edgekd.distill(
        teacher, out=run.path, overwrite=True, student=student, seed=seed, minutes=minutes, clock="cpu", threads=1
    )
    edgekd.export(run, int8=True)


def accuracy(teacher: Path) -> float:
    """Of a teacher on its test images, as its record tells: what a person who has only the file has been told, too."""
    record = teacher.with_suffix(".json")
    return float(json.loads(record.read_text())["test_accuracy"])


def measured(run: RunFolder, teacher: Path, pair: str, name: str, told: dict[str, Any]) -> list[dict[str, Any]]:
    """An entry for the float student and, if it is worth keeping, one for INT8."""
    found = []
    told |= {"teacher_sha256": onnx_file.model_sha256(teacher), "teacher_accuracy": accuracy(teacher)}
    for file, record in fidelity(run, teacher=teacher).items():
        shares = {probe: round(one["agreement"], 6) for probe, one in record["probes"].items()}
        true = round(on_real_images(run, run.path / file, teacher, name), 6)
        head = {"pair": pair, "dataset": name, **told, "file": file, "loss": record["loss"], "curve": record["curve"]}
        found.append(head | {"probes": shares, "true": true, "held_out": record["probes"]["held_out"]["n"]})
    return found


def wanted(told: argparse.Namespace) -> Iterator[tuple[str, str, float, int]]:
    """What is to be measured, so that a list which is cut short has something of every data set."""
    for seed, minutes, rank in product(told.seeds, told.minutes, range(2)):
        for pair in told.pairs:
            teacher, _, students = PAIRS[pair]
            if rank < len(students) and teacher.is_file():
                yield pair, students[rank], minutes, seed


def written(kept: list[dict[str, Any]]) -> None:
    """Keep what is there so far, and tell the last of it."""
    versions = {"edgekd": edgekd.__version__, "numpy": np.__version__}
    write_json(RESULTS, {"schema": "edgekd.fidelity-triples/3", "versions": versions, "triples": kept})
    last = kept[-1]
    print(f"{last['pair']} {last['student']}: {last['probes']} true {last['true']:.4f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, nargs="+", default=[2, 6], help="of CPU time")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--pairs", nargs="+", choices=list(PAIRS), default=list(PAIRS))
    parser.add_argument("--folder", type=Path, default=ROOT / "runs/fidelity")
    parser.add_argument("--again", action="store_true", help="measure the runs at hand anew; distil none")
    told = parser.parse_args()
    kept = json.loads(RESULTS.read_text())["triples"] if RESULTS.is_file() and not told.again else []
    known = {(one["pair"], one["student"], one["minutes"], one["seed"]) for one in kept}
    for pair, student, minutes, seed in (one for one in wanted(told) if one not in known):
        run = RunFolder(told.folder / f"{pair}-{student}-{minutes:g}-{seed}")
        if told.again and not finished(run):
            continue
        distilled(run, PAIRS[pair][0], student, minutes, seed)
        facts = {"student": student, "minutes": minutes, "seed": seed}
        kept += measured(run, PAIRS[pair][0], pair, PAIRS[pair][1], facts)
        written(kept)


if __name__ == "__main__":
    main()
