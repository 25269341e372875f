"""How well calibration samples cover what a model meets: their activations beside those of other samples, and of noise.

A generator's images are good for calibration when activations lie where those of real images lie; noise shows what it
would be like without a generator.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from onnx import ModelProto

from edgekd.devices import Quantization
from edgekd.quantize.histogram import Histogram, overlap, share_outside
from edgekd.quantize.insertion import quantizable
from edgekd.quantize.observation import observe
from edgekd.quantize.samples import Source, noise_like

_NOISE = 128  # images of it
_BINS = 256  # coarser than for ranges: distributions are compared, and few samples fill few bins


def coverage(
    model: ModelProto,
    flavour: Quantization,
    calibration: Source,
    reference: Source,
    name: str,
    observed: Mapping[str, Histogram],
) -> dict[str, Any]:
    """How calibration samples and noise cover the activations of a reference.

    Args:
        model: the float model, prepared.
        flavour: whose operators are looked at.
        calibration: the samples that ranges were found on.
        reference: other samples: real ones, or generated ones that nothing was calibrated on.
        name: of the reference, for the reader.
        observed: what is known of the activations of the calibration samples already; empty: they are run.

    Returns:
        `reference`, and for `calibration` and `noise`: `outside`, the mean over activations of the share of the
        reference's values that lie outside the range seen; `overlap`, the mean share that the two distributions have in
        common; `tensors`, both for every activation.
    """
    operators = quantizable(flavour)

    def seen(source: Source) -> Mapping[str, Histogram]:
        return observe(model, source, operators, _BINS)

    wanted = seen(reference)
    known = {tensor: histogram.coarser(_BINS) for tensor, histogram in observed.items()}
    found = {"calibration": known or seen(calibration), "noise": seen(noise_like(calibration, _NOISE))}
    return {"reference": name} | {kind: _compared(histograms, wanted) for kind, histograms in found.items()}


def _compared(found: Mapping[str, Histogram], wanted: Mapping[str, Histogram]) -> dict[str, Any]:
    tensors = {
        name: {
            "outside": round(share_outside(wanted[name], one.low, one.high), 6),
            "overlap": round(overlap(one, wanted[name]), 4),
        }
        for name, one in found.items()
    }
    means = {figure: fmean(one[figure] for one in tensors.values()) for figure in ("outside", "overlap")}
    return {**{figure: round(mean, 6) for figure, mean in means.items()}, "tensors": tensors}
