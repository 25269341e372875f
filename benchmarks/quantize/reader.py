"""What ONNX Runtime's quantizers read calibration samples through. Needs no edgekd."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from onnxruntime.quantization import CalibrationDataReader


class Reader(CalibrationDataReader):
    """Batches for a model's one input, handed out once."""

    def __init__(self, name: str, batches: Iterable[np.ndarray]) -> None:
        self.feeds = ({name: batch} for batch in batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.feeds, None)


def in_batches(samples: np.ndarray, size: int = 64) -> Iterable[np.ndarray]:
    return (samples[start : start + size] for start in range(0, len(samples), size))
