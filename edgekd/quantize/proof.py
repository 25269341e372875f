"""What quantization cost and bought: float beside what was made of it, on samples held out, and on a clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd import onnx_file
from edgekd.inference import agreement, by_class, scores_name
from edgekd.quantize.insertion import float_nodes
from edgekd.quantize.judging import Judge
from edgekd.quantize.observation import runs
from edgekd.quantize.samples import Source
from edgekd.tasks import Task

Floats = NDArray[np.float32]
Stopwatch = Callable[[Mapping[str, Path]], Mapping[str, float]]
"""Median latency in ms of one inference, by label, measured side by side where the target is at hand."""
SLOWER = 1.1
"""Times the float model's latency from which one is called slower: less is noise."""


@dataclass(frozen=True)
class Held:
    """Samples to show the proof on.

    Attributes:
        source: samples as the files take them.
        answers: the teacher's, `[N, K]` or `[N, K, h, w]`, if they are known.
        task, layout: how answers are read.
    """

    source: Source
    answers: Floats | None = None
    task: Task = "classes"
    layout: str = "NCHW"


def rows(files: Mapping[str, Path], held: Held, stopwatch: Stopwatch | None) -> list[dict[str, Any]]:
    """One row per file, the float model first.

    Args:
        files: by label.
        held: samples that nothing was calibrated or chosen on.
        stopwatch: None where the target is not at hand.

    Returns:
        rows of `label`, `path`, `bytes`, `nodes`, `float_nodes` (by operator), `agreement_float`, `agreement_teacher`,
        `sqnr_db`, `p50_ms`; None stands for what is not known.
    """
    models = {label: onnx_file.load(path) for label, path in files.items()}
    judge = Judge(next(iter(models.values())), held.source, held.task, held.layout)
    times = stopwatch(files) if stopwatch is not None else {}
    found = []
    for number, (label, path) in enumerate(files.items()):
        model = models[label]
        fidelity = judge(model) if number else None
        row = {"label": label, "path": path.name, "bytes": onnx_file.size(path), "nodes": len(model.graph.node)}
        row |= {"float_nodes": float_nodes(model), "agreement_float": fidelity.agreement if fidelity else None}
        row |= {"sqnr_db": round(fidelity.sqnr_db, 2) if fidelity else None, "p50_ms": times.get(label)}
        found.append(row | {"agreement_teacher": _with_teacher(model, held, judge)})
    return found


def _with_teacher(model: Any, held: Held, judge: Judge) -> float | None:
    if held.answers is None:
        return None
    name = scores_name(model)
    parts = [np.asarray(values[name], np.float32) for values in runs(model, judge.source(), [name])]
    found = by_class(np.concatenate(parts), held.layout)
    return agreement(found, held.answers[: len(found)], held.task)


def objections(table: list[dict[str, Any]], max_drop: float) -> list[str]:
    """Why the last row's model is not worth having instead of the first one's; empty if it is.

    Args:
        table: of `rows`.
        max_drop: share of answers that may differ from the float model's.
    """
    whole, small = table[0], table[-1]
    found = []
    drop = 1 - small["agreement_float"] if small["agreement_float"] is not None else 10 ** (-small["sqnr_db"] / 20)
    if drop > max_drop:
        found.append(f"it answers otherwise than float on {drop:.1%} of the held-out samples, allowed: {max_drop:.1%}")
    if whole["p50_ms"] and small["p50_ms"] and small["p50_ms"] > SLOWER * whole["p50_ms"]:
        ratio = small["p50_ms"] / whole["p50_ms"]
        found.append(f"it is slower here: p50 {small['p50_ms']:.3f} ms, float {whole['p50_ms']:.3f} ms ({ratio:.2f} x)")
    if small["bytes"] >= whole["bytes"] and small["label"] == "mixed":
        found.append("with so many layers in float it is no smaller")
    return found
