"""The labelled data that teachers are trained on and students are measured on. Distillation never sees any of it."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared/data"

Images = np.ndarray  # uint8 [N, C, H, W]
Labels = np.ndarray  # int64 [N]
Split = tuple[Images, Labels]


def _grey(name: str) -> Callable[[Path], tuple[Split, Split]]:
    def load(folder: Path) -> tuple[Split, Split]:
        with np.load(folder / f"{name}.npz", allow_pickle=False) as data:
            train, test = ((data[f"x_{s}"][:, None], data[f"y_{s}"].astype(np.int64)) for s in ("train", "test"))
        return train, test

    return load


def _cifar10(folder: Path) -> tuple[Split, Split]:
    """CIFAR-10 as JPEG, `train/CLASS/0000.jpg`; classes are numbered in alphabetical order."""
    found: dict[str, list[tuple[str, np.ndarray]]] = {"train": [], "test": []}
    with tarfile.open(folder / "cifar10-jpeg.tar.xz") as archive:
        for entry in archive:
            file = archive.extractfile(entry) if entry.name.endswith(".jpg") else None
            if file is not None:
                part, name, _ = entry.name.split("/")[-3:]
                found[part].append((name, np.asarray(Image.open(io.BytesIO(file.read())).convert("RGB"))))
    names = sorted({name for name, _ in found["train"]})

    def split(part: str) -> Split:
        images = np.stack([image for _, image in found[part]]).transpose(0, 3, 1, 2)
        return np.ascontiguousarray(images), np.array([names.index(name) for name, _ in found[part]])

    return split("train"), split("test")


DATA = {"mnist": _grey("mnist"), "fashion_mnist": _grey("fashion_mnist"), "cifar10": _cifar10}


@cache
def load(name: str, folder: Path = SHARED) -> tuple[Split, Split]:
    """Training and test split of a data set, each uint8 `[N, C, H, W]` and int64 `[N]`."""
    return DATA[name](folder)


def write_test(name: str, path: Path, folder: Path = SHARED) -> Path:
    """The test split as `edgekd eval` takes it."""
    images, labels = load(name, folder)[1]
    np.savez(path, images=images, labels=labels)
    return path
