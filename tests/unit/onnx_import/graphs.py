"""Tiny graphs in ONNX's text form, and ONNX Runtime as the judge of what they compute."""

# ruff: noqa: E501 - text graphs
from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray


def parse(
    body: str, *, opset: int = 20, signature: str = "(float[N,3,8,8] x) => (y)", weights: str = ""
) -> onnx.ModelProto:
    """A model from the statements of its graph."""
    stored = f"<{weights}>" if weights else ""
    text = f'<ir_version: 8, opset_import: ["" : {opset}]> graph {signature.replace("(y)", "(float y)")} {stored} {{ {body} }}'
    model = onnx.parser.parse_model(text)
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    return model


def run(model: onnx.ModelProto, *inputs: NDArray[np.generic]) -> list[NDArray[np.generic]]:
    """What ONNX Runtime answers."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {value.name: x for value, x in zip(session.get_inputs(), inputs, strict=True)})  # type: ignore[no-any-return]


def images(batch: int = 2, channels: int = 3, size: int = 8, seed: int = 0) -> NDArray[np.float32]:
    """Normal noise `[batch, channels, size, size]`."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((batch, channels, size, size)).astype(np.float32)


def weights(seed: int = 0, **shapes: tuple[int, ...]) -> list[onnx.TensorProto]:
    """Random initializers by name."""
    rng = np.random.default_rng(seed)
    return [
        onnx.numpy_helper.from_array((0.3 * rng.standard_normal(shape)).astype(np.float32), name)
        for name, shape in shapes.items()
    ]


def with_weights(model: onnx.ModelProto, **shapes: tuple[int, ...]) -> onnx.ModelProto:
    """The model with random initializers added."""
    model.graph.initializer.extend(weights(**shapes))
    return model


def as_tensors(*arrays: NDArray[np.generic]) -> list[torch.Tensor]:
    """Arrays as tensors."""
    return [torch.from_numpy(np.array(array)) for array in arrays]
