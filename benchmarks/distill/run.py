"""Every method on every row, side by side: same teacher, same student, same machine, same CPU time, several seeds.

    python benchmarks/distill/run.py [--rows …] [--methods …] [--seeds 3] [--cores 2] [--for MINUTES]

Methods take turns, seed by seed. Accuracy is that of the last state on the test images, measured after the run; it
chooses nothing. What was measured is written after every run into `benchmarks/results/distill.json`, and is not
measured again while teacher, recipe and minutes are the same: a long benchmark may be done in parts. `--for` begins no
run that would end later than that. Runs have one thread each and their time is counted in CPU time, so several go on
abreast, and what else the machine does makes them later but not worse.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
import data  # noqa: E402
from abreast import abreast  # noqa: E402
from first_light import edgekd, measured  # noqa: E402
from real import accuracy  # noqa: E402
from rows import ROWS, Row  # noqa: E402

from edgekd import __version__  # noqa: E402
from edgekd.networks import load_student  # noqa: E402
from edgekd.objectives import find_method  # noqa: E402
from edgekd.run_folder import RunFolder, write_json  # noqa: E402

RESULT, SCHEMA = ROOT / "benchmarks/results/distill.json", "edgekd.benchmark.distill/2"
REAL = "real images"
METHODS = ("edgekd", "dafl", "nayer-style", REAL)
WRITING = threading.Lock()
GLANCE = 2.0
"""Seconds between looks at whether a run has written a new state of its student."""


def fingerprint(row: Row, method: str, minutes: float) -> dict[str, Any]:
    """What decides a run, but for its seed and edgekd's code."""
    recipe = find_method("edgekd" if method == REAL else method).recipe.model_dump(exclude_defaults=True)
    told = {"teacher": row.teacher_sha256(), "folded": row.folded, "student": row.student}
    return told | {"cpu_minutes": minutes, "recipe": recipe}


@contextmanager
def _snapshots(run: RunFolder, folder: Path) -> Iterator[list[tuple[float, Path]]]:
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


def _accuracy(run: RunFolder, weights: Path, test: data.Split) -> float:
    """Of one state of a run's student, in torch."""
    record = run.record()
    return accuracy(load_student(record, weights), record["teacher"]["low"], record["teacher"]["high"], test)


def distilled(row: Row, method: str, seed: int, minutes: float, folder: Path) -> dict[str, Any]:
    """One run, from the teacher's file to the accuracy of the student's."""
    run, states = RunFolder(folder / "run"), folder / "states"
    shutil.rmtree(run.path, ignore_errors=True)
    states.mkdir(exist_ok=True)
    told = ["--method", method, "--student", row.student, "--minutes", minutes, "--clock", "cpu", "--seed", seed]
    with _snapshots(run, states) as taken:
        record, wall = edgekd("distill", row.teacher_file(folder), "--out", run.path, "--threads", 1, *told)
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
        "curve": [[seconds, _accuracy(run, weights, test)] for seconds, weights in taken],
    }


def yardstick(name: str, seed: int, minutes: float) -> dict[str, Any]:
    """The student on real images; see `real.py`."""
    started = time.perf_counter()
    command = [sys.executable, Path(__file__).with_name("real.py"), name, "--seed", str(seed)]
    done = subprocess.run([*command, "--minutes", str(minutes)], stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout) | {"seconds": round(time.perf_counter() - started, 1)}


def one(name: str, method: str, seed: int, minutes: float, folder: Path) -> dict[str, Any]:
    """What one run of one method gives on one row, or why it gives nothing."""
    if method == REAL:
        return yardstick(name, seed, minutes)
    try:
        return distilled(ROWS[name], method, seed, minutes, folder)
    except subprocess.CalledProcessError as error:  # it said why on stderr; losses that are not finite, for one
        return {"failed": error.returncode}


def known(name: str, method: str, minutes: float) -> dict[str, Any]:
    """What was measured of one method on one row before, as far as it still holds."""
    found = json.loads(RESULT.read_text())["rows"] if RESULT.exists() else {}
    before = found.get(name, {}).get("methods", {}).get(method, {})
    now = fingerprint(ROWS[name], method, minutes)
    return before if before.get("told") == now else {"told": now, "seeds": {}}


def enter(name: str, method: str, minutes: float, seed: int, found: dict[str, Any]) -> None:
    """Write what one run gave, beside what is there."""
    blank: dict[str, Any] = {"schema": SCHEMA, "rows": {}}
    record = known(name, method, minutes)
    record["seeds"] = dict(sorted((record["seeds"] | {str(seed): found}).items()))
    result = json.loads(RESULT.read_text()) if RESULT.exists() else blank
    result["host"] = {"machine": platform.machine(), "cores": os.cpu_count(), "edgekd": __version__}
    entry = result["rows"].setdefault(name, {"methods": {}})
    row = ROWS[name]
    entry |= {"title": row.title, "published": row.published, "reach": row.reach, "aim": row.aim}
    entry["methods"][method] = record
    write_json(RESULT, result)


def measure(name: str, method: str, seed: int, minutes: float, end: float) -> None:
    """One cell, unless it is known or would end too late."""
    if str(seed) in known(name, method, minutes)["seeds"] or time.monotonic() + 60 * minutes > end:
        return
    with tempfile.TemporaryDirectory() as folder:
        found = one(name, method, seed, minutes, Path(folder))
    with WRITING:
        enter(name, method, minutes, seed, found)
    print(name, method, seed, json.dumps(found), file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="how many runs at a time")
    parser.add_argument("--minutes", type=float, help="instead of each row's own, to try things out")
    parser.add_argument("--for", dest="most", type=float, default=float("inf"), help="minutes to go on for")
    given = parser.parse_args(arguments)
    end = time.monotonic() + 60 * given.most
    torch.set_num_threads(1)
    cells = itertools.product(range(given.seeds), given.rows, given.methods)
    minutes = {name: given.minutes or row.minutes for name, row in ROWS.items()}
    abreast((partial(measure, name, method, seed, minutes[name], end) for seed, name, method in cells), given.cores)
    subprocess.run([sys.executable, ROOT / "benchmarks/distill/plot.py"], check=True)
    subprocess.run([sys.executable, ROOT / "benchmarks/readme.py"], check=True)


if __name__ == "__main__":
    main()
