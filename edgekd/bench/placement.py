"""Which execution provider runs which part of a model: nodes that silently fell back are the usual disappointment."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from onnx import ModelProto

from edgekd import onnx_file
from edgekd.bench.local import CPU, Request

SHOWN = 20
"""So many of the nodes that fell back are named; the rest are counted."""

_TOKEN = re.compile(r"_token_\d+$")
"""What ONNX Runtime appends to the name of a node that it moved to another layout."""

Part = tuple[str, Sequence[tuple[str, str]]]
"""A provider, and the nodes of one partition of the graph: name and operator."""


def placed(parts: Sequence[Part], model: ModelProto, request: Request) -> dict[str, Any]:
    """The entry's `fallback` and `placement`.

    Nodes are those that ONNX Runtime handed out, after its own first simplifications; multiply-accumulates are found by
    a node's name, and are null where a simplification renamed those that do most.

    Args:
        parts: from the child's `placement`.
        model: the file.
        request: which provider was wanted.
    """
    wanted = request.runtime.provider
    work = _work(model, request.inputs[0].shape[1:] if request.inputs else None)
    nodes: Counter[str] = Counter()
    macs: Counter[str] = Counter()
    for provider, members in parts:
        nodes[provider] += len(members)
        macs[provider] += sum(work.get(name, 0) or work.get(_TOKEN.sub("", name), 0) for name, _ in members)
    found, whole = sum(macs.values()), sum(work.values())
    strays = [{"node": n, "operator": o, "provider": p} for p, members in parts if p != wanted for n, o in members]
    total = sum(nodes.values())
    return {
        "fallback": len(strays) / total if total else 0.0,
        "placement": {
            "providers": {
                provider: {
                    "nodes": count / total,
                    "macs": macs[provider] / found if found and found == whole else None,
                    # of the CPU's every node stands for itself
                    "partitions": None if provider == CPU else sum(1 for one, _ in parts if one == provider),
                }
                for provider, count in nodes.most_common()
            },
            "nodes": total,
            "fell_back": strays[:SHOWN],
        },
    }


def _work(model: ModelProto, input_shape: tuple[int, ...] | None) -> dict[str, int]:
    counts = onnx_file.macs_of_nodes(model, input_shape)
    return {node.name: count for node, count in zip(model.graph.node, counts, strict=True) if node.name and count}
