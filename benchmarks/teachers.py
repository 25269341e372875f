"""Teachers that are hard on the prior for folded batch normalization, trained on Fashion-MNIST.

    python benchmarks/teachers.py NAME… [--folder runs/teachers] [--data ../shared/data/fashion_mnist.npz]

Writes `NAME.onnx` and `NAME.json` (parameters, epochs, accuracy of the last state on the 10,000 test images). Batch
normalization is kept where there is some; `benchmarks/folded.py` folds it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.networks import parameters
from edgekd.networks.students import LeNet5, MobileNetV3Small, ResNet

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "examples"), str(ROOT / "tests/conformance")]
from make_teacher import STAGES, STEM, NormalizedTeacher, accuracy, descent_of, export, train  # noqa: E402
from nets import Block  # noqa: E402


class ViT(nn.Module):
    """A vision transformer (Dosovitskiy et al., 2021) for 28x28: patches of 4, mean over tokens, 0.14 M."""

    def __init__(self, width: int = 64, heads: int = 4, depth: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 4, 4)
        self.places = nn.Parameter(0.02 * torch.randn(1, 49, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.places
        return self.head(self.norm(self.blocks(tokens)).mean(1))


@dataclass(frozen=True)
class Hard:
    """How a teacher is built and trained, and what makes it hard."""

    build: Callable[[], nn.Module]
    epochs: int
    descent: Callable[[nn.Module], torch.optim.Optimizer]
    why: str
    bfloat16: bool = True  # depthwise convolutions and small matrices are faster without it


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)


TEACHERS = {
    "long": Hard(lambda: ResNet(1, 10, 1.0, STEM, STAGES), 30, descent_of, "residual network, trained for 30 epochs"),
    "mobile": Hard(
        lambda: MobileNetV3Small(1, 10, 0.25, True), 8, adam, "MobileNetV3: depthwise convolutions, Hardswish", False
    ),
    "lenet": Hard(lambda: LeNet5(1, 10), 20, adam, "LeNet-5, never had batch normalization", False),
    "vit": Hard(ViT, 8, adam, "vision transformer, layer normalization only", False),
}


def make(name: str, images: Tensor, labels: Tensor, test: tuple[np.ndarray, np.ndarray], folder: Path) -> None:
    """Train one teacher and write its file and its record."""
    torch.manual_seed(0)
    hard = TEACHERS[name]
    model = NormalizedTeacher(hard.build(), float(images.mean()), float(images.std()))
    model = model.to(memory_format=torch.channels_last)
    path = folder / f"{name}.onnx"
    export(model, path)  # the exporter may refuse: better now than after training
    started = time.perf_counter()
    train(model, images, labels, hard.epochs, hard.descent(model), bfloat16=hard.bfloat16)
    export(model, path)
    record = {
        "network": hard.why,
        "parameters": parameters(model),
        "epochs": hard.epochs,
        "seconds": round(time.perf_counter() - started),
        "test_accuracy": accuracy(path, *test),
    }
    path.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
    print(name, json.dumps(record), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=TEACHERS)
    parser.add_argument("--folder", type=Path, default=ROOT / "runs/teachers")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data/fashion_mnist.npz")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with np.load(arguments.data, allow_pickle=False) as data:
        images, labels = torch.from_numpy(data["x_train"]), torch.from_numpy(data["y_train"]).long()
        test = (data["x_test"].astype(np.float32) / np.float32(255))[:, None], data["y_test"]
    for name in arguments.names:
        make(name, (images.float() / 255).unsqueeze(1), labels, test, arguments.folder)


if __name__ == "__main__":
    main()
