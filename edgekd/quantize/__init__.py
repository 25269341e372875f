"""A float ONNX model to an INT8 or float16 one for a target, in ONNX Runtime and without torch.

    samples        generated and real images to calibrate on, part by part
    histogram      what is kept of an activation; observation: how it is filled, in bounded memory
    ranges         the range of every activation, by a recipe of `calibration/`; cache: kept for another time
    preparation    what may be quantized, and how it is made ready; insertion: QuantizeLinear and DequantizeLinear
    judging        how close to the float model it stays
    search         which recipe, and which remedies: equalization, bias, sensitivity (mixed precision)
    half           float16
    static         the file

It does not measure time: `edgekd.bench` does.
"""

from edgekd.quantize.samples import (
    ChannelsLast,
    Generated,
    Joined,
    Source,
    Stored,
    generator_samples,
    real_samples,
)
from edgekd.quantize.static import Outcome, Wishes, half_precision, quantize, quantized

__all__ = [
    "ChannelsLast",
    "Generated",
    "Joined",
    "Outcome",
    "Source",
    "Stored",
    "Wishes",
    "generator_samples",
    "half_precision",
    "quantize",
    "quantized",
    "real_samples",
]
