"""The default recipe in all the time in which a row's figure is to be reached: minutes of the wall clock, on two cores.

    python benchmarks/distill/two_cores.py [--rows …] [--seeds 3] [--for MINUTES]

One run after another, with two threads; the machine should have nothing else to do. `run.py` has the same rows in less
time, counted in CPU time and with every method. Accuracy is that of the last state on the test images, measured after
the run; it chooses nothing. Results go into `benchmarks/results/two_cores.json`, run by run; see `cells.py`.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import run
from cells import Cell, Found, fill, options
from rows import ROOT, ROWS

THREADS = 2


class Whole:
    """Rows by the default recipe alone."""

    path, schema = ROOT / "benchmarks/results/two_cores.json", "edgekd.benchmark.two-cores/1"

    def measure(self, cell: Cell, folder: Path) -> Found:
        clock = ("--minutes", cell.minutes, "--threads", THREADS)
        found = run.distilled(ROWS[cell.place[1]], "edgekd", cell.seed, clock, folder)
        del found["cpu_seconds"]  # they would be those of the wall clock
        return found

    def describe(self, cell: Cell, result: Found) -> None:
        """Nothing more than is there."""


def main() -> None:
    given = options(__doc__, rows=ROWS).parse_args()
    cells = []
    for seed, name in itertools.product(range(given.seeds), given.rows):
        minutes = given.minutes or ROWS[name].wall
        told = run.fingerprint(ROWS[name], "edgekd") | {"minutes": minutes, "threads": THREADS}
        cells.append(Cell(("rows", name), seed, told, minutes))
    fill(Whole(), cells, 1, given.most)
    subprocess.run([sys.executable, ROOT / "benchmarks/readme.py"], check=True)


if __name__ == "__main__":
    main()
