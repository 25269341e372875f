"""What each ingredient of the default recipe is worth: the recipe with it left out, or with another put in.

    python benchmarks/distill/ablation.py [--rows …] [--minutes 6] [--seeds 1] [--cores 2] [--for MINUTES]

Variants take turns, seed by seed, with as many CPU minutes each (see `run.py`). Accuracy is that of the last state on
the test images, measured after the fact: the recipe was chosen by the *training* images of Fashion-MNIST and MNIST, and
nothing here changes it. Results go into `benchmarks/results/ablation.json` one by one; what is there and was measured
with the same recipe stays.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
import data  # noqa: E402
from abreast import abreast  # noqa: E402
from first_light import edgekd, measured  # noqa: E402
from rows import ROWS  # noqa: E402

from edgekd.objectives import find_method  # noqa: E402
from edgekd.run_folder import write_json  # noqa: E402

RESULT, SCHEMA = ROOT / "benchmarks/results/ablation.json", "edgekd.benchmark.ablation/2"
VARIANTS: dict[str, dict[str, Any]] = {
    "the default": {},
    "no procedural images": {"prior": 0, "prior_share": 0},
    "no batch-norm statistics, nor their prior": {"statistics": 0},
    "no adversary": {"adversary": 0},
    "no entropy term": {"entropy": 0},
    "no one-hot term": {"one_hot": 0},
    "Adam for the student": {"student_optimizer": "adam", "student_rate": 2e-3},
    "constant rates": {"anneal": "none"},
    "T = 1": {"temperature": 1},
    "DAFL's output layer": {"output": "tanh"},
    "a wider generator (32)": {"generator_width": 32},
    "a shorter bank (4,000)": {"bank": 4000},
    "labels through a noisy layer, no entropy term": {"noisy": "true", "entropy": 0},
    "a generator born again every 100 rounds": {"generator_life": 100},
    "images moved by 2 pixels, the teacher asked anew": {"shift": 2},
    "images mirrored, the teacher asked anew": {"mirror": "true"},
    "student with running statistics beside the generator": {"frozen_student": "true"},
}


def tried(name: str, changes: dict[str, Any], seed: int, minutes: float, folder: Path) -> dict[str, Any]:
    """One run of one variant."""
    row, run = ROWS[name], folder / "run"
    told = [part for key, value in changes.items() for part in ("--set", f"{key}={value}")]
    settings = ["--student", row.student, "--minutes", minutes, "--clock", "cpu", "--seed", seed]
    record, _ = edgekd("distill", row.teacher_file(folder), "--out", run, "--threads", 1, *settings, *told)
    found = measured(run, data.write_test(row.data, folder / "test.npz"))
    return {"accuracy": found["accuracy"], "rounds": record["progress"]["step"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=["fashion-bn", "fashion-folded"])
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="how many runs at a time")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--for", dest="most", type=float, default=float("inf"), help="minutes to go on for")
    given = parser.parse_args()
    told = {"cpu_minutes": given.minutes, "recipe": find_method("edgekd").recipe.model_dump(exclude_defaults=True)}
    result = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    if result.get("told") != told:
        result = {"schema": SCHEMA, "told": told, "rows": {}}
    end = time.monotonic() + 60 * given.most
    writing = threading.Lock()

    def measure(seed: int, name: str, variant: str) -> None:
        runs = result["rows"].setdefault(name, {}).setdefault(variant, {})
        if str(seed) in runs or time.monotonic() + 60 * given.minutes > end:
            return
        with tempfile.TemporaryDirectory() as folder:
            found = tried(name, VARIANTS[variant], seed, given.minutes, Path(folder))
        with writing:
            runs[str(seed)] = found
            write_json(RESULT, result)
        print(name, variant, seed, found, file=sys.stderr, flush=True)

    trials = itertools.product(range(given.seeds), given.rows, VARIANTS)
    abreast((partial(measure, *trial) for trial in trials), given.cores)
    subprocess.run([sys.executable, ROOT / "benchmarks/readme.py"], check=True)


if __name__ == "__main__":
    main()
