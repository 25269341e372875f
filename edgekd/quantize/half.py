"""A float model in half precision, for devices that run that faster than INT8; input and output stay float32."""

from __future__ import annotations

import sys
from collections.abc import Callable

import onnx
from onnx import ModelProto
from onnxruntime.quantization.onnx_model import ONNXModel

from edgekd import __version__, onnx_file
from edgekd.errors import EdgekdError
from edgekd.quiet import quiet


def _converter() -> Callable[..., ModelProto]:
    """ONNX Runtime's own. Its package puts itself on sys.path, where its modules would hide others."""
    before = list(sys.path)
    try:
        from onnxruntime.transformers.float16 import convert_float_to_float16  # noqa: PLC0415
    finally:
        sys.path[:] = before
    found: Callable[..., ModelProto] = convert_float_to_float16
    return found


def halved(model: ModelProto, where: object) -> ModelProto:
    """The model with float16 weights and activations, without notes.

    Args:
        model: float; unchanged.
        where: for messages.

    Raises:
        EdgekdError: ONNX Runtime's converter fails, or what it wrote is no valid model.
    """
    whole = ModelProto()
    whole.CopyFrom(model)
    try:
        with quiet():
            half = _converter()(whole, keep_io_types=True)
            ONNXModel(half).topological_sort()  # the casts of inputs come last
            onnx_file.tidy(half)
            onnx.checker.check_model(half, full_check=True)
    except Exception as error:
        raise EdgekdError(f"it cannot be halved: {onnx_file.first_line(error)}", where=where) from error
    half.producer_name, half.producer_version = "edgekd", __version__
    return half
