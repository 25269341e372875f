"""How often `edgekd bench --compare` cries wolf, and how often it sees one: A/A runs, and networks 5 and 10 % longer.

    python benchmarks/bench/comparisons.py [TRIALS]

Each trial measures in turn, as `edgekd bench` does, a chain of twenty equal convolutions three times (baseline, again
for the noise floor, and once more as if it were new) and chains of 21 and 22. `elsewhen` compares with the baseline
that the trial before recorded, as a baseline kept in a file would be.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from kept import conclude, trials
from onnx import TensorProto, helper, numpy_helper

from edgekd.bench.inputs import InputSpec
from edgekd.bench.local import Request, measure
from edgekd.devices import load_target
from edgekd.timing import Samples, change, thinned

LAYERS, CHANNELS, SIDE = 20, 24, 16
LENGTHS = {"baseline": 0, "again": 0, "same": 0, "5 %": LAYERS // 20, "10 %": LAYERS // 10}
KEPT = 1000
Measured = dict[str, list[Samples]]


def chain(path: Path, layers: int) -> Path:
    """A network of equal layers, so that one more of twenty is 5 % more work."""
    rng = np.random.default_rng(0)
    shape = [1, CHANNELS, SIDE, SIDE]
    nodes, weights = [], []
    for k in range(layers):
        value = (rng.normal(size=(CHANNELS, CHANNELS, 3, 3)) / CHANNELS).astype(np.float32)
        weights.append(numpy_helper.from_array(value, f"w{k}"))
        nodes.append(helper.make_node("Conv", [f"x{k}", f"w{k}"], [f"c{k}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{k}"], [f"x{k + 1}"]))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x0", f"x{layers}")]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def measured(folder: Path, before: Measured) -> tuple[dict[str, Any], Measured]:
    """One trial: every network in five fresh processes, in turn."""
    target = load_target("cpu")
    spec = [InputSpec("x0", (1, CHANNELS, SIDE, SIDE), "float32", 0.0, 1.0)]
    requests = {
        name: Request(chain(folder / f"{name[0]}.onnx", LAYERS + more), spec, target.runtime, target.bench)
        for name, more in LENGTHS.items()
    }
    found: Measured = {name: [] for name in requests}
    for _ in range(target.bench.processes):
        for name, request in requests.items():
            found[name].append(thinned(measure(request).samples_ns, KEPT))
    floor = change(found["again"], found["baseline"], paired=True).floor()
    trial: dict[str, Any] = {"floor": floor, "p50_ms": median(np.median(one) for one in found["baseline"]) / 1e6}
    pairs = dict.fromkeys(("same", "5 %", "10 %"), (found["baseline"], True))
    for name, (then, paired) in pairs.items():
        trial[name] = told(found[name], then, floor, paired)
    if before:
        trial["elsewhen"] = told(found["same"], before["baseline"], floor, False)
    return trial, found


def told(now: list[Samples], then: list[Samples], floor: float, paired: bool) -> dict[str, Any]:
    """A verdict, and what it rests on."""
    one = change(now, then, paired=paired)
    return {"ratio": one.ratio, "low": one.low, "high": one.high, "verdict": one.verdict(1 + floor)}


def main(count: int) -> None:
    """Make the trials and count their verdicts."""
    before: Measured = {}

    def one(_: int) -> dict[str, Any]:
        nonlocal before
        with TemporaryDirectory() as folder:
            trial, before = measured(Path(folder), before)
        return trial

    target = load_target("cpu")
    settings = {"layers": LAYERS, "channels": CHANNELS, "side": SIDE, "bench": target.bench.model_dump(mode="json")}
    record = trials("bench_comparisons", count, settings, one)
    summary: dict[str, Any] = {"trials": len(record["trials"])}
    for name in ("same", "elsewhen", "5 %", "10 %"):
        rows = [trial[name] for trial in record["trials"] if name in trial]
        counts = Counter(row["verdict"] for row in rows)
        share = counts["regressed"] / len(rows) if rows else None
        ratio = median(row["ratio"] for row in rows) if rows else None
        summary[name] = {"trials": len(rows), "median_ratio": ratio, "regressed_share": share, "verdicts": dict(counts)}
    summary["floor"] = {
        "median": median(t["floor"] for t in record["trials"]),
        "max": max(t["floor"] for t in record["trials"]),
    }
    conclude("bench_comparisons", record, summary)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
