"""Where the images for calibration come from: generated, real, or both, handed out part by part.

No source holds more than a part of its images as float32: generated ones are made again on every pass, stored ones stay
in the type they were stored in. So memory does not grow with their number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from onnx import ValueInfoProto

from edgekd import onnx_file
from edgekd.codes import Bound, from_codes, vocabulary
from edgekd.errors import BadData, BadModel, EdgekdError
from edgekd.inference import ROWS, Floats, open_session
from edgekd.onnx_file import first_line
from edgekd.samples import read_arrays, read_tokens, require_kind

_PART = 64
_KEYS = "an .npz with images, uint8 or float32, [N, ...] as the model takes them; uint8 is brought into its range"


class Source(Protocol):
    """Images, the same ones on every pass."""

    def __len__(self) -> int:
        """How many."""

    def parts(self) -> Iterator[Floats]:
        """All of them, in order: float32 `[n, ...]` with n as small as suits the source."""


@dataclass(frozen=True)
class Stored:
    """Images in memory.

    Attributes:
        images: float32 as they are fed, or codes.
        low, high: where codes 0 and 255 go.
    """

    images: NDArray[Any]
    low: Bound = 0.0
    high: Bound = 1.0

    def __len__(self) -> int:
        return len(self.images)

    def parts(self) -> Iterator[Floats]:
        for start in range(0, len(self.images), _PART):
            part = self.images[start : start + _PART]
            yield from_codes(part, self.low, self.high) if part.dtype.kind in "iu" else part


class Generated:
    """Images of an exported generator for standard normal latents; equal arguments give equal images.

    Args:
        generator: a file with input `latent` `[N, z]` and output `image` `[N, C, H, W]`.
        count: how many images.
        seed: of numpy's generator, which draws the latents.
        chosen: which of the images drawn are handed out, by number, ascending; all by default.

    Raises:
        CannotLoad: ONNX Runtime refuses the file.
        BadModel: it is not such a generator.
    """

    def __init__(self, generator: Path, count: int, seed: int, chosen: NDArray[np.int64] | None = None) -> None:
        self._path, self._count, self._seed, self._chosen = Path(generator), count, seed, chosen
        self._session = open_session(self._path)
        entry, leaving = self._session.get_inputs(), self._session.get_outputs()
        if (
            [e.name for e in entry] != ["latent"]
            or "image" not in [o.name for o in leaving]
            or len(entry[0].shape) != 2
        ):
            allowed = "input latent [N, z], output image [N, C, H, W]"
            raise BadModel("not a generator", where=generator, allowed=allowed)
        self._size = entry[0].shape[1]

    def __len__(self) -> int:
        return self._count

    def parts(self) -> Iterator[Floats]:
        """Raises EdgekdError when ONNX Runtime fails while running it."""
        last = self._count if self._chosen is None else int(self._chosen[-1]) + 1 if len(self._chosen) else 0
        rng = np.random.default_rng(self._seed)
        for start in range(0, last, _PART):
            latents = rng.standard_normal((min(_PART, last - start), self._size), dtype=np.float32)
            wanted = slice(None) if self._chosen is None else _within(self._chosen, start, start + len(latents))
            if len(latents[wanted]):
                yield self._images(latents)[wanted]

    def _images(self, latents: Floats) -> Floats:
        try:
            return np.asarray(self._session.run(["image"], {"latent": latents})[0], np.float32)
        except Exception as error:
            raise EdgekdError(f"the generator failed: {first_line(error)}", where=self._path) from error


def _within(chosen: NDArray[np.int64], start: int, end: int) -> NDArray[np.int64]:
    first, last = np.searchsorted(chosen, (start, end))
    return chosen[first:last] - start


@dataclass(frozen=True)
class Joined:
    """Several sources, one after the other."""

    sources: Sequence[Source]

    def __len__(self) -> int:
        return sum(map(len, self.sources))

    def parts(self) -> Iterator[Floats]:
        for source in self.sources:
            yield from source.parts()


@dataclass(frozen=True)
class Arranged:
    """A source's images with their axes in another order, or in one row.

    Attributes:
        source: of images `[n, ...]`.
        order: of the axes; None: all but the first in one row.
    """

    source: Source
    order: tuple[int, ...] | None

    def __len__(self) -> int:
        return len(self.source)

    def parts(self) -> Iterator[Floats]:
        for part in self.source.parts():
            moved = part.reshape(len(part), -1) if self.order is None else part.transpose(self.order)
            yield np.ascontiguousarray(moved)


def as_fed(source: Source, layout: str) -> Source:
    """A source `[n, C, H, W]` as a file of that layout takes it."""
    if layout in ROWS:
        return Arranged(source, None)
    return Arranged(source, (0, 2, 3, 1)) if layout == "NHWC" else source


def arranged(source: Source, entry: ValueInfoProto) -> Source:
    """A source as an input takes it: as it is, channels moved last or first, or in one row, whichever fits first.

    Raises:
        BadData: none does.
    """
    wanted, first = onnx_file.dimensions(entry), next(batches(source, 1))
    orders = [(0, 1, 2, 3), (0, 2, 3, 1), (0, 3, 1, 2)] if first.ndim == 4 else [tuple(range(first.ndim))]
    for order in orders:
        given = [first.shape[axis] for axis in order[1:]]
        if wanted is None or _fits(wanted[1:], given):
            return Arranged(source, order) if order != orders[0] else source
    if wanted is not None and len(wanted) == 2 and wanted[1] in (None, first.size):
        return Arranged(source, None)
    given = list(first.shape[1:])
    raise BadData(f"images of shape {given} do not fit input {entry.name!r}", where="samples", allowed=str(wanted))


def _fits(wanted: Sequence[int | None], given: Sequence[int]) -> bool:
    return len(wanted) == len(given) and all(w in (None, g) for w, g in zip(wanted, given, strict=True))


def cut(stored: Stored, count: int) -> tuple[Stored, Stored]:
    """So many of the images, and the rest."""
    parts = stored.images[:count], stored.images[count:]
    return Stored(parts[0], stored.low, stored.high), Stored(parts[1], stored.low, stored.high)


def noise_like(source: Source, count: int, seed: int = 0) -> Source:
    """Images of uniform noise, of the shape of a source's and between the least and the largest of its values."""
    low = high = None
    for part in source.parts():
        low = min(part.min(), part.min() if low is None else low)
        high = max(part.max(), part.max() if high is None else high)
        shape = part.shape[1:]
    images = np.random.default_rng(seed).uniform(low or 0.0, high or 0.0, (count, *shape))
    return Stored(images.astype(np.float32))


def batches(source: Source, size: int, *, whole: bool = False) -> Iterator[Floats]:
    """A source's images in batches of a size; the last one is shorter, or left out where only whole ones will do."""
    waiting: list[Floats] = []
    held = 0
    for part in source.parts():
        waiting.append(part)
        held += len(part)
        while held >= size:
            joined = np.concatenate(waiting) if len(waiting) > 1 else waiting[0]
            yield joined[:size]
            waiting, held = [joined[size:]], held - size
    if held and not whole:
        yield np.concatenate(waiting)


def digest(parts: Iterable[Floats]) -> str:
    """Hex sha256 over the images' float32 bytes, in order."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part.tobytes())
    return total.hexdigest()


def generator_samples(generator_onnx: Path, count: int, seed: int) -> Floats:
    """Images of a generator, all at once; see `Generated`, whose errors it raises too.

    Returns:
        float32 `[count, C, H, W]` in the teacher's input range.
    """
    return np.concatenate(list(Generated(generator_onnx, count, seed).parts()))


def real_samples(path: Path, low: Bound, high: Bound, layout: str = "NCHW") -> Stored:
    """Images that a user has: `images` of an `.npz`, or `tokens`; labels, if it holds any, are not read.

    Args:
        path: the file.
        low, high: where uint8 0 and 255 go, or the first and the last token id.
        layout: of the model's axes.

    Raises:
        BadData: no such file, no images in it, of another type, or holding NaN or infinity; never unpickled.
    """
    if (ids := vocabulary(layout, high)) is not None:
        return Stored(read_tokens(Path(path), None, ids)[0], low, high)
    images = read_arrays(Path(path), ("images",), _KEYS)["images"]
    require_kind(images, path)
    if images.ndim < 2 or not images.size:
        raise BadData(f"images have shape {list(images.shape)}", where=path, allowed=_KEYS)
    if images.dtype == np.float32 and not np.isfinite(images).all():
        bad = int((~np.isfinite(images.reshape(len(images), -1))).any(axis=1).sum())
        raise BadData(f"{bad} of {len(images)} hold NaN or infinity", where=path, hint="leave them out")
    return Stored(images[:, None] if images.ndim == 3 else images, low, high)
