"""What each ingredient of the default recipe is worth: the recipe with it left out, or with another put in.

    python benchmarks/distill/ablation.py [--rows …] [--minutes 6] [--seeds 3] [--cores 2] [--for MINUTES]

Variants take turns, seed by seed, with as many CPU minutes each (see `run.py`). Accuracy is that of the last state on
the test images, measured after the fact: the recipe was chosen by the *training* images of Fashion-MNIST and MNIST, and
nothing here changes it. Results go into `benchmarks/results/ablation.json`, run by run; see `cells.py`.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
import data  # noqa: E402
from cells import Cell, Found, fill, options  # noqa: E402
from first_light import edgekd, measured  # noqa: E402
from rows import ROWS  # noqa: E402

from edgekd.objectives import find_method  # noqa: E402

MINUTES = 6.0
VARIANTS: dict[str, dict[str, Any]] = {
    "the default": {},
    "a student that begins at random": {"inherit": 0},
    "a student that inherits and learns at the full rate": {"inherit": 1},
    "no procedural images": {"prior": 0, "prior_share": 0},
    "no batch-norm statistics, nor their prior": {"statistics": 0},
    "an adversary": {"adversary": 1},
    "no children of procedural images": {"children": 0},
    "procedural images ever fewer, from three quarters to a seventh": {"prior_share": 0.45, "prior_fall": 0.67},
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
    done = record["progress"]
    return {"accuracy": found["accuracy"], "rounds": done["step"], "collapses": done["collapses"]}


class Ablation:
    """Rows by variants."""

    path, schema = ROOT / "benchmarks/results/ablation.json", "edgekd.benchmark.ablation/3"

    def measure(self, cell: Cell, folder: Path) -> Found:
        _, name, variant = cell.place
        return tried(name, VARIANTS[variant], cell.seed, cell.minutes, folder)

    def describe(self, cell: Cell, result: Found) -> None:
        """Nothing more than is there."""


def main() -> None:
    parser = options(__doc__, rows=ROWS, variants=VARIANTS)
    parser.set_defaults(rows=["fashion-bn", "fashion-folded"])
    given = parser.parse_args()
    minutes = given.minutes or MINUTES
    told = {"cpu_minutes": minutes, "recipe": find_method("edgekd").recipe.model_dump(exclude_defaults=True)}
    trials = itertools.product(range(given.seeds), given.rows, given.variants)
    cells = [
        Cell(("rows", name, variant), seed, told | {"changes": VARIANTS[variant]}, minutes)
        for seed, name, variant in trials
    ]
    fill(Ablation(), cells, given.cores, given.most)
    subprocess.run([sys.executable, ROOT / "benchmarks/readme.py"], check=True)


if __name__ == "__main__":
    main()
