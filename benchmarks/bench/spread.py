"""How far apart the headline of the same model is over invocations of `edgekd bench`.

python benchmarks/bench/spread.py [INVOCATIONS]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from kept import ROOT, conclude, trials

MODEL = ROOT / "examples" / "teacher.onnx"


def invoked(_: int) -> dict[str, Any]:
    """One invocation, as a user makes it."""
    command = [sys.executable, "-m", "edgekd", "bench", str(MODEL), "--json"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    entry = json.loads(done.stdout)["models"]["teacher"]
    return {key: entry["latency_ms"][key] for key in ("p50", "p90", "min")} | {"load": entry["load_ms"]}


def main(count: int) -> None:
    """Invoke it, and divide the largest by the smallest."""
    record = trials("bench_spread", count, {"model": MODEL.name, "target": "cpu"}, invoked)
    columns = {key: [trial[key] for trial in record["trials"]] for key in ("p50", "p90", "min", "load")}
    summary = {key: {"max_over_min": max(values) / min(values)} for key, values in columns.items()}
    conclude("bench_spread", record, {"invocations": len(record["trials"]), **summary})


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
