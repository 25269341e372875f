"""What ONNX Runtime's quantizer writes: the same outputs, and a gradient that passes straight through."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from nets import build
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from test_exports import export

from edgekd.onnx_import import import_onnx


class _Once(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, name: str, samples: torch.Tensor) -> None:
        self._feeds: Iterator[dict[str, object]] = iter([{name: samples.numpy()}])

    def get_next(self) -> dict[str, object] | None:
        return next(self._feeds, None)


def _quantized(path: Path, form: str, example: torch.Tensor) -> onnx.ModelProto:
    target = path.with_name("quantized.onnx")
    if form == "dynamic":
        quantize_dynamic(path, target)
    else:
        types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
        reader = _Once("input", example)
        quantize_static(path, target, reader, quant_format=QuantFormat[form], per_channel=True, **types)
    return onnx.load(target)


@pytest.mark.parametrize("form", ["QDQ", "QOperator", "dynamic"])
@pytest.mark.parametrize("name", ["LeNet", pytest.param("ResNet", marks=pytest.mark.slow), pytest.param("ViT", marks=pytest.mark.slow)])  # fmt: skip # noqa: E501
def test_quantized_nets(name: str, form: str, tmp_path: Path) -> None:
    net, example = build(name)
    onnx.save(export(net, example, dynamo=False, opset=17), tmp_path / "float.onnx")
    model = _quantized(tmp_path / "float.onnx", form, example)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    (expected,) = session.run(None, {"input": example.numpy()})
    x, native = example.clone().requires_grad_(), example.clone().requires_grad_()
    (result,) = import_onnx(model)(x)
    step = np.abs(expected).max() / 100  # a value on the edge between two integers may round either way
    np.testing.assert_allclose(result.detach().numpy(), expected, rtol=1e-4, atol=step)
    result.sum().backward()
    net(native).sum().backward()
    assert x.grad is not None
    assert native.grad is not None
    assert torch.cosine_similarity(x.grad.flatten(), native.grad.flatten(), 0) > 0.85
