"""Triples of teacher, student and data set: what a student does on probes, and what it does on real images.

    python benchmarks/fidelity/measure.py                     # those that are missing, one after the other
    python benchmarks/fidelity/measure.py --minutes 0.5 2 8   # students of other quality, too

Each is distilled without data, exported with INT8, measured on probes by `edgekd.fidelity`, and then on the test images
of the teacher's data set: the share on which student and teacher choose alike, labels are not used. The results are in
`benchmarks/results/fidelity.json`; `fit.py` fits the calibration on them.
"""

from __future__ import annotations

import argparse
import json
import sys
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
TEACHERS = ROOT / "runs/teachers"
PAIRS = {
    "fashion-bn": (ROOT / "examples/teacher.onnx", "fashion_mnist", ("auto", "lenet5-half")),
    "fashion-lenet": (TEACHERS / "lenet.onnx", "fashion_mnist", ("lenet5-half", "cnn-small")),
    "fashion-mobile": (TEACHERS / "mobile.onnx", "fashion_mnist", ("auto",)),
    "fashion-vit": (TEACHERS / "vit.onnx", "fashion_mnist", ("auto",)),
    "mnist-lenet": (TEACHERS / "mnist-lenet.onnx", "mnist", ("lenet5-half", "cnn-small")),
    "cifar10": (TEACHERS / "cifar10.onnx", "cifar10", ("auto", "resnet18")),
}
"""Teacher, data set, students; teachers come from `benchmarks/teachers.py`."""


def on_real_images(run: RunFolder, student: Path, teacher: Path, name: str) -> float:
    """Share of test images for which two models choose alike."""
    held, (images, _) = run.held_out(), data.load(name)[1]
    shown = fed(from_codes(images, held.low, held.high), held.layout)
    theirs, own = (answers.logits(path, shown, held.task, layout=held.layout) for path in (teacher, student))
    return agreement(own, theirs, held.task)


def triple(pair: str, student: str, minutes: float, seed: int, folder: Path) -> list[dict[str, Any]]:
    """One run: an entry for the float student and one for INT8."""
    teacher, name, _ = PAIRS[pair]
    run = edgekd.distill(
        teacher, out=folder / f"{pair}-{student}-{minutes:g}-{seed}", overwrite=True, student=student, seed=seed,
        minutes=minutes, clock="cpu", threads=1,
    )  # fmt: skip
    edgekd.export(run, int8=True)
    found = []
    for file, record in fidelity(run).items():
        shares = {probe: one["agreement"] for probe, one in record["probes"].items()}
        true = on_real_images(run, run.path / file, teacher, name)
        told = {"pair": pair, "dataset": name, "student": student, "minutes": minutes, "seed": seed, "file": file}
        found.append(told | {"teacher_sha256": onnx_file.model_sha256(teacher), "probes": shares, "true": true})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, nargs="+", default=[0.5, 2.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--pairs", nargs="+", choices=list(PAIRS), default=list(PAIRS))
    parser.add_argument("--folder", type=Path, default=ROOT / "runs/fidelity")
    told = parser.parse_args()
    kept = json.loads(RESULTS.read_text())["triples"] if RESULTS.is_file() else []
    known = {(one["pair"], one["student"], one["minutes"], one["seed"]) for one in kept}
    for seed in told.seeds:
        for minutes in told.minutes:
            for pair in told.pairs:
                for student in PAIRS[pair][2]:
                    if (pair, student, minutes, seed) in known or not PAIRS[pair][0].is_file():
                        continue
                    kept += triple(pair, student, minutes, seed, told.folder)
                    versions = {"edgekd": edgekd.__version__, "numpy": np.__version__}
                    write_json(RESULTS, {"schema": "edgekd.fidelity-triples/1", "versions": versions, "triples": kept})
                    print(f"{pair} {student} {minutes:g} min: {kept[-1]['probes']} true {kept[-1]['true']:.4f}")


if __name__ == "__main__":
    main()
