"""Unlabelled images of one's own, similar to what the teacher knows, as 8-bit codes: a folder of them, or an `.npz`.

Token ids come in an `.npz` too, and stay as they are.

Nobody need have any. They are asked about first, and stay in the diet and among the parents that images are bred from.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgekd.codes import Bound, Codes, by_channel, extent, to_codes
from edgekd.errors import BadData
from edgekd.samples import channels_first, read_samples, read_tokens

Size = tuple[int, int, int]
_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
_ALLOWED = f"a folder of images ({', '.join(_ENDINGS)}), or an .npz with images"


def read_proxies(path: Path, size: Size, low: Bound, high: Bound) -> Codes:
    """Images `[N, C, H, W]` in an order of no meaning, the same each time.

    Those of a folder, and of folders in it, are scaled to the size; those of an `.npz` have to have it.

    Args:
        path: of the folder or the file; labels in it are not read.
        size: channels, height, width.
        low, high: range of float images; uint8 ones cover it from 0 to 255.

    Raises:
        BadData: there are none, one is not readable, or of another size.
    """
    found = _of_folder(path, size) if path.is_dir() else _of_file(path, size, low, high)
    return _shuffled(found)


def read_sequences(path: Path, length: int, ids: int) -> Codes:
    """Sequences of token ids, int32 `[N, T, 1, 1]`, in an order of no meaning, the same each time.

    Args:
        path: of an `.npz`; labels in it are not read.
        length: T.
        ids: how many there are, from 0.

    Raises:
        BadData: as `edgekd.samples.read_tokens`.
    """
    return _shuffled(read_tokens(path, length, ids)[0])


def _shuffled(codes: Codes) -> Codes:
    return codes[np.random.default_rng(0).permutation(len(codes))]


def _of_file(path: Path, size: Size, low: Bound, high: Bound) -> Codes:
    if path.suffix != ".npz":
        raise BadData("no folder, and no .npz", where=path, allowed=_ALLOWED)
    images, _ = read_samples(path, labelled=False)
    images = channels_first(images, size)
    if images.shape[1:] != size:
        told, allowed = (f"[N, {', '.join(map(str, sizes))}]" for sizes in (images.shape[1:], size))
        raise BadData(f"images have shape {told}", where=path, allowed=allowed)
    if images.dtype == np.uint8:
        return np.ascontiguousarray(images, np.uint8)
    start, end = by_channel(low), by_channel(high)
    if (images < start).any() or (images > end).any():
        what, (least, most) = f"values from {images.min():g} to {images.max():g}", extent(low, high)
        raise BadData(what, where=path, allowed=f"the teacher's {least:g} to {most:g}, or uint8")
    return to_codes(images.astype(np.float32, copy=False), low, high)


def _of_folder(path: Path, size: Size) -> Codes:
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415 - only a folder needs pillow

    channels, height, width = size
    modes = {1: "L", 3: "RGB", 4: "RGBA"}
    if channels not in modes:
        raise BadData(f"the teacher takes {channels} channels", where=path, allowed="an .npz for such images")
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in _ENDINGS and file.is_file())
    if not files:
        raise BadData("it holds no images", where=path, allowed=_ALLOWED)
    codes = np.empty((len(files), *size), np.uint8)
    for place, file in enumerate(files):
        try:
            with Image.open(file) as image:
                scaled = image.convert(modes[channels]).resize((width, height), Image.Resampling.BILINEAR)
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError) as error:
            raise BadData(f"not readable as an image: {' '.join(str(error).split())[:120]}", where=file) from error
        codes[place] = np.asarray(scaled, np.uint8).reshape(height, width, channels).transpose(2, 0, 1)
    return codes
