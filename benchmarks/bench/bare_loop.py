"""edgekd's measurement against a bare Python loop over `session.run`, in fresh processes in turn, and its own overhead.

python benchmarks/bench/bare_loop.py [ROUNDS]

The wheel of ONNX Runtime does not hold its `onnxruntime_perf_test`, so that this loop stands in for it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from statistics import median
from typing import Any

import numpy as np
from kept import ROOT, conclude, trials

from edgekd.bench.child import timed
from edgekd.bench.inputs import describe
from edgekd.bench.local import Request, measure
from edgekd.devices import load_target
from edgekd.onnx_file import load

MODEL = ROOT / "examples" / "teacher.onnx"
BARE = """
import json, sys, time, numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
options.log_severity_level = 4
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
entry = session.get_inputs()[0]
x = numpy.random.default_rng(0).random([1, *entry.shape[1:]], numpy.float32)
spent = []
for _ in range(2000):
    before = time.perf_counter_ns()
    session.run(None, {entry.name: x})
    spent.append(time.perf_counter_ns() - before)
print(json.dumps(spent[500:]))
"""


def overhead() -> float:
    """Nanoseconds per inference that the measuring itself adds: the loop around a call that does nothing."""
    samples = timed(lambda: None, 200_000, 0, 60)
    return float(np.median(samples))


def one(_: int) -> dict[str, Any]:
    """The bare loop, then edgekd's child."""
    done = subprocess.run([sys.executable, "-c", BARE, str(MODEL)], capture_output=True, text=True, check=True)
    target = load_target("cpu")
    request = Request(MODEL, describe(load(MODEL), MODEL, None, 0, 1), target.runtime, target.bench)
    own = float(np.median(measure(request).samples_ns))
    return {"bare_ms": median(json.loads(done.stdout)) / 1e6, "edgekd_ms": own / 1e6, "overhead_ns": overhead()}


def main(count: int) -> None:
    """Compare the medians."""
    record = trials("bench_bare_loop", count, {"model": MODEL.name, "target": "cpu"}, one)
    rows = record["trials"]
    bare, own = (median(row[key] for row in rows) for key in ("bare_ms", "edgekd_ms"))
    told = {"rounds": len(rows), "bare_ms": bare, "edgekd_ms": own, "edgekd_over_bare": own / bare}
    conclude("bench_bare_loop", record, told | {"overhead_us": median(row["overhead_ns"] for row in rows) / 1e3})


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
