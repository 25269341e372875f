"""What is compared: a teacher, a student and the CPU minutes they have. Every method gets the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxsim

ROOT = Path(__file__).resolve().parent.parent.parent
TEACHERS = ROOT / "runs/teachers"
"""Where `benchmarks/teachers.py` leaves them."""
KEPT = ROOT / "benchmarks/kept"
"""Those of the rows below: trained again on another machine they are other networks, and no longer to be compared."""


def folded_copy(teacher: Path, folder: Path) -> Path:
    """A teacher whose batch normalization is folded into its convolutions, in `folder`, made if it is not there."""
    path = folder / f"{teacher.stem}-folded.onnx"
    if not path.exists():
        onnx.save(onnxsim.simplify(onnx.load(teacher))[0], path)
    return path


def comparable(told: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two runs of a row, by what decided them, had the same teacher and the same time."""
    return all(told[key] == other[key] for key in ("teacher", "cpu_minutes"))


@dataclass(frozen=True)
class Row:
    """One task.

    Attributes:
        title: what people call it.
        data: the set that its teacher was trained on, and that its students are measured on.
        teacher: the ONNX file.
        folded: its batch normalization is folded into the convolutions first, as torch's exporters do.
        student: by name.
        minutes: of CPU time of each run beside other methods: half of what two cores have, on CIFAR-10 a sixth.
        wall: minutes of the wall clock in which its figure is to be reached, on two cores.
        published, reach, aim: what others report, and what edgekd is to reach and aims for (test accuracy).
    """

    title: str
    data: str
    teacher: Path
    folded: bool
    student: str
    minutes: float
    wall: float
    published: str
    reach: float
    aim: float | None

    def teacher_file(self, folder: Path) -> Path:
        """The teacher as it is, or a folded copy in `folder`."""
        return folded_copy(self.teacher, folder) if self.folded else self.teacher

    def teacher_sha256(self) -> str:
        """Of the file before it is folded."""
        return hashlib.sha256(self.teacher.read_bytes()).hexdigest()


EXAMPLE = ROOT / "examples/teacher.onnx"
ROWS = {
    "mnist-lenet": Row(
        *("MNIST, LeNet-5 to LeNet-5-Half", "mnist", KEPT / "mnist-lenet.onnx", False, "lenet5-half", 5, 5),
        *("DAFL 98.20 (best of its epochs on test data)", 0.988, None),
    ),
    "fashion-bn": Row(
        *("Fashion-MNIST, CNN with batch norm to a quarter", "fashion_mnist", EXAMPLE, False, "auto", 10, 10),
        *("–", 0.905, 0.92),
    ),
    "fashion-folded": Row(
        *("Fashion-MNIST, CNN, batch norm folded away, to a quarter", "fashion_mnist", EXAMPLE, True, "auto", 10, 10),
        *("–", 0.905, None),
    ),
    "fashion-lenet": Row(
        *("Fashion-MNIST, LeNet-5 to LeNet-5-Half", "fashion_mnist", KEPT / "lenet.onnx", False, "lenet5-half", 10, 10),
        *("–", 0.78, 0.86),
    ),
    "cifar10": Row(
        *("CIFAR-10, small ResNet, folded, to half width", "cifar10", KEPT / "cifar10.onnx", True, "cnn-small", 10, 30),
        *("–", 0.68, 0.80),
    ),
}
