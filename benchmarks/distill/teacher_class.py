"""Students side by side: how many of them, by which loss, on real samples or on generated ones.

    python benchmarks/distill/teacher_class.py [--cases …] [--seeds 3] [--cores 2] [--for MINUTES]

All students of a run together have at most 80,000 parameters, however many there are, as the published ones have
(68,000 to 88,000). They are LeNet-5s: as quick to train as so many can be; of colours, and of Fashion-MNIST without
data, small CNNs; of pixels U-Nets with at most a tenth of the teacher's parameters. Of text they are a twentieth of the
teacher, as published (167,000 to 200,000 for 4.15 million), since an embedding is most of each.
Students are measured in their last state on the test images, which choose nothing; of real samples only the images are
handed in, no label. What was measured goes into `benchmarks/results/teacher_class.json` after every run, and is not
measured again while teacher, recipe and minutes are the same. Teachers are the example's and what
`benchmarks/teachers.py mnist-class mnist-class-long` makes, `benchmarks/camvid.py` and `benchmarks/sentiment.py`. Runs
have one thread each, count CPU time, and go on abreast.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
import camvid  # noqa: E402
import data  # noqa: E402
import sentiment  # noqa: E402
from cells import Cell, Found, clocks, fill, options  # noqa: E402
from first_light import edgekd, spread  # noqa: E402

from edgekd.inference import logits  # noqa: E402
from edgekd.networks import build_student, parameters  # noqa: E402
from edgekd.networks.joined import Parts, contiguous  # noqa: E402
from edgekd.objectives import find_method  # noqa: E402
from edgekd.run_folder import RunFolder  # noqa: E402

EXAMPLE = str(ROOT / "examples/teacher.onnx")
STUDENT, MOST = "lenet5", 80_000
"""Of what kind students are, and how many parameters all of a run have together at most."""
WIDTH = {"lenet5": 256, "unet": 10, "text-cnn": 128, "cnn-small": 128}
"""Numbers, or channels, of the widest representation among the teachers."""


@dataclass(frozen=True)
class Case:
    """One task, one diet.

    Attributes:
        title, data: what people call it, and which of `SETS` it is.
        teacher: file in the teachers' folder, or anywhere.
        real: whether students learn from the training images, or from generated ones.
        method: by name.
        counts: how many students side by side, one run each, and how many minutes of CPU time that has on one thread:
            the more students, the fewer rounds in a minute.
        published: accuracy of the published students in percent, by count (one run each), and of their teacher.
        reach: test accuracy (of pixels mean IoU) to reach at every count that has no published figure to reach.
        student: of what kind students are.
        most: how many parameters all of a run have together at most.
        views: what else is made of real samples, by name.
    """

    title: str
    data: str
    teacher: str
    real: bool
    method: str
    counts: Mapping[int, float]
    published: dict[str, float]
    reach: float | None
    student: str = STUDENT
    most: int = MOST
    views: str = "none"


def _each(minutes: float) -> dict[int, float]:
    """All counts, in the order in which they are measured, should time be short."""
    return dict.fromkeys((4, 1, 8, 2), minutes)


CASES = {
    "mnist-real": Case(
        *("MNIST, real samples, feed-forward", "mnist", "mnist-class-long.onnx", True, "teacher-class"),
        *({4: 6, 1: 3, 8: 12, 2: 4}, {"teacher": 98.99, "1": 98.90, "2": 98.48, "4": 98.42, "8": 98.99}, None),
    ),
    "fashion-real": Case(
        *("Fashion-MNIST, real samples and their mirror images, feed-forward", "fashion_mnist", EXAMPLE),
        *(True, "teacher-class", {4: 7, 1: 4, 8: 9, 2: 5}),
        *({"teacher": 92.39, "1": 86.29, "2": 80.12, "4": 85.27, "8": 86.15}, 0.90, STUDENT, MOST, "mirrored"),
    ),
    "mnist-real-gan": Case(
        *("MNIST, real samples, adversarial", "mnist", "mnist-class.onnx", True, "teacher-class-gan", _each(20)),
        *({"teacher": 98.95, "1": 98.52, "2": 98.96, "4": 98.37}, None),
    ),
    "cifar10-real-gan": Case(  # a smoke test: the published students have a teacher of 89.92 % and a GPU
        *("CIFAR-10, real samples and their mirror images, adversarial, smoke test", "cifar10", "cifar10.onnx", True),
        *("teacher-class-gan", {4: 10}, {"teacher": 89.92, "1": 80.29, "2": 83.09, "4": 87.27, "8": 87.42}, 0.87),
        *("cnn-small", MOST, "mirrored"),
    ),
    "mnist": Case(
        *("MNIST, no data", "mnist", "mnist-class.onnx", False, "teacher-class", {4: 10}, {}, 0.97),
    ),
    "mnist-long": Case(
        *("MNIST, no data, the teacher trained for thrice as long", "mnist", "mnist-class-long.onnx", False),
        *("teacher-class", {4: 10}, {}, 0.97),
    ),
    "camvid-real": Case(
        *("CamVid 96x128, real samples and two cuts of each, feed-forward, mean IoU", "camvid", "camvid.onnx"),
        *(True, "teacher-class", {4: 20}, {}, 0.4207, "unet", 76_800, "cut"),
    ),
    "rt-polarity-real": Case(
        *("rt-polarity, real samples, feed-forward", "rt-polarity", "rt-polarity.onnx", True, "teacher-class"),
        *(_each(0.5), {}, 0.7385, "text-cnn", 155_000),
    ),
    "rt-polarity": Case(
        *("rt-polarity, no data", "rt-polarity", "rt-polarity.onnx", False, "teacher-class"),
        *({4: 2}, {}, None, "text-cnn", 155_000),
    ),
    "fashion": Case(
        *("Fashion-MNIST, no data, small CNNs", "fashion_mnist", EXAMPLE, False, "teacher-class"),
        *({4: 10}, {}, 0.85, "cnn-small"),
    ),
}


UNREAD = {"prior", "prior_share", "prior_fall", "children", "doubted"}
"""What of a recipe decides nothing where samples, or sequences of ids, are all there is to learn from."""


@dataclass(frozen=True)
class Set:
    """What a run is handed of a data set, and how its model is tested.

    Attributes:
        samples: the training images, uint8 `[N, C, H, W]`, or token ids `[N, T]`.
        tested: a model's figures on the test part, by name.
        shape: of an image.
        pixels: whether each pixel is answered.
        ids: tells how many token ids there are; None of images.
    """

    samples: Callable[[], np.ndarray]
    tested: Callable[[Path], dict[str, float]]
    shape: tuple[int, int, int] = (1, 28, 28)
    pixels: bool = False
    ids: Callable[[], int] | None = None


def _classes(name: str, shape: tuple[int, int, int] = (1, 28, 28)) -> Set:
    """Images of ten classes."""

    def tested(model: Path) -> dict[str, float]:
        images, labels = data.load(name)[1]
        chosen = logits(model, images.astype(np.float32) / np.float32(255)).argmax(axis=1)
        return {"accuracy": float((chosen == labels).mean())}

    return Set(lambda: data.load(name)[0][0], tested, shape)


SETS = {
    "mnist": _classes("mnist"),
    "fashion_mnist": _classes("fashion_mnist"),
    "cifar10": _classes("cifar10", (3, 32, 32)),
    "camvid": Set(
        lambda: camvid.split(camvid.DATA, "train")[0],
        lambda model: camvid.tested(model, camvid.DATA),
        camvid.SHAPE,
        pixels=True,
    ),
    "rt-polarity": Set(
        lambda: sentiment.split()["train"].tokens,
        lambda model: sentiment.tested(model, sentiment.DATA),
        ids=sentiment.words,
    ),
}


def worth(case: Case, model: Path) -> dict[str, float]:
    """Accuracy of a model with values in [0, 1] on the test images, of pixels mean IoU, of sentences F1."""
    return {name.removeprefix("test_"): value for name, value in SETS[case.data].tested(model).items()}


def samples_of(case: Case) -> dict[str, np.ndarray]:
    """The training images, uint8 `[N, C, H, W]`, or token ids `[N, T]`, by the name that `--samples` has for them."""
    own = SETS[case.data]
    samples = own.samples()
    if own.ids:
        return {"tokens": samples}
    views = VIEWS[case.views](samples)
    if views:  # shuffled, since those that a run has no time to ask about are the last ones
        samples = np.random.default_rng(0).permutation(np.concatenate([samples, *views]))
    return {"images": samples}


def _cuts(images: np.ndarray) -> list[np.ndarray]:
    """Each image mirrored, cut and lit as the teacher has seen it while it learned, twice."""
    torch.manual_seed(0)
    pixels, nothing = torch.from_numpy(images).float() / 255, torch.zeros(len(images), *images.shape[2:])
    return [(camvid.augmented(pixels, nothing)[0] * 255).round().byte().numpy() for _ in range(2)]


VIEWS = {"none": lambda _: [], "mirrored": lambda images: [images[..., ::-1]], "cut": _cuts}
"""Images `[N, C, H, W]` to more of them, by name."""


def distilled(case: Case, count: int, seed: int, clock: list[Any], made: Path, folder: Path) -> dict[str, Any]:
    """One run, and what its students are worth together."""
    diet: list[Any] = []
    if case.real:
        np.savez(folder / "real.npz", **samples_of(case))
        diet = ["--samples", folder / "real.npz"]
    run = RunFolder(folder / "run")
    told = ["--method", case.method, "--students", count, "--student", case.student, "--width", width_for(case, count)]
    told += ["--out", run.path, "--seed", seed, "--threads", 1]
    record, seconds = edgekd("distill", made / case.teacher, *told, *diet, *clock)
    exported, _ = edgekd("export", run.path)
    return {
        **worth(case, run.student_onnx),
        "parameters": record["student"]["parameters"],
        "smaller": record["teacher"]["parameters"] / record["student"]["parameters"],
        "bytes": {name: one["bytes"] for name, one in exported["files"].items()},
        "rounds": record["progress"]["step"],
        "seconds": round(seconds, 1),
        "cpu_seconds": record["progress"]["seconds"],
    }


def width_for(case: Case, count: int) -> float:
    """The largest width, in 64ths, at which so many students together stay below the case's most parameters."""
    own = SETS[case.data]
    grid = own.shape[1:] if own.pixels else None
    shares = Parts(contiguous(WIDTH[case.student], count), grid=grid)
    ids = own.ids() if own.ids else None

    def size(width: float) -> int:
        return parameters(build_student(case.student, width, own.shape, 10, grid, parts=shares, ids=ids))

    return max(step / 64 for step in range(4, 65) if size(step / 64) <= case.most)


def fingerprint(case: Case, clock: list[Any], made: Path) -> dict[str, Any]:
    """What decides a run, but for its seed, the number of students and edgekd's code."""
    unread = UNREAD if case.real or SETS[case.data].ids else set()
    recipe = find_method(case.method).recipe.model_dump(exclude_defaults=True, exclude=unread)
    digest = hashlib.sha256((made / case.teacher).read_bytes()).hexdigest()
    return {
        "teacher": digest,
        "method": case.method,
        "clock": clock,
        "recipe": recipe,
        "unread": sorted(unread),
        "student": [case.student, case.most],
        "views": case.views,
    }


@dataclass(frozen=True)
class Classes:
    """Cases by the number of students; `made` is the folder of the teachers."""

    made: Path
    path: Path = ROOT / "benchmarks/results/teacher_class.json"
    schema: str = "edgekd.benchmark.teacher_class/1"

    def measure(self, cell: Cell, folder: Path) -> Found:
        _, name, _, count = cell.place
        return distilled(CASES[name], int(count), cell.seed, cell.told["clock"], self.made, folder)

    def describe(self, cell: Cell, result: Found) -> None:
        case, entry = CASES[cell.place[1]], result["cases"][cell.place[1]]
        entry |= {"title": case.title, "published": case.published, "reach": case.reach}
        entry["teacher"] = json.loads((self.made / case.teacher).with_suffix(".json").read_text())
        runs = entry["students"][cell.place[3]]
        found = list(runs["seeds"].values())
        figures = [name for name in ("accuracy", "mean_iou", "f1") if name in found[0]]
        runs["summary"] = {name: spread([one[name] for one in found]) for name in figures}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__, cases=CASES)
    parser.add_argument("--steps", type=int, help="rounds instead of minutes, for a smoke test")
    parser.add_argument("--teachers", type=Path, default=ROOT / "runs/teachers", help="their folder")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    own = {(name, count): minutes for name in given.cases for count, minutes in CASES[name].counts.items()}
    timed = clocks(given, own)
    cells = [
        Cell(("cases", name, "students", str(count)), seed, fingerprint(CASES[name], clock, given.teachers), minutes)
        for seed in range(given.seeds)
        for (name, count), (clock, minutes) in timed.items()
    ]
    fill(Classes(given.teachers), cells, given.cores, given.most)


if __name__ == "__main__":
    main()
