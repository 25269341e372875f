"""Nets as torch's two exporters write them: outputs equal ONNX Runtime's, input gradients the native module's."""

from __future__ import annotations

import io
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from nets import NETS, build
from torch import Tensor, nn

from edgekd.onnx_import import import_onnx

QUICK = [("LeNet", False, 13), ("ResNet", True, 18), ("MobileNetV3", True, 18), ("ViT", False, 17), ("text", True, 20)]
EVERY = [(name, dynamo, opset) for name in NETS for dynamo in (False, True) for opset in ((14, 17, 20) if not dynamo else (18, 20, 22))]  # fmt: skip # noqa: E501
EVERY += [(name, False, opset) for name in ("LeNet", "ResNet", "MobileNetV3", "LSTM and GRU") for opset in (13, 16, 18)]


def export(
    net: nn.Module, example: Tensor, *, dynamo: bool, opset: int, batch_free: bool = True, optimize: bool = True
) -> onnx.ModelProto:
    """The net as ONNX, by the new exporter (`dynamo`; `optimize` folds batch normalization) or the old."""
    target = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            shapes = ({0: torch.export.Dim("batch")},) if batch_free else None
            program = torch.onnx.export(
                net,
                (example,),
                dynamo=True,
                opset_version=opset,
                dynamic_shapes=shapes,
                verbose=False,
                optimize=optimize,
            )
            return program.model_proto
        axes = {"input": {0: "batch"}} if batch_free else None
        torch.onnx.export(
            net, (example,), target, dynamo=False, opset_version=opset, dynamic_axes=axes, input_names=["input"]
        )
    return onnx.load_from_string(target.getvalue())


def check(net: nn.Module, model: onnx.ModelProto, example: Tensor, batch: int) -> None:
    """Compare outputs and, for nets that read numbers, input gradients at another batch size."""
    module = import_onnx(model)
    x = torch.cat([example] * batch)[:batch].clone()
    x = x if x.dtype == torch.int64 else x + 0.1 * torch.randn_like(x)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    if model.graph.input[0].type.tensor_type.shape.dim[0].dim_param or batch == len(example):
        session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        (expected,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    else:
        expected = net(x).numpy()
    (result,) = module(x)
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-4, atol=1e-5)
    if x.is_floating_point():
        ours, native = (_gradient(f, x) for f in (lambda v: module(v)[0], net))
        assert (ours - native).norm() <= 1e-5 * native.norm()


def _gradient(function: object, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    y = function(x)  # type: ignore[operator]
    weights = torch.linspace(-1, 1, y.numel()).reshape(y.shape)
    (gradient,) = torch.autograd.grad((y * weights).sum(), x)
    return gradient


@pytest.mark.parametrize(("name", "dynamo", "opset"), QUICK)
def test_common_exports(name: str, dynamo: bool, opset: int) -> None:
    net, example = build(name)
    check(net, export(net, example, dynamo=dynamo, opset=opset), example, 3)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "dynamo", "opset"), [case for case in EVERY if case not in QUICK])
def test_every_export(name: str, dynamo: bool, opset: int) -> None:
    net, example = build(name)
    check(net, export(net, example, dynamo=dynamo, opset=opset), example, 3)


@pytest.mark.slow
@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("name", NETS)
def test_a_fixed_batch_of_one_becomes_free(name: str, dynamo: bool) -> None:
    net, example = build(name)
    model = export(net, example[:1], dynamo=dynamo, opset=18, batch_free=False)
    assert import_onnx(model).meta["batch_free"]
    check(net, model, example[:1], 3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["LeNet", "ResNet"])
def test_a_fixed_batch_of_four_becomes_free(name: str) -> None:
    net, example = build(name)
    model = export(net, torch.cat([example, example]), dynamo=False, opset=17, batch_free=False)
    check(net, model, example, 6)


def _with_free_sizes(net: nn.Module, example: Tensor, axes: dict[int, str]) -> onnx.ModelProto:
    target = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net, (example,), target, dynamo=False, opset_version=17, dynamic_axes={"x": axes}, input_names=["x"]
        )
    return onnx.load_from_string(target.getvalue())


@pytest.mark.parametrize(
    ("name", "axes", "shape"),
    [
        ("UNet", {0: "n", 2: "h", 3: "w"}, (3, 3, 48, 64)),
        ("UNet", {2: "h", 3: "w"}, (2, 3, 48, 64)),
        ("ConvNeXt", {0: "n", 2: "h", 3: "w"}, (1, 3, 40, 56)),
        ("text", {0: "n", 1: "length"}, (3, 9)),
        ("LSTM and GRU", {0: "n", 1: "length"}, (3, 7, 6)),
    ],
)
def test_free_sizes_stay_free(name: str, axes: dict[int, str], shape: tuple[int, ...]) -> None:
    net, example = build(name)
    module = import_onnx(_with_free_sizes(net, example, axes))
    x = torch.randint(0, 50, shape) if name == "text" else torch.randn(shape)
    torch.testing.assert_close(module(x)[0], net(x), rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(module(x)[0].float(), net(x).float(), rtol=0.05, atol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ViT", "text"])
def test_attention_as_opset_23_writes_it(name: str) -> None:
    net, example = build(name)
    model = export(net, example, dynamo=True, opset=23)
    assert "Attention" in {node.op_type for node in model.graph.node}
    check(net, model, example, 3)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_imported_nets_compile_without_a_break(name: str) -> None:
    net, example = build(name)
    module = import_onnx(export(net, example, dynamo=False, opset=18))
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (result,) = torch.compile(module, backend="aot_eager", fullgraph=True, dynamic=True)(example)
    torch.testing.assert_close(result, net(example), rtol=1e-4, atol=1e-5)
