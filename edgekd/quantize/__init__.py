"""A float ONNX model to an INT8 or float16 one for a target, in ONNX Runtime and without torch.

    samples        generated and real images to calibrate on, part by part
    histogram      what is kept of an activation; observation: how it is filled, in bounded memory
    ranges         the range of every activation, by a recipe of `calibration/`; cache: kept for another time
    preparation    what may be quantized, and how it is made ready; insertion: QuantizeLinear and DequantizeLinear
    judging        how close to the float model it stays
    search         which recipe, and which remedies: equalization, bias, sensitivity (mixed precision), and what torch
                   fine-tunes for it
    half           float16
    static         the file; ort_format: the same for builds without the ONNX parser
    proof          float beside it; coverage: whether the samples were good ones
    delivery       all of it for a target, put in place only if it is better than float

It does not measure time: `edgekd.bench` does.
"""

from edgekd.quantize.delivery import MAX_DROP, QAT_STEPS, Delivery, Order, Terms, deliver, require_precision
from edgekd.quantize.proof import Held, Stopwatch
from edgekd.quantize.samples import (
    Generated,
    Joined,
    Source,
    Stored,
    generator_samples,
    real_samples,
)
from edgekd.quantize.search import Tuning
from edgekd.quantize.static import Outcome, Wishes, half_precision, quantized

__all__ = [
    "MAX_DROP",
    "QAT_STEPS",
    "Delivery",
    "Generated",
    "Held",
    "Joined",
    "Order",
    "Outcome",
    "Source",
    "Stopwatch",
    "Stored",
    "Terms",
    "Tuning",
    "Wishes",
    "deliver",
    "generator_samples",
    "half_precision",
    "quantized",
    "real_samples",
    "require_precision",
]
