"""What a student is worth whose teacher only answers: accuracy against queries, counted as a bill would count them.

    python benchmarks/distill/black_box.py [--cases …] [--seeds 3] [--cores 2] [--minutes M] [--for MINUTES]

The teacher is a real ONNX Runtime session, asked through the command line; one image sent is one query, whatever it was
sent for. Accuracy is that of the last state on the test images, measured after the run; it chooses nothing. The curve
is of the student as checkpoints left it, and of the queries that were asked by then. Results go into
`benchmarks/results/black_box.json`; see `cells.py`. Teachers come from `benchmarks/teachers.py` and `forest.py`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
import data  # noqa: E402
from cells import Cell, Found, fill, options  # noqa: E402
from first_light import edgekd, measured, spread  # noqa: E402
from rows import EXAMPLE, KEPT, TEACHERS  # noqa: E402
from run import snapshots, state_accuracy  # noqa: E402

from edgekd.objectives import find_method  # noqa: E402
from edgekd.run_folder import RunFolder  # noqa: E402
from edgekd.settings import OF_LABELS, OF_ROWS  # noqa: E402


@dataclass(frozen=True)
class Case:
    """One task.

    Attributes:
        title: what people call it.
        data: the set that its teacher was trained on, and that its students are measured on.
        teacher: the ONNX file.
        access, queries: how it answers, and how often at most.
        student: by name.
        published, reach, aim: what others report, and what edgekd is to reach and aims for.
        flags: what else `distill` is told.
        figure: that which `reach` is of.
        minutes: of CPU time.
    """

    title: str
    data: str
    teacher: Path
    access: str
    queries: int
    student: str
    published: str
    reach: float | None
    aim: float | None = None
    flags: tuple[str, ...] = ()
    figure: str = "accuracy"
    minutes: float = 3


ALLOWED = 30
"""CPU minutes that a row may take by the plan: fifteen minutes on two cores. These take what a shared machine has."""

MNIST, LENET = KEPT / "mnist-lenet.onnx", KEPT / "lenet.onnx"
COMMITTEE = "4xlenet5-half"
"""Of MNIST's labels alone: it has 62,952 parameters, a LeNet-5 61,706."""
IDEAL = "IDEAL about 96, 25 k counted, 1.26 M sent"
CASES = {
    "mnist-scores": Case("MNIST, LeNet-5", "mnist", MNIST, "scores", 100_000, "lenet5-half", "–", 0.97),
    "mnist-labels-25k": Case("MNIST, LeNet-5", "mnist", MNIST, "labels", 25_000, COMMITTEE, IDEAL, 0.93, minutes=8),
    "mnist-labels-250k": Case("MNIST, LeNet-5", "mnist", MNIST, "labels", 250_000, COMMITTEE, "–", 0.97, minutes=12),
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
    "digits-forest": Case(
        *("digits as rows, 100 trees", "digit-rows", TEACHERS / "digits-forest.onnx", "scores", 20_000, "mlp"),
        *("–", 0.90, None, ("--input-range", "0,16"), "agreement", 0.6),
    ),
    "cifar10": Case(
        *("CIFAR-10, residual network", "cifar10", KEPT / "cifar10.onnx", "scores", 250_000, "cnn-small", "–"),
        *(None, None, (), "accuracy", 5),
    ),
    "letters": Case(
        *("letters of fonts, LeNet-5", "letters", TEACHERS / "letters-lenet.onnx", "scores", 100_000, "lenet5", "–"),
        *(None, None, (), "accuracy", 2),
    ),
}


def asked_by(run: RunFolder, seconds: float) -> int:
    """Queries that were counted when a run had trained for so long."""
    lines = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    return max((line["queries"] for line in lines if line["seconds"] <= seconds), default=0)


def distilled(case: Case, seed: int, minutes: float, folder: Path) -> dict[str, Any]:
    """One run, from the teacher's answers to the accuracy of the student's file."""
    run, states = RunFolder(folder / "run"), folder / "states"
    states.mkdir()
    told = ["--access", case.access, "--max-queries", case.queries, "--student", case.student, "--seed", seed]
    told += ["--minutes", minutes, "--clock", "cpu", *case.flags]
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


def fingerprint(case: Case, minutes: float) -> dict[str, Any]:
    """What decides a run, but for its seed and edgekd's code."""
    recipe = find_method("student-guided").recipe.model_dump(exclude_defaults=True)
    recipe |= {"of_labels": OF_LABELS} if case.access == "labels" else {}
    recipe |= {"of_rows": OF_ROWS} if case.student == "mlp" else {}
    told = {"teacher": hashlib.sha256(case.teacher.read_bytes()).hexdigest(), "student": case.student}
    told |= {"access": case.access, "queries": case.queries, "flags": list(case.flags)}
    return told | {"cpu_minutes": minutes, "recipe": recipe}


class BlackBoxes:
    """Cases, one under the other."""

    path, schema = ROOT / "benchmarks/results/black_box.json", "edgekd.benchmark.black_box/2"

    def measure(self, cell: Cell, folder: Path) -> Found:
        return distilled(CASES[cell.place[1]], cell.seed, cell.minutes, folder)

    def describe(self, cell: Cell, result: Found) -> None:
        case, entry = CASES[cell.place[1]], result["cases"][cell.place[1]]
        entry |= {"title": case.title, "published": case.published, "reach": case.reach, "aim": case.aim}
        entry |= {"allowed_minutes": ALLOWED, "figure": case.figure}
        for figure in ("accuracy", "agreement", "queries"):
            entry[figure] = spread([one[figure] for one in entry["seeds"].values()])


def main(arguments: Sequence[str] | None = None) -> None:
    given = options(__doc__, cases=CASES).parse_args(arguments)
    torch.set_num_threads(1)
    cells = []
    for seed, name in itertools.product(range(given.seeds), given.cases):
        minutes = given.minutes or CASES[name].minutes
        cells.append(Cell(("cases", name), seed, fingerprint(CASES[name], minutes), minutes))
    fill(BlackBoxes(), cells, given.cores, given.most)


if __name__ == "__main__":
    main()
