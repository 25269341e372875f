"""ONNX tensors and element types in torch's terms."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import onnx
import torch
from onnx import TensorProto
from torch import Tensor

from edgekd.onnx_file import type_name
from edgekd.onnx_import.values import Unconvertible

MAXIMUM_ELEMENTS = 2**27
"""A constant folded while importing may hold this many elements: 512 MiB of float32."""

DTYPES = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.INT8: torch.int8,
    TensorProto.INT16: torch.int16,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.UINT8: torch.uint8,
    TensorProto.UINT16: torch.uint16,
    TensorProto.UINT32: torch.uint32,
    TensorProto.UINT64: torch.uint64,
    TensorProto.BOOL: torch.bool,
}


def dtype_of(element_type: int) -> torch.dtype:
    """torch's type of an ONNX element type.

    Raises:
        Unconvertible: strings, complex numbers, and the types of 8 bits or fewer that are no plain integers.
    """
    if element_type not in DTYPES:
        raise Unconvertible(f"element type {type_name(element_type)} is not supported")
    return DTYPES[element_type]  # type: ignore[index]


def to_torch(proto: TensorProto) -> Tensor:
    """An ONNX tensor as a torch tensor of the same type, shape and values.

    Raises:
        Unconvertible: an unsupported element type, a size that is absurd or does not fit the data.
    """
    dtype = dtype_of(proto.data_type)
    if math.prod(proto.dims) > 16 * MAXIMUM_ELEMENTS or any(size < 0 for size in proto.dims):
        raise Unconvertible(f"tensor {proto.name} has the absurd shape {list(proto.dims)}")
    try:
        array = onnx.numpy_helper.to_array(proto)
    except Exception as error:
        raise Unconvertible(f"tensor {proto.name} cannot be read: {error}") from error
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.uint16).copy()).view(torch.bfloat16)
    return torch.from_numpy(np.array(array, order="C")).to(dtype)
