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

Images = np.ndarray  # uint8 [N, C, H, W], or float32 as the teacher takes them
Labels = np.ndarray  # int64 [N]
Split = tuple[Images, Labels]


def _grey(name: str) -> Callable[[Path], tuple[Split, Split]]:
    def load(folder: Path) -> tuple[Split, Split]:
        with np.load(folder / f"{name}.npz", allow_pickle=False) as data:
            train, test = ((data[f"x_{s}"][:, None], data[f"y_{s}"].astype(np.int64)) for s in ("train", "test"))
        return train, test

    return load


def _cifar10(folder: Path) -> tuple[Split, Split]:
    return _jpegs(folder, "train"), _jpegs(folder, "test")


def _jpegs(folder: Path, wanted: str) -> Split:
    """A part of CIFAR-10 as JPEG, `train/CLASS/0000.jpg`; classes are numbered in alphabetical order."""
    found: list[tuple[str, np.ndarray]] = []
    with tarfile.open(folder / "cifar10-jpeg.tar.xz") as archive:
        for entry in archive:
            part, name, _ = entry.name.split("/")[-3:] if entry.name.endswith(".jpg") else ("", "", "")
            file = archive.extractfile(entry) if part == wanted else None
            if file is not None:
                found.append((name, np.asarray(Image.open(io.BytesIO(file.read())).convert("RGB"))))
    names = sorted({name for name, _ in found})
    images = np.stack([image for _, image in found]).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(images), np.array([names.index(name) for name, _ in found])


def _digits(_: Path) -> tuple[Split, Split]:
    """The 1,797 digits of 8x8 that come with scikit-learn (Alpaydin and Kaynak, 1998), as 16x16; every fifth tests."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - of the `benchmarks` extra

    found = load_digits()
    images = np.rint(found.images * (255 / 16)).astype(np.uint8).repeat(2, axis=1).repeat(2, axis=2)[:, None]
    tests = np.arange(len(images)) % 5 == 0
    labels = found.target.astype(np.int64)
    return (images[~tests], labels[~tests]), (images[tests], labels[tests])


def _glyphs(name: str, training: int, test: int) -> Callable[[Path], tuple[Split, Split]]:
    def load(_: Path) -> tuple[Split, Split]:
        import glyphs  # noqa: PLC0415 - needs matplotlib

        alphabet = getattr(glyphs, name)
        return alphabet.images(alphabet.training, training, 0), alphabet.images(alphabet.test, test, 1)

    return load


def _sounds(_: Path) -> tuple[Split, Split]:
    from sounds import sounds  # noqa: PLC0415 - needs scipy

    return sounds(20_000, 0), sounds(4_000, 1)


def _streets(folder: Path) -> tuple[Split, Split]:
    """Patches of CamVid's scenes, 24x24, that are mostly sky, building, road, pavement, tree or car."""
    with np.load(folder / "camvid_96x128.npz", allow_pickle=False) as scenes:
        return (
            _patches(scenes["x_train"], scenes["y_train"], 2_500, 0),
            _patches(scenes["x_test"], scenes["y_test"], 600, 1),
        )


def _patches(scenes: np.ndarray, classes: np.ndarray, most: int, seed: int, side: int = 24, step: int = 8) -> Split:
    """At most so many of each class; six tenths of a patch are of its class."""
    window = ((side, side), (1, 2))
    cut = np.lib.stride_tricks.sliding_window_view(classes, *window)[:, ::step, ::step]
    images = np.lib.stride_tricks.sliding_window_view(scenes, *window)[:, ::step, ::step]
    random, wanted = np.random.default_rng(seed), (0, 1, 3, 4, 5, 8)
    places = [np.argwhere((cut == one).mean((-2, -1)) >= 0.6) for one in wanted]
    kept = [random.permutation(found)[:most] for found in places]
    labels = np.repeat(np.arange(len(wanted)), [len(found) for found in kept])
    order = random.permutation(len(labels))
    return np.ascontiguousarray(images[tuple(np.concatenate(kept)[order].T)]), labels[order].astype(np.int64)


def _digit_rows(_: Path) -> tuple[Split, Split]:
    """Rows of 64 features, float32 `[N, 64, 1, 1]`, as `benchmarks/forest.py` split them for the forest it grew."""
    with np.load(ROOT / "runs/teachers/digit-rows.npz", allow_pickle=False) as data:
        train, test = ((data[f"x_{s}"][:, :, None, None], data[f"y_{s}"].astype(np.int64)) for s in ("train", "test"))
    return train, test


DATA = {
    "mnist": _grey("mnist"),
    "fashion_mnist": _grey("fashion_mnist"),
    "cifar10": _cifar10,
    "digits": _digits,
    "digit-rows": _digit_rows,
    "letters": _glyphs("LETTERS", 26_000, 5_200),
    "greek": _glyphs("GREEK", 24_000, 4_800),
    "signs": _glyphs("SIGNS", 20_000, 4_000),
    "sounds": _sounds,
    "streets": _streets,
}


@cache
def load(name: str, folder: Path = SHARED) -> tuple[Split, Split]:
    """Training and test split of a data set, each uint8 `[N, C, H, W]` and int64 `[N]`."""
    return DATA[name](folder)


@cache
def images_to_test(name: str, folder: Path = SHARED) -> Images:
    """The images of the test split alone: those of CIFAR-10 take long to decode."""
    return _jpegs(folder, "test")[0] if name == "cifar10" else load(name, folder)[1][0]


def write_test(name: str, path: Path, folder: Path = SHARED) -> Path:
    """The test split as `edgekd eval` takes it."""
    images, labels = load(name, folder)[1]
    np.savez(path, images=images, labels=labels)
    return path
