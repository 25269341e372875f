"""A teacher that answers the class of every pixel of street scenes: a U-Net, trained on CamVid at 96x128.

    python benchmarks/camvid.py [--epochs 80] [--folder runs/teachers] [--data ../shared/data/camvid_96x128.npz]

Writes `camvid.onnx` and `camvid.json` (parameters, epochs, accuracy and mean IoU of the last state on the 233 test
images). Eleven classes; pixels that are none of them are not counted. The test images choose nothing, and neither do
those for validation: nothing looks at them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from edgekd.evaluate import evaluate
from edgekd.networks import parameters
from edgekd.networks.unet import UNet

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "examples"))
from make_teacher import NormalizedTeacher, export, one_cycle, trained  # noqa: E402

DATA = ROOT.parent / "shared/data/camvid_96x128.npz"
CLASSES, SHAPE, WIDTH = 11, (3, 96, 128), 0.625
BATCH, RATE, DECAY = 16, 3e-3, 0.05
CLOSEST = 0.5
"""The smallest share of an image's sides that is cut out and enlarged."""


def split(data: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images `[N, 3, 96, 128]` and labels `[N, 96, 128]`, both uint8, of "train" or "test"; 255 is not counted."""
    with np.load(data, allow_pickle=False) as arrays:
        images, labels = arrays[f"x_{part}"].transpose(0, 3, 1, 2), arrays[f"y_{part}"]
    return np.ascontiguousarray(images), np.where(labels < CLASSES, labels, 255).astype(np.uint8)


def write_test_images(data: Path, path: Path) -> None:
    """The 233 test images as `edgekd eval` takes them."""
    images, labels = split(data, "test")
    np.savez(path, images=images, labels=labels.astype(np.int64))


def augmented(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Each image mirrored or not, cut, enlarged and lit at random; its labels likewise but for the light."""
    n = len(images)
    side = CLOSEST + (1 - CLOSEST) * torch.rand(n)
    shift = (1 - side)[:, None] * (2 * torch.rand(n, 2) - 1)
    turn = torch.where(torch.rand(n) < 0.5, -1.0, 1.0)
    where = torch.zeros(n, 2, 3)
    where[:, 0, 0], where[:, 1, 1], where[:, :, 2] = side * turn, side, shift
    grid = functional.affine_grid(where, list(images.shape), align_corners=False)
    cut = functional.grid_sample(images, grid, align_corners=False, padding_mode="border")
    theirs = labels[:, None].float()
    found = functional.grid_sample(theirs, grid, "nearest", align_corners=False, padding_mode="border")
    light = 1 + 0.3 * (2 * torch.rand(n, 1, 1, 1) - 1)
    return (cut * light).clamp(0, 1).contiguous(memory_format=torch.channels_last), found[:, 0].long()


def weights(labels: Tensor) -> Tensor:
    """Of classes, by the root of how rare they are: without it poles and signs are hardly learned."""
    counts = labels[labels < CLASSES].bincount(minlength=CLASSES).float()
    rarity = counts.rsqrt()
    return rarity * counts.sum() / (rarity * counts).sum()


def train(model: torch.nn.Module, images: Tensor, labels: Tensor, epochs: int) -> None:
    """AdamW, a one-cycle rate; the last state is the result."""
    descent = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    rounds = len(images) // BATCH
    schedule = one_cycle(descent, epochs * rounds)
    rarity = weights(labels)
    model.train()
    for epoch in range(epochs):
        started = time.perf_counter()
        for index in torch.randperm(len(images)).split(BATCH)[:rounds]:
            x, y = augmented(images[index], labels[index])
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(x)
            loss = functional.cross_entropy(logits.float(), y, rarity, ignore_index=255)
            descent.zero_grad(set_to_none=True)
            loss.backward()
            descent.step()
            schedule.step()
        print(f"epoch {epoch + 1}/{epochs}  loss {loss.item():.3f}  {time.perf_counter() - started:.1f} s", flush=True)


def tested(path: Path, data: Path) -> dict[str, float]:
    """Accuracy and mean IoU on the test images, in ONNX Runtime."""
    with tempfile.TemporaryDirectory() as folder:
        write_test_images(data, Path(folder) / "test.npz")
        found = evaluate(path, Path(folder) / "test.npz", task="segmentation")
    return {"test_accuracy": found["accuracy"], "test_mean_iou": found["mean_iou"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--folder", type=Path, default=ROOT / "runs/teachers")
    parser.add_argument("--data", type=Path, default=DATA)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    pixels, classes = (torch.from_numpy(array) for array in split(arguments.data, "train"))
    images, labels = pixels.float() / 255, classes.long()
    mean, std = (figure(images, (0, 2, 3)).reshape(3, 1, 1) for figure in (torch.mean, torch.std))
    model = NormalizedTeacher(UNet(SHAPE, CLASSES, WIDTH, SHAPE[1:]), mean, std)
    model = model.to(memory_format=torch.channels_last)
    path = arguments.folder / "camvid.onnx"
    seconds = trained(lambda: train(model, images, labels, arguments.epochs), lambda: export(model, path, SHAPE))
    record = {
        "network": f"U-Net of width {WIDTH}, batch normalization",
        "parameters": parameters(model),
        "data": "CamVid at 96x128, 367 training images, 11 classes",
        "epochs": arguments.epochs,
        "seconds": seconds,
        **tested(path, arguments.data),
    }
    path.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
