"""Images from an exported generator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import BadModel, EdgekdError
from edgekd.inference import open_session
from edgekd.onnx_file import first_line

_BATCH = 64


def generator_samples(generator_onnx: Path, count: int, seed: int) -> NDArray[np.float32]:
    """Images of a generator for standard normal latents; equal arguments give equal images.

    Args:
        generator_onnx: a file with input `latent` `[N, z]` and output `image` `[N, C, H, W]`.
        count: how many images.
        seed: of numpy's generator.

    Returns:
        float32 `[count, C, H, W]` in the teacher's input range.

    Raises:
        CannotLoad: ONNX Runtime refuses the file.
        BadModel: it is not such a generator.
        EdgekdError: ONNX Runtime failed while running it.
    """
    session = open_session(generator_onnx)
    entry, leaving = session.get_inputs(), session.get_outputs()
    if [e.name for e in entry] != ["latent"] or "image" not in [o.name for o in leaving] or len(entry[0].shape) != 2:
        raise BadModel(
            "not a generator", where=generator_onnx, allowed="input latent [N, z], output image [N, C, H, W]"
        )
    latents = np.random.default_rng(seed).standard_normal((count, entry[0].shape[1]), dtype=np.float32)
    parts = (latents[start : start + _BATCH] for start in range(0, count, _BATCH))
    try:
        return np.concatenate([np.asarray(session.run(["image"], {"latent": part})[0], np.float32) for part in parts])
    except Exception as error:
        raise EdgekdError(f"the generator failed: {first_line(error)}", where=generator_onnx) from error
