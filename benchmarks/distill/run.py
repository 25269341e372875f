"""Every method on every row, side by side: same teacher, same student, same machine, same CPU time, several seeds.

    python benchmarks/distill/run.py [--rows …] [--methods …] [--seeds 3] [--cores 2] [--for MINUTES]

Methods take turns, seed by seed. Accuracy is that of the last state on the test images, measured after the run; it
chooses nothing. Results go into `benchmarks/results/distill.json`, run by run; see `cells.py`.
"""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
import data  # noqa: E402
from cells import Cell, Found, fill, options  # noqa: E402
from first_light import edgekd, measured  # noqa: E402
from real import accuracy  # noqa: E402
from rows import ROWS, Row  # noqa: E402

from edgekd.networks import load_student  # noqa: E402
from edgekd.objectives import find_method  # noqa: E402
from edgekd.run_folder import RunFolder  # noqa: E402

REAL = "real images"
UNREAD = ("adversary", "children", "doubted", "inherit", "prior", "prior_fall", "prior_share")
"""What the recipe says of images that nobody has to make, and of how students begin: on real ones, at random."""
METHODS = ("edgekd", "dafl", "nayer-style", REAL)
GLANCE = 2.0
"""Seconds between looks at whether a run has written a new state of its student."""


def fingerprint(row: Row, method: str) -> dict[str, Any]:
    """What decides a run, but for its time, its seed and edgekd's code."""
    unread = {"unread": list(UNREAD)} if method == REAL else {}
    of_method = find_method("edgekd" if method == REAL else method)
    recipe = of_method.recipe.model_dump(exclude_defaults=True, exclude=set(*unread.values()))
    told = unread | {"teacher": row.teacher_sha256(), "folded": row.folded, "student": row.student}
    return told | {"recipe": recipe}


@contextmanager
def snapshots(run: RunFolder, folder: Path) -> Iterator[list[tuple[float, Path]]]:
    """Copies of the student as each checkpoint leaves it, with the CPU seconds of training so far."""
    taken: list[tuple[float, Path]] = []
    ended = threading.Event()

    def watch() -> None:
        seen = 0
        while not ended.wait(GLANCE):
            if run.metrics_file.exists() and (now := run.student_weights.stat().st_mtime_ns) != seen:
                seen, copy = now, folder / f"{len(taken)}.safetensors"
                shutil.copy(run.student_weights, copy)
                lines = run.metrics_file.read_text().splitlines()
                taken.append((json.loads(lines[-1])["seconds"] if lines else 0.0, copy))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield taken
    finally:
        ended.set()
        watcher.join()


def state_accuracy(run: RunFolder, weights: Path, test: data.Split) -> float:
    """Of one state of a run's student, in torch."""
    record = run.record()
    return accuracy(load_student(record, weights), record["teacher"]["low"], record["teacher"]["high"], test)


def distilled(row: Row, method: str, seed: int, clock: Sequence[object], folder: Path) -> dict[str, Any]:
    """One run, from the teacher's file to the accuracy of the student's, with such flags of its time and threads."""
    run, states = RunFolder(folder / "run"), folder / "states"
    shutil.rmtree(run.path, ignore_errors=True)
    states.mkdir(exist_ok=True)
    told = ["--method", method, "--student", row.student, "--seed", seed, *clock]
    with snapshots(run, states) as taken:
        record, wall = edgekd("distill", row.teacher_file(folder), "--out", run.path, *told)
    evaluated = measured(run.path, data.write_test(row.data, folder / "test.npz"))
    test = data.load(row.data)[1]
    lines = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    return {
        "accuracy": evaluated["accuracy"],
        "agreement": evaluated["teacher"]["agreement"],
        "teacher_accuracy": evaluated["teacher"]["accuracy"],
        "parameters": record["student"]["parameters"],
        "seconds": round(wall, 1),
        "cpu_seconds": record["progress"]["seconds"],
        "rounds": record["progress"]["step"],
        "least_class_entropy": min(line["class_entropy"] for line in lines),
        "collapses": record["progress"]["collapses"],
        "curve": [[seconds, state_accuracy(run, weights, test)] for seconds, weights in taken],
    }


def yardstick(name: str, seed: int, minutes: float) -> dict[str, Any]:
    """The student on real images; see `real.py`."""
    started = time.perf_counter()
    command = [sys.executable, Path(__file__).with_name("real.py"), name, "--seed", str(seed)]
    done = subprocess.run([*command, "--minutes", str(minutes)], stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout) | {"seconds": round(time.perf_counter() - started, 1)}


class Comparison:
    """Rows by methods."""

    path, schema = ROOT / "benchmarks/results/distill.json", "edgekd.benchmark.distill/2"

    def measure(self, cell: Cell, folder: Path) -> Found:
        """What one run of one method gives on one row, or why it gives nothing."""
        _, name, _, method = cell.place
        if method == REAL:
            return yardstick(name, cell.seed, cell.minutes)
        clock = ("--minutes", cell.minutes, "--clock", "cpu", "--threads", 1)
        try:
            return distilled(ROWS[name], method, cell.seed, clock, folder)
        except subprocess.CalledProcessError as error:  # it said why on stderr; losses that are not finite, for one
            return {"failed": error.returncode}

    def describe(self, cell: Cell, result: Found) -> None:
        row = ROWS[cell.place[1]]
        told = {"title": row.title, "published": row.published, "reach": row.reach, "aim": row.aim}
        result["rows"][cell.place[1]] |= told


def main(arguments: Sequence[str] | None = None) -> None:
    given = options(__doc__, rows=ROWS, methods=METHODS).parse_args(arguments)
    torch.set_num_threads(1)
    cells = []
    for seed, name, method in itertools.product(range(given.seeds), given.rows, given.methods):
        minutes = given.minutes or ROWS[name].minutes
        told = fingerprint(ROWS[name], method) | {"cpu_minutes": minutes}
        cells.append(Cell(("rows", name, "methods", method), seed, told, minutes))
    fill(Comparison(), cells, given.cores, given.most)
    subprocess.run([sys.executable, ROOT / "benchmarks/distill/plot.py"], check=True)
    subprocess.run([sys.executable, ROOT / "benchmarks/readme.py"], check=True)


if __name__ == "__main__":
    main()
