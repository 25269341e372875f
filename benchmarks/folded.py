"""What folding batch normalization away costs, with the scale-free prior and without any, in equal time.

    python benchmarks/folded.py [TEACHER.onnx…] [--minutes 1.5] [--seeds 3] [--data ../shared/data]

Each teacher as it is, where it keeps its BatchNormalization nodes, and after onnxsim, which folds them into the
convolutions like torch's exporters: with the prior, without it, and with it but without procedural images. Variants
take turns, seed by seed. Accuracy is that of the last state on the 10,000 test images, and chooses nothing.

Without a teacher it takes the example's; `benchmarks/teachers.py` makes harder ones. Writes what it measured into
`benchmarks/results/folded.json`, beside what is there of other teachers.
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

import data
import onnx
import onnxsim
from first_light import ROOT, TEACHER, default_recipe, edgekd, measured, spread

RESULT, SCHEMA = ROOT / "benchmarks/results/folded.json", "edgekd.benchmark.folded/3"
NO_PRIOR, NO_PROCEDURAL = ["--set", "statistics=0"], ["--set", "prior=0", "--set", "prior_share=0"]


def variants(teacher: Path, folder: Path) -> dict[str, tuple[Path, list[str]]]:
    """Name to teacher file and settings."""
    model = onnx.load(teacher)
    folded = folder / f"{teacher.stem}-folded.onnx"
    onnx.save(onnxsim.simplify(model)[0], folded)
    keeps = any(node.op_type == "BatchNormalization" for node in model.graph.node)
    kept: dict[str, tuple[Path, list[str]]] = {"kept": (teacher, [])} if keeps else {}
    return kept | {
        "prior": (folded, []),
        "no prior": (folded, NO_PRIOR),
        "prior, no procedural images": (folded, NO_PROCEDURAL),
    }


def measure(teacher: Path, minutes: float, seeds: int, whole_test: Path, folder: Path) -> dict[str, Any]:
    """Test accuracy of the student by variant, and of the teacher."""
    accuracies: dict[str, list[float]] = {}
    signals: dict[str, list[str]] = {}
    compared = variants(teacher, folder)
    for seed in range(seeds):
        for variant, (file, more) in compared.items():
            run = folder / f"{teacher.stem}-{variant}-{seed}"
            record, _ = edgekd("distill", file, "--out", run, "--minutes", minutes, "--seed", seed, *more)
            signals[variant] = record["signals"]
            accuracy = measured(run, whole_test)["accuracy"]
            accuracies.setdefault(variant, []).append(accuracy)
            print(teacher.stem, seed, variant, accuracy, file=sys.stderr, flush=True)
    made = json.loads(teacher.with_suffix(".json").read_text())
    return {
        "network": made["network"],
        "parameters": made["parameters"],
        "teacher_accuracy_test": made["test_accuracy"],
        "looks_folded": "statistics_prior" in signals["prior"],
        "minutes": minutes,
        "recipe": default_recipe(),
        "accuracy_test": {variant: spread(values) | {"runs": values} for variant, values in accuracies.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teachers", nargs="*", type=Path, default=[TEACHER])
    parser.add_argument("--minutes", type=float, default=1.5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=data.SHARED, help="folder of the data sets")
    arguments = parser.parse_args()
    known = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    found: dict[str, Any] = known["teachers"] if known.get("schema") == SCHEMA else {}
    with tempfile.TemporaryDirectory() as name:
        whole_test = data.write_test("fashion_mnist", Path(name) / "test.npz", arguments.data)
        for teacher in arguments.teachers:
            found[teacher.stem] = measure(teacher, arguments.minutes, arguments.seeds, whole_test, Path(name))
            host = {"machine": platform.machine(), "cores": os.cpu_count()}
            RESULT.write_text(json.dumps({"schema": SCHEMA, "host": host, "teachers": found}, indent=2) + "\n")
    subprocess.run([sys.executable, ROOT / "benchmarks/readme.py"], check=True)


if __name__ == "__main__":
    main()
