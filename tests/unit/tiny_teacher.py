"""A teacher small enough to distil in seconds: convolution, batch normalization, global average, dense."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSES, SIDE, MAPS = 4, 12, 8


def classifier(
    seed: int = 0, *, batch_norm: bool = True, centred: bool = False, columns: int = CLASSES, ending: str = ""
) -> onnx.ModelProto:
    """`image` [N, 1, 12, 12] in [0, 1] to `logits` [N, 4], or `scores` behind an ending; opset 18, random weights.

    `centred` has batch normalization take off what the filters answer to grey, as it would if it had been trained.
    """
    random = np.random.default_rng(seed)
    weights = {
        "kernel": random.normal(0, 0.6, (MAPS, 1, 3, 3)),
        "scale": random.uniform(0.5, 1.5, MAPS),
        "shift": random.normal(0, 0.2, MAPS),
        "mean": random.normal(0, 0.3, MAPS),
        "variance": random.uniform(0.2, 0.9, MAPS),
        "dense": random.normal(0, 2.0, (MAPS, columns)),
        "bias": random.normal(0, 0.1, columns),
    }
    if centred:
        weights["mean"] = weights["kernel"].sum((1, 2, 3)) / 2
    used = weights if batch_norm else {k: weights[k] for k in ("kernel", "dense", "bias")}
    nodes = [helper.make_node("Conv", ["image", "kernel"], ["c"], "conv", pads=[1, 1, 1, 1])]
    if batch_norm:
        nodes.append(helper.make_node("BatchNormalization", ["c", "scale", "shift", "mean", "variance"], ["b"], "norm"))
    nodes += [
        helper.make_node("Relu", [nodes[-1].output[0]], ["r"], "relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "dense", "bias"], ["logits"], "dense"),
    ]
    if ending:
        nodes.append(helper.make_node(ending, ["logits"], ["scores"], "ending"))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, SIDE, SIDE])],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, ["N", columns])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in used.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
