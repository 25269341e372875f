"""Real images or token ids in an `.npz`, labelled or not, as people hand them in.

It never unpickles, and runs no model.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from edgekd import onnx_file
from edgekd.errors import BadData
from edgekd.tasks import KINDS, Task

Images = NDArray[np.uint8] | NDArray[np.float32]
Labels = NDArray[np.int64]
_IMAGES = "an .npz with images (uint8 or float32, [N, C, H, W], [N, H, W, C] or [N, H, W]; a table's float32 [N, F])"
_TOKENS = "an .npz with tokens (whole numbers, [N, T], the teacher's own ids)"
_LABELS = "labels (integers, [N], [N, K] for multilabel, or [N, h, w] for segmentation and mask)"


def read_labelled(path: Path, task: Task = "classes") -> tuple[Images, Labels]:
    """Images `[N, C, H, W]` or `[N, H, W, C]` (uint8 or finite float32), labels as the task has them; never unpickles.

    Raises:
        BadData: says what is wrong with the file.
    """
    arrays = read_arrays(Path(path), ("images", "labels"), f"{_IMAGES} and {_LABELS}")
    images = _checked_images(arrays["images"], path)
    return images, _checked_labels(arrays["labels"], len(images), task, path)


def read_samples(path: Path, task: Task = "classes", *, labelled: bool = True) -> tuple[Images, Labels | None]:
    """As `read_labelled`, but that labels may be missing; they are not looked at unless `labelled`."""
    optional = ("labels",) if labelled else ()
    arrays = read_arrays(Path(path), ("images",), f"{_IMAGES} and, if there are any, {_LABELS}", optional)
    images, labels = _checked_images(arrays["images"], path), arrays.get("labels")
    return images, None if labels is None else _checked_labels(labels, len(images), task, path)


def read_tokens(
    path: Path, length: int | None, ids: int, task: Task = "classes", *, labelled: bool = False
) -> tuple[NDArray[np.int32], Labels | None]:
    """Sequences of token ids, int32 `[N, T, 1, 1]` as edgekd holds them, and labels where they are wanted.

    Args:
        path: with `tokens`, or `images` of whole numbers.
        length: T; None where any will do.
        ids: how many there are: 0 to that less one.
        task: of the labels.
        labelled: they are needed; else they are not read.

    Raises:
        BadData: says what is wrong with the file.
    """
    allowed = f"{_TOKENS} and {_LABELS}" if labelled else _TOKENS
    arrays = read_arrays(Path(path), ("labels",) if labelled else (), allowed, ("tokens", "images"))
    tokens = arrays.get("tokens", arrays.get("images"))
    if tokens is None:
        raise BadData("no tokens in it", where=path, allowed=allowed)
    found = _checked_tokens(tokens, length, ids, path)
    return found, _checked_labels(arrays["labels"], len(found), task, path) if labelled else None


def _checked_tokens(tokens: NDArray[Any], length: int | None, ids: int, path: Path) -> NDArray[np.int32]:
    told = f"tokens are {tokens.dtype} of shape {list(tokens.shape)}"
    if tokens.dtype.kind not in "iu" or tokens.ndim != 2:
        raise BadData(told, where=path, allowed="whole numbers [N, T], token ids; the teacher takes no images")
    if length is not None and tokens.shape[1] != length:
        hint = f"pad or cut each to {length} ids, as the teacher's tokenizer does"
        raise BadData(told, where=path, allowed=f"[N, {length}]", hint=hint)
    if not len(tokens):
        raise BadData("it holds no sequences", where=path)
    wrong = np.argwhere((tokens < 0) | (tokens >= ids))
    if len(wrong):
        row, place = wrong[0]
        what = f"id {tokens[row, place]} at place {place} of sequence {row} is not in the vocabulary"
        raise BadData(what, where=path, allowed=f"0 to {ids - 1}")
    return tokens.astype(np.int32)[:, :, None, None]


def fitting(images: Images, shape: tuple[int, int, int], where: Path) -> Images:
    """Images `[N, C, H, W]` of a shape; channels may come last.

    Raises:
        BadData: of another size.
    """
    found = channels_first(images, shape)
    if found.shape[1:] != shape:
        what = f"images of shape {list(images.shape[1:])} do not fit the student"
        raise BadData(what, where=where, allowed=str(list(shape)))
    return found


def channels_first(images: Images, shape: tuple[int, int, int]) -> Images:
    """Images of shape C, H, W that have their channels last, with those first; others as they are."""
    last = (*shape[1:], shape[0])
    return images.transpose(0, 3, 1, 2) if images.shape[1:] == last != shape else images


def require_kind(images: NDArray[Any], path: Path) -> None:
    """Refuse images that are neither bytes nor float32.

    Raises:
        BadData: of another type.
    """
    if images.dtype not in (np.uint8, np.float32):
        raise BadData(f"images are {images.dtype}", where=path, allowed="uint8 or float32")


def _checked_images(images: NDArray[Any], path: Path) -> Images:
    require_kind(images, path)
    table = images.ndim == 2 and images.dtype == np.float32  # what uint8 rows mean, their numbers or codes, is not told
    if images.ndim not in (3, 4) and not table:
        allowed = "[N, C, H, W], [N, H, W, C] or [N, H, W], or float32 [N, F] of a table"
        raise BadData(f"images are {images.dtype} of shape {list(images.shape)}", where=path, allowed=allowed)
    if images.size == 0:
        raise BadData("it holds no images", where=path)
    if images.dtype == np.float32 and not np.isfinite(images).all():
        row = int(np.flatnonzero(~np.isfinite(images.reshape(len(images), -1)).all(1))[0])
        raise BadData(f"image {row} holds NaN or infinity", where=path)
    return images[:, :, None, None] if table else images if images.ndim == 4 else images[:, None]


def _checked_labels(labels: NDArray[Any], images: int, task: Task, path: Path) -> Labels:
    kind = KINDS[task]
    if labels.dtype.kind not in "iu" or labels.ndim != kind.axes:
        allowed = f"integers [{('N', 'N, K', 'N, h, w')[kind.axes - 1]}] for {task}"
        raise BadData(f"labels are {labels.dtype} of shape {list(labels.shape)}", where=path, allowed=allowed)
    if images != len(labels):
        raise BadData(f"{images} images but {len(labels)} labels", where=path)
    return labels


def read_arrays(
    path: Path, needed: Sequence[str], allowed: str, optional: Sequence[str] = ()
) -> dict[str, NDArray[Any]]:
    """Arrays of an `.npz` by name; never unpickled, and others are not read.

    Args:
        path: the file.
        needed: those that must be there.
        allowed: what to say that it should have been.
        optional: those that may be there.

    Raises:
        BadData: no such file, no such archive, or one of them is missing.
    """
    if not path.is_file():
        raise BadData("no such file", where=path, allowed=allowed)
    try:
        with path.open("rb") as file:  # numpy leaves a damaged archive open when it opens it itself
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise BadData("a single array", where=path, allowed=allowed)
            missing = [key for key in needed if key not in archive]
            if missing:
                found = ", ".join(archive) or "nothing"
                raise BadData(f"no {' and no '.join(missing)}; it holds {found}", where=path, allowed=allowed)
            return {key: archive[key] for key in (*needed, *optional) if key in archive}
    except (OSError, ValueError, EOFError, BadZipFile, zlib.error, RuntimeError, MemoryError) as error:
        pickled = "pickle" in str(error) or "Object arrays" in str(error)
        what = "not an .npz, or it holds pickled objects" if pickled else f"not readable: {onnx_file.first_line(error)}"
        raise BadData(what, where=path, allowed=allowed) from error
