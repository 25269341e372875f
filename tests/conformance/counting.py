"""The outcomes of the node tests, counted by family of operators: what the README's operator table shows."""

from __future__ import annotations

from collections import Counter
from typing import Any

import onnx
from node_cases import Outcome

from edgekd.onnx_import.registry import claimed, find

WRITTEN_OUT = "functions written out as a graph"


def counted(cases: list[Any], outcomes: list[Outcome]) -> dict[str, Any]:
    """Operators and outcomes per family, reasons of exclusion, and the operators that are not claimed."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in sorted(_operators())}
    not_claimed: Counter[str] = Counter()
    excluded: Counter[str] = Counter()
    for case, outcome in zip(cases, outcomes, strict=True):
        if outcome.state == "not claimed":
            not_claimed.update(outcome.reason.split(", ") if len(case.model.graph.node) == 1 else [WRITTEN_OUT])
        else:
            counts.setdefault(_family(case.model), Counter())[outcome.state] += 1
            excluded.update([outcome.reason] if outcome.state == "excluded" else [])
    families = {name: {"operators": len(_operators().get(name, ())), **found} for name, found in counts.items()}
    return {
        "schema": "edgekd.benchmark.conformance/1",
        "onnx": onnx.__version__,
        "total": dict(sorted(Counter(o.state for o in outcomes).items())),
        "families": families,
        "excluded": dict(excluded.most_common()),
        "not_claimed": dict(sorted(not_claimed.items())),
    }


def _operators() -> dict[str, set[tuple[str, str]]]:
    """The claimed operators of every family: those converted in one file."""
    found: dict[str, set[tuple[str, str]]] = {}
    for claim in claimed():
        found.setdefault(_room(claim.convert.__module__), set()).add((claim.domain, claim.op_type))
    return found


def _family(model: onnx.ModelProto) -> str:
    """The family of the operator under test; a graph of several nodes is a function written out."""
    if len(model.graph.node) > 1:
        return WRITTEN_OUT
    node, opsets = model.graph.node[0], {o.domain: o.version for o in model.opset_import}
    claim = find(node.op_type, node.domain, opsets.get(node.domain, 1))
    assert claim is not None
    return _room(claim.convert.__module__)


def _room(module: str) -> str:
    """The family a file belongs to."""
    return module.rpartition(".")[2].removesuffix("_contrib")
