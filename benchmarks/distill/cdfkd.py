"""Several teachers, one student: shared headers, plain ones, the teachers' mean, one teacher; and what attention adds.

    python benchmarks/distill/cdfkd.py [--cases …] [--variants …] [--seeds 3] [--cores 2] [--for MINUTES]

Variants of a case have the same CPU time and, each at a width of its own, as nearly as can be the same parameters. "one
teacher" is the teacher with the best test accuracy, which favours it. Students are measured in their last state on the
test images, which choose nothing. Attention is learned afterwards from 1 % of the labelled training images; what it
gains is told with its interval: images right before and after are paired. Seeds take turns. Results go into
`benchmarks/results/cdfkd.json`, run by run; see `cells.py`. Teachers come from `benchmarks/teachers.py` (see CASES).
"""

from __future__ import annotations

import hashlib
import itertools
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
import data  # noqa: E402
from cells import Cell, Found, clocks, fill, options  # noqa: E402
from first_light import edgekd, spread  # noqa: E402
from rows import folded_copy  # noqa: E402

from edgekd.inference import logits  # noqa: E402
from edgekd.networks import build_student, parameters  # noqa: E402
from edgekd.networks.headers import Headers  # noqa: E402
from edgekd.objectives import find_method  # noqa: E402
from edgekd.run_folder import RunFolder  # noqa: E402

SHARE = 0.01
"""Of the training images, labelled: what attention is learned from."""
EXAMPLE = ROOT / "examples/teacher.onnx"


@dataclass(frozen=True)
class Case:
    """One task.

    Attributes:
        title, data: what people call it, and the set of its images.
        teachers: files in the teachers' folder, or anywhere.
        folded: those of them whose batch normalization is folded away first.
        student: by name.
        parameters: that every variant is to come near to.
        minutes: of each run, of CPU time on one thread.
        published, reach, aim: what others report, what edgekd is to reach and aims for (test accuracy).
    """

    title: str
    data: str
    teachers: tuple[str, ...]
    folded: tuple[str, ...]
    student: str
    parameters: int
    minutes: float
    published: str
    reach: float | None
    aim: float | None


TINY_TEACHERS = tuple(f"mnist-tiny-{k}.onnx" for k in range(3))
CASES = {
    "mnist-tiny": Case(
        *("MNIST, three LeNet-5 of 2-4-60 channels", "mnist", TINY_TEACHERS, ()),
        *("lenet5-tiny", 3483, 2, "–", None, None),
    ),
    "mnist-tiny-long": Case(
        *("MNIST, three such LeNet-5, six times as long", "mnist", TINY_TEACHERS, (), "lenet5-tiny", 3483, 12),
        *("CDFKD 93.57 ± 1.12, with attention 93.95 ± 0.99, DAFL 89.47 ± 5.61", 0.96, 0.974),
    ),
    "fashion": Case(
        *("Fashion-MNIST, a residual network, a MobileNetV3 folded, a LeNet-5", "fashion_mnist"),
        *((str(EXAMPLE), "mobile.onnx", "lenet.onnx"), ("mobile.onnx",), "cnn-small", 72_000, 4, "–", None, None),
    ),
    "cifar10": Case(  # on a GPU for hours; here it shows that the path is whole, with teachers of an epoch or two
        *("CIFAR-10, three residual networks, smoke test", "cifar10"),
        *(("cifar10.onnx", "cifar10-1.onnx", "cifar10-2.onnx"), (), "resnet18", 1_800_000, 2),
        *("CDFKD 89.71 ± 0.20, other networks", None, None),
    ),
}


@dataclass(frozen=True)
class Variant:
    """A way to use the teachers.

    Attributes:
        method, headers: of `edgekd distill`; without headers the student learns the mean.
        recipe: what else of its recipe is told.
        alone: whether one teacher takes part instead of all.
    """

    method: str
    headers: Literal["shared", "plain"] | None = None
    recipe: tuple[str, ...] = ()
    alone: bool = False


LOOK = ("temperature=2", "student_steps=30", "adversary=0", "children=0")
LOOK += ("prior_mixed=true", "prior_share=0.99", "prior_fall=0")
"""A student so small learns slowly, its steps cost little, and it has no room for what no image looks like: on training
images, procedural ones alone were worth more to it than together with what a generator makes, more so of the kind that
the teachers' normalization tells."""
PATIENT = (*LOOK, "prior=100000", "rivals=7")
"""Much depends on how it begins; the student that follows the teachers best was among the best on real images."""
TINY = ("distance=kl", "features=0", *LOOK, "prior=50000", "rivals=3")
"""The same of headers, which cannot follow every logit and feature, in less time."""
ALIKE = {"inherit": 0, "adversary": 1, "prior_share": 0.45, "prior_fall": 0.67}
"""Every student begins with random weights and learns from such images as the headers' recipe makes: what is compared
is the use of teachers."""
VARIANTS = {
    "shared headers": Variant("cdfkd-mfs", "shared"),
    "plain headers": Variant("cdfkd-mfs", "plain"),
    "plain headers, procedural images, best of four": Variant("cdfkd-mfs", "plain", TINY),
    "teachers' mean": Variant("edgekd"),
    "teachers' mean, procedural images, best of eight": Variant("edgekd", recipe=PATIENT),
    "one teacher": Variant("edgekd", alone=True),
}


def teacher_files(case: Case, made: Path, folder: Path) -> list[Path]:
    """The case's teachers, those to be folded as copies in `folder`."""
    return [folded_copy(made / name, folder) if name in case.folded else made / name for name in case.teachers]


def width_for(case: Case, headers: Headers | None, shape: tuple[int, int, int]) -> tuple[float, int]:
    """The width at which a student comes nearest to the case's parameters, and how many it then has."""

    def size(width: float) -> int:
        return parameters(build_student(case.student, width, shape, 10, headers=headers))

    widths = np.geomspace(0.05, 4, 200).round(4).tolist()
    first = next((place for place, width in enumerate(widths) if size(width) >= case.parameters), len(widths) - 1)
    near = min(widths[max(0, first - 1) : first + 1], key=lambda width: abs(size(width) - case.parameters))
    return near, size(near)


def right(model: Path, split: data.Split) -> np.ndarray:
    """Which images a model with values in [0, 1] gets right."""
    images, labels = split
    return logits(model, images.astype(np.float32) / np.float32(255)).argmax(axis=1) == labels


def teachers_accuracy(files: Sequence[Path], split: data.Split) -> dict[str, Any]:
    """Of each on the test images, and of the mean of their logits."""
    images, labels = split
    answers = [logits(file, images.astype(np.float32) / np.float32(255)) for file in files]
    each = [float((answer.argmax(axis=1) == labels).mean()) for answer in answers]
    return {"each": each, "mean of logits": float((np.mean(answers, axis=0).argmax(axis=1) == labels).mean())}


def interval(gain: np.ndarray) -> dict[str, Any]:
    """Mean and 95 % interval of paired differences (-1, 0 or 1 for each image)."""
    reach = 1.96 * float(gain.std(ddof=1)) / math.sqrt(len(gain))
    return {"gain": float(gain.mean()), "low": float(gain.mean()) - reach, "high": float(gain.mean()) + reach}


def attention(run: RunFolder, case: Case, seed: int, before: np.ndarray, folder: Path) -> dict[str, Any]:
    """What 1 % labelled training images change."""
    (images, labels), test = data.load(case.data)
    chosen = np.random.default_rng(seed).permutation(len(images))[: round(SHARE * len(images))]
    np.savez(folder / "real.npz", images=images[chosen], labels=labels[chosen])
    record, _ = edgekd("aggregate", run.path, "--samples", folder / "real.npz", "--seed", seed)
    edgekd("export", run.path)
    after = right(run.student_onnx, test)
    gain = interval(after.astype(float) - before.astype(float))
    told = {"samples": len(chosen), "accuracy": float(after.mean()), **gain}
    return told | {key: record[key] for key in ("loss", "shares")}


def distilled(name: str, variant: str, seed: int, clock: list[Any], made: Path, folder: Path) -> dict[str, Any]:
    """One run of one variant, and what its student is worth."""
    case, way = CASES[name], VARIANTS[variant]
    test, files = data.load(case.data)[1], teacher_files(case, made, folder)
    shape = test[0].shape[1:]
    width, _ = width_for(case, Headers(way.headers, len(files)) if way.headers else None, shape)
    if way.alone:
        files = [max(files, key=lambda file: right(file, test).mean())]
    run = RunFolder(folder / "run")
    told = ["--method", way.method, "--student", case.student, "--width", width]
    told += ["--headers", way.headers] if way.headers else []
    alike = (f"{name}={value}" for name, value in ALIKE.items())
    told += [part for setting in (*alike, *way.recipe) for part in ("--set", setting)]
    record, seconds = edgekd("distill", *files, "--out", run.path, "--seed", seed, "--threads", 1, *told, *clock)
    edgekd("export", run.path)
    before = right(run.student_onnx, test)
    found = {
        "accuracy": float(before.mean()),
        "parameters": record["student"]["parameters"],
        "width": width,
        "rounds": record["progress"]["step"],
        "seconds": round(seconds, 1),
        "cpu_seconds": record["progress"]["seconds"],
    }
    return found | ({"attention": attention(run, case, seed, before, folder)} if way.headers else {})


def fingerprint(name: str, variant: str, clock: list[Any], made: Path) -> dict[str, Any]:
    """What decides a run, but for its seed and edgekd's code."""
    case = CASES[name]
    digests = [hashlib.sha256((made / file).read_bytes()).hexdigest() for file in case.teachers]
    way = VARIANTS[variant]
    unread = {"unread": sorted(ALIKE)} if way.method == "edgekd" else {}
    recipe = find_method(way.method).recipe.model_dump(exclude_defaults=True, exclude=set(*unread.values()))
    told = {"teachers": digests, "parameters": case.parameters, "clock": clock, "method": way.method, "recipe": recipe}
    told |= unread
    return told | ({"set": list(way.recipe)} if way.recipe else {})


def summary(seeds: dict[str, Any]) -> dict[str, Any]:
    """Mean and deviation over seeds; of attention the gain too."""
    found: dict[str, Any] = {"accuracy": spread([one["accuracy"] for one in seeds.values()])}
    gains = [one["attention"] for one in seeds.values() if "attention" in one]
    if gains:
        found["attention"] = {key: spread([gain[key] for gain in gains]) for key in ("accuracy", "gain")}
        found["within noise"] = sum(gain["low"] <= 0 <= gain["high"] for gain in gains)
    return found


@dataclass(frozen=True)
class Collaboration:
    """Cases by variants; `made` is the folder of the teachers, `clock` how long a run is as options, by case."""

    made: Path
    clock: dict[str, list[Any]]
    path: Path = ROOT / "benchmarks/results/cdfkd.json"
    schema: str = "edgekd.benchmark.cdfkd/1"

    def measure(self, cell: Cell, folder: Path) -> Found:
        _, name, _, variant = cell.place
        return distilled(name, variant, cell.seed, self.clock[name], self.made, folder)

    def describe(self, cell: Cell, result: Found) -> None:
        case, entry = CASES[cell.place[1]], result["cases"][cell.place[1]]
        entry |= {"title": case.title, "published": case.published, "reach": case.reach, "aim": case.aim}
        with tempfile.TemporaryDirectory() as folder:
            files = teacher_files(case, self.made, Path(folder))
            entry["teachers"] = teachers_accuracy(files, data.load(case.data)[1])
        runs = entry["variants"][cell.place[3]]
        runs["summary"] = summary(runs["seeds"])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__, cases=CASES, variants=VARIANTS)
    parser.set_defaults(cases=["mnist-tiny", "fashion"])
    parser.add_argument("--steps", type=int, help="rounds instead of minutes, for a smoke test")
    parser.add_argument("--teachers", type=Path, default=ROOT / "runs/teachers", help="their folder")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    timed = clocks(given, {name: CASES[name].minutes for name in given.cases})
    clock = {name: told for name, (told, _) in timed.items()}
    cells = []
    for seed, name, variant in itertools.product(range(given.seeds), given.cases, given.variants):
        told = fingerprint(name, variant, clock[name], given.teachers)
        cells.append(Cell(("cases", name, "variants", variant), seed, told, timed[name][1]))
    fill(Collaboration(given.teachers, clock), cells, given.cores, given.most)


if __name__ == "__main__":
    main()
