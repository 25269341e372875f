"""The node tests that ONNX publishes with its specification, run through the importer and counted."""

from __future__ import annotations

import fnmatch
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import ModelProto

from edgekd.onnx_import import import_onnx, unsupported
from edgekd.onnx_import.tensors import DTYPES, to_torch

PARAMETERS = {
    "ArgMax": (), "BlackmanWindow": (0,), "CenterCropPad": (1,), "Clip": (), "Col2Im": (1, 2), "ConstantOfShape": (0,),
    "AffineGrid": (1,), "CumProd": (1,), "CumSum": (1,), "Dropout": (1, 2), "Expand": (1,), "HammingWindow": (0,),
    "HannWindow": (0,), "OneHot": (1,), "Pad": (1, 2, 3), "Range": (0, 1, 2), "Reshape": (1,), "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4), "Split": (1,), "Squeeze": (1,), "Tile": (1,), "TopK": (1,), "Trilu": (1,),
    "Unsqueeze": (1,), "LSTM": (4,), "GRU": (4,), "RNN": (4,), "Upsample": (1,), "MaxUnpool": (2,), "Compress": (1,),
    "ReduceL1": (1,), "ReduceL2": (1,), "ReduceLogSum": (1,), "ReduceLogSumExp": (1,), "ReduceMax": (1,),
    "ReduceMean": (1,), "ReduceMin": (1,), "ReduceProd": (1,), "ReduceSum": (1,), "ReduceSumSquare": (1,),
}  # fmt: skip
"""Inputs that are shapes, axes and counts: the tests feed them, every exporter stores them in the file, so do we."""


@dataclass(frozen=True)
class Outcome:
    """What became of one case: passed, not claimed, excluded or failed, with a reason."""

    name: str
    state: str
    reason: str = ""


def cases() -> list[Any]:
    """Every node test of the installed ONNX."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return [case for case in collect_testcases(None) if case.model is not None]


EXCLUDED = {
    "test_batchnorm_*_training_mode*": "training: an imported graph does not train",
    "test_training_dropout*": "training: an imported graph does not train",
    "test_resize_downsample_scales_*_align_corners": "ONNX Runtime takes the rounded length here, and so do we",
    "test_col2im_5d": "three spatial axes, where torch folds two",
    "test_center_crop_pad_*_expanded": "sizes fed as data, where shapes must follow from the file or the input",
}
"""Cases of claimed operators that are not expected to pass, and why."""


def excluded(case: Any) -> str:
    """Why a case of claimed operators is not run; empty when it is."""
    types = {value.type.WhichOneof("value") for value in (*case.model.graph.input, *case.model.graph.output)}
    if types != {"tensor_type"}:
        return "sequences and optionals are not tensors"
    for kind in _types(case.model):
        if kind not in DTYPES:
            return "element types of 8 bits or fewer that torch does not compute in, strings, complex numbers"
    return next((why for pattern, why in EXCLUDED.items() if fnmatch.fnmatch(case.name, pattern)), "")


def _types(model: ModelProto) -> Iterator[int]:
    for value in (*model.graph.input, *model.graph.output):
        yield value.type.tensor_type.elem_type
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name in ("to", "output_dtype", "dtype") and attribute.i:
                yield attribute.i
            if attribute.HasField("t"):
                yield attribute.t.data_type


def run(case: Any) -> Outcome:
    """Import one case, run it on its data, compare."""
    missing = unsupported(case.model)
    if missing:
        return Outcome(case.name, "not claimed", ", ".join(sorted({op for op, _ in missing})))
    reason = excluded(case)
    if reason:
        return Outcome(case.name, "excluded", reason)
    try:
        for inputs, expected in case.data_sets:
            _check(case, list(inputs), list(expected))
    except Exception as error:
        return Outcome(case.name, "failed", (str(error).strip() or type(error).__name__).splitlines()[0][:300])
    return Outcome(case.name, "passed")


def _check(case: Any, inputs: list[Any], expected: list[Any]) -> None:
    model, fed = _with_parameters_stored(case.model, inputs)
    results = import_onnx(model)(*map(_to_torch, fed))
    assert len(results) == len(expected), "number of outputs"
    for result, value in zip(results, expected, strict=True):
        _compare(result, value, case)


def _compare(result: torch.Tensor, expected: Any, case: Any) -> None:
    wanted = _to_torch(expected)
    assert result.dtype == wanted.dtype, f"type {result.dtype}, expected {wanted.dtype}"
    assert result.shape == wanted.shape, f"shape {tuple(result.shape)}, expected {tuple(wanted.shape)}"
    rtol, atol = case.rtol, case.atol
    if wanted.dtype in (
        torch.float16,
        torch.bfloat16,
    ):  # the reference rounds after every step, torch after each kernel
        step = torch.finfo(wanted.dtype).eps
        rtol, atol, result, wanted = max(rtol, 2 * step), max(atol, step), result.float(), wanted.float()
    np.testing.assert_allclose(result.numpy(), wanted.numpy(), rtol=rtol, atol=atol)


def _to_torch(value: Any) -> torch.Tensor:
    if isinstance(value, onnx.TensorProto):
        return to_torch(value)
    array = np.asarray(value)
    return to_torch(onnx.numpy_helper.from_array(array))


def _with_parameters_stored(model: ModelProto, inputs: list[Any]) -> tuple[ModelProto, list[Any]]:
    """The model with its shape-like inputs as initializers, and the inputs that are left."""
    stored = {
        name
        for node in model.graph.node
        for position, name in enumerate(node.input)
        if name and position in PARAMETERS.get(node.op_type, ())
    }
    copy = ModelProto()
    copy.CopyFrom(model)
    del copy.graph.input[:]
    fed = []
    for value, data in zip(model.graph.input, inputs, strict=False):
        if value.name in stored:
            proto = data if isinstance(data, onnx.TensorProto) else onnx.numpy_helper.from_array(np.asarray(data))
            proto.name = value.name
            copy.graph.initializer.append(proto)
        else:
            copy.graph.input.append(value)
            fed.append(data)
    return copy, fed
