"""What folding batch normalization away costs, with the scale-free prior and without any, in equal time.

    python benchmarks/folded.py [--minutes 1.5] [--seeds 3] [--data ../shared/data/fashion_mnist.npz]

The example teacher as it is, and after onnxsim, which folds its BatchNormalization nodes into the convolutions like
torch's exporters. Takes turns, seed by seed. Accuracy is that of the last state on the 10,000 test images, and chooses
nothing.
Writes `benchmarks/results/folded.json`.
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

import onnx
import onnxsim
from first_light import ROOT, TEACHER, edgekd, spread, write_test_images

RESULT = ROOT / "benchmarks/results/folded.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data/fashion_mnist.npz")
    arguments = parser.parse_args()
    accuracies: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_test_images(arguments.data, folder / "test.npz")
        folded = folder / "folded.onnx"
        onnx.save(onnxsim.simplify(onnx.load(TEACHER))[0], folded)
        variants: dict[str, tuple[Path, list[str]]] = {
            "kept": (TEACHER, []),
            "folded": (folded, []),
            "folded, no prior": (folded, ["--set", "statistics=0"]),
        }
        for seed in range(arguments.seeds):
            for variant, (teacher, more) in variants.items():
                run = folder / f"{variant}-{seed}"
                edgekd("distill", teacher, "--out", run, "--minutes", arguments.minutes, "--seed", seed, *more)
                edgekd("export", run)
                evaluated, _ = edgekd("eval", run, "--data", folder / "test.npz")
                accuracies.setdefault(variant, []).append(evaluated["models"]["student.onnx"]["accuracy"])
    record = {
        "schema": "edgekd.benchmark.folded/1",
        "minutes": arguments.minutes,
        "host": {"machine": platform.machine(), "cores": os.cpu_count()},
        "accuracy_test": {variant: spread(values) | {"runs": values} for variant, values in accuracies.items()},
    }
    RESULT.write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record["accuracy_test"], indent=2))
    subprocess.run([sys.executable, ROOT / "benchmarks/readme.py"], check=True)


if __name__ == "__main__":
    main()
