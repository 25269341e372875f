"""Forests as converters of scikit-learn write them, grown at random: `[N, F]` to a label and the share of the votes."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper

FEATURES, CLASSES = 6, 3


def forest(
    features: int = FEATURES,
    classes: int = CLASSES,
    *,
    trees: int = 12,
    depth: int = 3,
    low: np.ndarray | float = 0.0,
    high: np.ndarray | float = 1.0,
    seed: int = 0,
) -> ModelProto:
    """Full binary trees that split anywhere between low and high; each leaf votes for one class.

    Classes follow the feature of their number: a leaf votes for the one that is largest there, so that there is
    something to learn.
    """
    rng = np.random.default_rng(seed)
    low, high = (np.broadcast_to(np.asarray(end, float), features) for end in (low, high))
    inner, nodes = 2**depth - 1, 2 ** (depth + 1) - 1
    table: dict[str, list] = {key: [] for key in ("tree", "id", "feature", "value", "mode", "yes", "no")}
    votes: dict[str, list] = {key: [] for key in ("tree", "id", "class")}
    for tree in range(trees):
        split = [int(rng.integers(classes)) for _ in range(inner)]
        at = [float(rng.uniform(low[one], high[one])) for one in split]
        for node in range(nodes):
            leaf = node >= inner
            told = {"tree": tree, "id": node, "feature": 0, "value": 0.0, "mode": "LEAF", "yes": 0, "no": 0}
            if not leaf:
                told |= {"feature": split[node], "value": at[node], "mode": "BRANCH_LEQ"}
                told |= {"yes": 2 * node + 1, "no": 2 * node + 2}
            for key, value in told.items():
                table[key].append(value)
            if leaf:
                votes["tree"].append(tree)
                votes["id"].append(node)
                votes["class"].append(int(_middle(node, split, at, low, high, classes).argmax()))
    return _model(table, votes, features, classes, trees)


def _middle(
    leaf: int, split: list[int], at: list[float], low: np.ndarray, high: np.ndarray, classes: int
) -> np.ndarray:
    """About where each of the features lies in a leaf, as a share of its range."""
    middle, node = np.full(classes, 0.5), leaf
    while node:
        above, larger = (node - 1) // 2, node % 2 == 0
        one = split[above]
        share = (at[above] - low[one]) / (high[one] - low[one])
        middle[one] = max(middle[one], (1 + share) / 2) if larger else min(middle[one], share / 2)
        node = above
    return middle


def _model(table: dict[str, list], votes: dict[str, list], features: int, classes: int, trees: int) -> ModelProto:
    node = helper.make_node(
        "TreeEnsembleClassifier",
        ["X"],
        ["label", "probabilities"],
        domain="ai.onnx.ml",
        nodes_treeids=table["tree"],
        nodes_nodeids=table["id"],
        nodes_featureids=table["feature"],
        nodes_values=table["value"],
        nodes_modes=table["mode"],
        nodes_truenodeids=table["yes"],
        nodes_falsenodeids=table["no"],
        class_treeids=votes["tree"],
        class_nodeids=votes["id"],
        class_ids=votes["class"],
        class_weights=[1 / trees] * len(votes["class"]),
        classlabels_int64s=list(range(classes)),
        post_transform="NONE",
    )
    entry = helper.make_tensor_value_info("X", TensorProto.FLOAT, ["N", features])
    label = helper.make_tensor_value_info("label", TensorProto.INT64, ["N"])
    scores = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", classes])
    graph = helper.make_graph([node], "forest", [entry], [label, scores])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    onnx.checker.check_model(model)
    return model
