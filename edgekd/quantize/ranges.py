"""The range of every activation, found by ONNX Runtime's calibrators, fed one small batch after the other.

A calibrator given everything at once holds all activations of all samples (some 13 MB a sample on a 2 MB model); given
one batch at a time it holds one batch and its histograms. It does not choose a recipe.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, TensorsData, create_calibrator

from edgekd.config import CalibrationRecipe

_BATCH = 16
_LEVELS = 256  # of 8 bits; what the entropy method compares a range with

# One entry per recipe method: ONNX Runtime's method, and the options its calibrator takes besides `symmetric`. All are
# given explicitly: its defaults differ from method to method.
_METHODS: dict[str, tuple[CalibrationMethod, Callable[[CalibrationRecipe], dict[str, Any]]]] = {
    "minmax": (CalibrationMethod.MinMax, lambda _: {"moving_average": False}),
    "percentile": (CalibrationMethod.Percentile, lambda r: {"num_bins": r.bins, "percentile": r.percentile}),
    "entropy": (CalibrationMethod.Entropy, lambda r: {"num_bins": r.bins, "num_quantized_bins": _LEVELS}),
}


class _OneBatch(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime is untyped
    def __init__(self, feed: dict[str, NDArray[np.float32]]) -> None:
        self._feeds = iter((feed,))

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next(self._feeds, None)


def tensor_ranges(
    model: Path, samples: NDArray[np.float32], recipe: CalibrationRecipe, *, operators: list[str], folder: Path
) -> TensorsData:
    """Ranges of the float activations of a model, by tensor name.

    Args:
        model: a float model with one input whose shapes have been inferred.
        samples: `[N, ...]` for that input; of a fixed batch size B the last N modulo B are left out.
        recipe: method and options.
        operators: operator types whose inputs and outputs are wanted.
        folder: where the calibrator may write its own model.

    Raises:
        Whatever ONNX Runtime raises; `quantize` translates it.
    """
    method, options = _METHODS[recipe.method]
    calibrator = create_calibrator(
        model,
        operators,
        augmented_model_path=str(folder / "augmented.onnx"),
        calibrate_method=method,
        extra_options={"symmetric": recipe.symmetric, **options(recipe)},
    )
    entry = calibrator.infer_session.get_inputs()[0]
    fixed = isinstance(entry.shape[0], int)
    batch = entry.shape[0] if fixed else _BATCH
    for start in range(0, len(samples) - batch + 1 if fixed else len(samples), batch):
        calibrator.collect_data(_OneBatch({entry.name: samples[start : start + batch]}))
    return calibrator.compute_data()
