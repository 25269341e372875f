"""What a student is worth whose teacher only answers: accuracy against queries, counted as a bill would count them.

    python benchmarks/distill/black_box.py [--cases …] [--seeds 3] [--cores 2] [--for MINUTES]

The teacher is a real ONNX Runtime session, asked through the command line; one image sent is one query, whatever it was
sent for. Accuracy is that of the last state on the test images, measured after the run; it chooses nothing. The curve
is of the student as checkpoints left it, and of the queries that were asked by then. What was measured goes into
`benchmarks/results/black_box.json` after every run, and is not measured again while teacher, recipe, queries and
minutes are the same. Teachers come from `benchmarks/teachers.py`. Runs have one thread each, count CPU time, and go on
abreast.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
import data  # noqa: E402
from abreast import abreast  # noqa: E402
from first_light import edgekd, measured, spread  # noqa: E402
from rows import EXAMPLE, TEACHERS  # noqa: E402
from run import snapshots, state_accuracy  # noqa: E402

from edgekd import __version__  # noqa: E402
from edgekd.objectives import find_method  # noqa: E402
from edgekd.run_folder import RunFolder, write_json  # noqa: E402

RESULT, SCHEMA = ROOT / "benchmarks/results/black_box.json", "edgekd.benchmark.black_box/1"
WRITING = threading.Lock()


@dataclass(frozen=True)
class Case:
    """One task.

    Attributes:
        title: what people call it.
        data: the set that its teacher was trained on, and that its students are measured on.
        teacher: the ONNX file.
        access, queries: how it answers, and how often at most.
        student: by name.
        published, reach, aim: what others report, and what edgekd is to reach and aims for (test accuracy).
        minutes: of CPU time.
    """

    title: str
    data: str
    teacher: Path
    access: str
    queries: int
    student: str
    published: str
    reach: float
    aim: float | None = None
    minutes: float = 10


MNIST, LENET = TEACHERS / "mnist-lenet.onnx", TEACHERS / "lenet.onnx"
IDEAL = "IDEAL about 96, 25 k counted, 1.26 M sent"
CASES = {
    "mnist-scores": Case("MNIST, LeNet-5", "mnist", MNIST, "scores", 100_000, "lenet5-half", "–", 0.97),
    "mnist-labels-25k": Case("MNIST, LeNet-5", "mnist", MNIST, "labels", 25_000, "lenet5-half", IDEAL, 0.93),
    "mnist-labels-250k": Case("MNIST, LeNet-5", "mnist", MNIST, "labels", 250_000, "lenet5-half", "–", 0.97),
    "fashion-lenet": Case(
        "Fashion-MNIST, LeNet-5", "fashion_mnist", LENET, "scores", 250_000, "lenet5", "–", 0.74, 0.82
    ),
    "fashion-cnn": Case(
        "Fashion-MNIST, residual network", "fashion_mnist", EXAMPLE, "scores", 250_000, "cnn-small", "–", 0.84, 0.89
    ),
    "fashion-labels": Case(
        *("Fashion-MNIST, LeNet-5", "fashion_mnist", LENET, "labels", 100_000, "lenet5"),
        *("IDEAL 83.9, not verified, more sent than counted", 0.72, 0.84),
    ),
}


def asked_by(run: RunFolder, seconds: float) -> int:
    """Queries that were counted when a run had trained for so long."""
    lines = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    return max((line["queries"] for line in lines if line["seconds"] <= seconds), default=0)


def distilled(case: Case, seed: int, clock: Sequence[object], folder: Path) -> dict[str, Any]:
    """One run, from the teacher's answers to the accuracy of the student's file."""
    run, states = RunFolder(folder / "run"), folder / "states"
    states.mkdir()
    told = ["--access", case.access, "--max-queries", case.queries, "--student", case.student, "--seed", seed, *clock]
    with snapshots(run, states) as taken:
        record, wall = edgekd("distill", case.teacher, "--out", run.path, "--threads", 1, *told)
    evaluated = measured(run.path, data.write_test(case.data, folder / "test.npz"))
    test = data.load(case.data)[1]
    return {
        "accuracy": evaluated["accuracy"],
        "agreement": evaluated["teacher"]["agreement"],
        "teacher_accuracy": evaluated["teacher"]["accuracy"],
        "queries": record["queries"]["asked"],
        "method": record["settings"]["method"],
        "parameters": record["student"]["parameters"],
        "rounds": record["progress"]["step"],
        "seconds": round(wall, 1),
        "cpu_seconds": record["progress"]["seconds"],
        "curve": [[asked_by(run, seconds), state_accuracy(run, weights, test)] for seconds, weights in taken],
    }


def fingerprint(case: Case, clock: Sequence[object]) -> dict[str, Any]:
    """What decides a run, but for its seed and edgekd's code."""
    recipe = find_method("student-guided").recipe.model_dump(exclude_defaults=True)
    told = {"teacher": hashlib.sha256(case.teacher.read_bytes()).hexdigest(), "student": case.student}
    return told | {"access": case.access, "queries": case.queries, "clock": list(clock), "recipe": recipe}


def known(name: str, told: dict[str, Any]) -> dict[str, Any]:
    """What was measured of a case before, as far as it still holds."""
    found = json.loads(RESULT.read_text())["cases"] if RESULT.exists() else {}
    before: dict[str, Any] = found.get(name, {})
    return before if before.get("told") == told else {"told": told, "seeds": {}}


def enter(name: str, told: dict[str, Any], seed: int, found: dict[str, Any]) -> None:
    """Write what was measured, beside what is there."""
    result = json.loads(RESULT.read_text()) if RESULT.exists() else {"schema": SCHEMA, "cases": {}}
    result["host"] = {"machine": platform.machine(), "cores": os.cpu_count(), "edgekd": __version__}
    case, entry = CASES[name], known(name, told)
    entry["seeds"][str(seed)] = found
    entry |= {"title": case.title, "published": case.published, "reach": case.reach, "aim": case.aim}
    for figure in ("accuracy", "agreement", "queries"):
        entry[figure] = spread([one[figure] for one in entry["seeds"].values()])
    result["cases"][name] = entry
    write_json(RESULT, result)


def measure(name: str, seed: int, clock: Sequence[object], minutes: float, end: float) -> None:
    """One run, unless it is known or would end too late."""
    told = fingerprint(CASES[name], clock)
    if str(seed) in known(name, told)["seeds"] or time.monotonic() + 60 * minutes > end:
        return
    with tempfile.TemporaryDirectory() as folder:
        found = distilled(CASES[name], seed, clock, Path(folder))
    with WRITING:
        enter(name, told, seed, found)
    print(name, seed, json.dumps(found), file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="how many runs at a time")
    parser.add_argument("--minutes", type=float, help="instead of each case's own")
    parser.add_argument("--steps", type=int, help="rounds instead of minutes, for a smoke test")
    parser.add_argument("--for", dest="most", type=float, default=float("inf"), help="minutes to go on for")
    given = parser.parse_args(arguments)
    end = time.monotonic() + 60 * given.most
    torch.set_num_threads(1)
    jobs = []
    for seed, name in itertools.product(range(given.seeds), given.cases):
        minutes = 0.0 if given.steps else given.minutes or CASES[name].minutes
        clock = ["--steps", given.steps] if given.steps else ["--minutes", minutes, "--clock", "cpu"]
        jobs.append(partial(measure, name, seed, clock, minutes, end))
    abreast(jobs, given.cores)


if __name__ == "__main__":
    main()
