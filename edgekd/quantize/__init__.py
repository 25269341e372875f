"""A float ONNX model to an INT8 one for a target, in ONNX Runtime and without torch.

    samples    generated images to calibrate on
    ranges     the range of every activation, by a recipe of `calibration/`, in bounded memory
    static     the quantized file: flavour, refusals, provenance

It does not decide whether INT8 is worth it: `edgekd.export` measures agreement, `edgekd.bench` time.
"""

from edgekd.quantize.samples import generator_samples
from edgekd.quantize.static import quantize

__all__ = ["generator_samples", "quantize"]
