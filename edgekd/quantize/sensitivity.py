"""Which layers INT8 costs most: quantize one alone, and measure. And the fewest to leave in float for a given cost.

Plain measurement: one layer in INT8 and all others in float, on a few samples, ranks layers better than any estimator
that was compared with it (onnxsim's study of quantization sensitivity: rank correlation above 0.95 on CNNs), and needs
no labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from onnx import ModelProto

from edgekd.devices import Quantization
from edgekd.quantize.insertion import inserted, quantizable
from edgekd.quantize.judging import Fidelity, Judge
from edgekd.quantize.ranges import Range

SAMPLES = 64


@dataclass(frozen=True)
class Sensitivity:
    """What quantizing one node alone leaves of the answers."""

    node: str
    operator: str
    fidelity: Fidelity


def sensitivities(
    prepared: ModelProto, ranges: Mapping[str, Range], flavour: Quantization, judge: Judge
) -> list[Sensitivity]:
    """Every node that can be quantized, the one that costs most first."""
    types = set(quantizable(flavour))
    nodes = [node for node in prepared.graph.node if node.op_type in types]
    few = judge.some(SAMPLES)
    found = []
    for node in nodes:
        others = [other.name for other in nodes if other.name != node.name]
        fidelity = few(inserted(prepared, ranges, flavour, in_float=others))
        found.append(Sensitivity(node.name, node.op_type, fidelity))
    return sorted(found, key=lambda one: (one.fidelity.sqnr_db, one.node))


def fewest(
    ranked: list[str], build: Callable[[list[str]], ModelProto], judge: Judge, allowed: float
) -> tuple[list[str], ModelProto, Fidelity] | None:
    """The least number of nodes to leave in float, taken from the front of a ranking, so that the drop is allowed.

    Doubled until it will do, then halved in between: a handful of trials for a hundred nodes.

    Args:
        ranked: names of nodes, the costliest first.
        build: makes the model with those in float.
        judge: tells the drop.
        allowed: the largest that will do.

    Returns:
        names, model and fidelity; None if INT8 has to be given up altogether.
    """
    few, many = 0, 1
    best: tuple[list[str], ModelProto, Fidelity] | None = None
    while best is None and few < len(ranked) - 1:
        many = min(many, len(ranked) - 1)
        best = _tried(ranked[:many], build, judge, allowed)
        few, many = (few, many) if best else (many, 2 * many)
    while best is not None and len(best[0]) - few > 1:
        middle = (few + len(best[0])) // 2
        better = _tried(ranked[:middle], build, judge, allowed)
        best, few = (better, few) if better else (best, middle)
    return best


def _tried(
    names: list[str], build: Callable[[list[str]], ModelProto], judge: Judge, allowed: float
) -> tuple[list[str], ModelProto, Fidelity] | None:
    model = build(names)
    fidelity = judge(model)
    return (names, model, fidelity) if fidelity.drop <= allowed else None
