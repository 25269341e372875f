"""The teachers of the benchmarks beside the example's, trained here on labelled data.

    python benchmarks/teachers.py NAME… [--folder runs/teachers] [--data ../shared/data] [--missing] [--epochs N]

Writes `NAME.onnx` and `NAME.json` (parameters, epochs, accuracy of the last state on the 10,000 test images). Batch
normalization is kept where there is some; the benchmarks that want it folded fold it. Those of `benchmarks/kept` were
made so, with `--folder`: on another machine the same seed makes another network, and other students.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import data
import numpy as np
import torch
from torch import Tensor, nn

from edgekd.networks import STUDENTS, parameters
from edgekd.networks.students import LeNet5, MobileNetV3Small, ResNet
from edgekd.synthesis.motion import motions, moved

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "examples"), str(ROOT / "tests/conformance")]
from make_teacher import (  # noqa: E402
    STAGES,
    STEM,
    NormalizedTeacher,
    accuracy,
    descent_of,
    export,
    mirrored,
    train,
    trained,
)
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
class Plan:
    """How a teacher is built and trained."""

    build: Callable[[], nn.Module]
    epochs: int
    descent: Callable[[nn.Module], torch.optim.Optimizer]
    network: str
    bfloat16: bool = True  # depthwise convolutions and small matrices are faster without it
    data: str = "fashion_mnist"
    augment: Callable[[Tensor], Tensor] = mirrored
    seed: int = 0


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)


def cropped(images: Tensor) -> Tensor:
    """Moved by up to 4 pixels, and mirrored."""
    return moved(images, motions(len(images), 4, True), 4, True, 0.0)


def still(images: Tensor) -> Tensor:
    """As they are: a mirrored digit is another one."""
    return images


def tiny(seed: int) -> Plan:
    """CDFKD's teachers on MNIST: 2-4-60 channels, dense 30 (Hao et al., ICME 2021; models/lenet.py)."""
    build = STUDENTS["lenet5-tiny"][0]
    network = "LeNet-5 of 2-4-60 channels"
    return Plan(lambda: build((1, 28, 28), 10, 1.0), 20, adam, network, False, "mnist", still, seed)


def dense(data_set: str, augment: Callable[[Tensor], Tensor], epochs: int) -> Plan:
    """Teacher-Class Network's teacher of MNIST and Fashion-MNIST, 2,446,730 parameters (the authors' notebooks)."""

    def build() -> nn.Module:
        maps = (nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
        layers = (nn.Dropout(0.25), nn.Linear(9216, 256), nn.ReLU(), nn.Dropout(0.5), nn.Linear(256, 256), nn.ReLU())
        return nn.Sequential(*maps, *layers, nn.Dropout(0.5), nn.Linear(256, 10))

    return Plan(build, epochs, adam, "two convolutions, two dense layers of 256", True, data_set, augment)


def small(name: str, channels: int, classes: int, epochs: int, augment: Callable[[Tensor], Tensor] = still) -> Plan:
    """The example's residual network at half its width."""
    build = partial(ResNet, channels, classes, 0.5, STEM, STAGES)
    return Plan(build, epochs, descent_of, "residual network", True, name, augment)


TEACHERS = {
    "mnist-class": dense("mnist", still, 4),
    "mnist-class-long": dense("mnist", still, 12),
    "fashion-class": dense("fashion_mnist", mirrored, 20),
    **{f"mnist-tiny-{seed}": tiny(seed) for seed in range(3)},
    "long": Plan(lambda: ResNet(1, 10, 1.0, STEM, STAGES), 30, descent_of, "residual network, trained for 30 epochs"),
    "mobile": Plan(
        lambda: MobileNetV3Small(1, 10, 0.25, True), 8, adam, "MobileNetV3: depthwise convolutions, Hardswish", False
    ),
    "lenet": Plan(lambda: LeNet5(1, 10), 20, adam, "LeNet-5, never had batch normalization", False),
    "mnist-lenet": Plan(lambda: LeNet5(1, 10), 20, adam, "LeNet-5", False, "mnist", still),
    "cifar10": Plan(
        lambda: ResNet(3, 10, 1.0, STEM, STAGES), 45, descent_of, "residual network", True, "cifar10", cropped
    ),
    **{
        f"cifar10-{seed}": Plan(
            lambda: ResNet(3, 10, 1.0, STEM, STAGES), 30, descent_of, "residual network", True, "cifar10", cropped, seed
        )
        for seed in (1, 2)
    },
    "cifar10-lenet": Plan(lambda: LeNet5(3, 10), 10, adam, "LeNet-5", False, "cifar10"),
    "digits": small("digits", 1, 10, 30),
    "mnist-bn": small("mnist", 1, 10, 2),
    "letters": small("letters", 1, 26, 4),
    "greek": small("greek", 1, 24, 4),
    "signs": small("signs", 3, 20, 5),
    "sounds": small("sounds", 1, 10, 3),
    "streets": small("streets", 3, 6, 8, mirrored),
    "letters-lenet": Plan(lambda: LeNet5(1, 26), 8, adam, "LeNet-5", False, "letters", still),
    "vit": Plan(ViT, 8, adam, "vision transformer, layer normalization only", False),
}


def make(name: str, plan: Plan, folder: Path, shared: Path) -> None:
    """Train one teacher and write its file and its record."""
    torch.manual_seed(plan.seed)
    (pixels, labels), (test_pixels, test_labels) = data.load(plan.data, shared)
    images = torch.from_numpy(pixels).float() / 255
    mean, std = images.mean((0, 2, 3), keepdim=True), images.std((0, 2, 3), keepdim=True)
    model = NormalizedTeacher(plan.build(), mean, std).to(memory_format=torch.channels_last)
    path, shape = folder / f"{name}.onnx", tuple(images.shape[1:])
    classes, how = torch.from_numpy(labels), {"bfloat16": plan.bfloat16, "augment": plan.augment}
    seconds = trained(
        lambda: train(model, images, classes, plan.epochs, plan.descent(model), **how),
        lambda: export(model, path, shape),
    )
    record = {
        "network": plan.network,
        "data": plan.data,
        "parameters": parameters(model),
        "epochs": plan.epochs,
        "seconds": seconds,
        "test_accuracy": accuracy(path, test_pixels.astype(np.float32) / np.float32(255), test_labels),
    }
    path.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
    print(name, json.dumps(record), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=TEACHERS)
    parser.add_argument("--folder", type=Path, default=ROOT / "runs/teachers")
    parser.add_argument("--data", type=Path, default=data.SHARED, help="folder of the data sets")
    parser.add_argument("--missing", action="store_true", help="leave alone what was made before")
    parser.add_argument("--epochs", type=int, help="others than planned: few, for a smoke test")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in (n for n in arguments.names if not (arguments.missing and (arguments.folder / f"{n}.json").exists())):
        epochs = arguments.epochs or TEACHERS[name].epochs
        make(name, replace(TEACHERS[name], epochs=epochs), arguments.folder, arguments.data)


if __name__ == "__main__":
    main()
