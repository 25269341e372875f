"""How long `edgekd gate` takes from its start to its exit code.

python benchmarks/bench/gate_seconds.py [INVOCATIONS]
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from statistics import median
from typing import Any

from kept import ROOT, conclude, trials

MODEL = ROOT / "examples" / "teacher.onnx"
LIMITS = ("--max-size", "2MB", "--max-gzip-size", "2MB", "--max-parameters", "1M", "--max-macs", "1G")


def invoked(_: int) -> dict[str, Any]:
    """One gate on every limit that a file alone tells."""
    command = [sys.executable, "-m", "edgekd", "gate", str(MODEL), *LIMITS]
    before = time.perf_counter()
    subprocess.run(command, capture_output=True, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    return {"seconds": time.perf_counter() - before}


def main(count: int) -> None:
    """The median and the worst."""
    record = trials("bench_gate_seconds", count, {"model": MODEL.name, "limits": list(LIMITS)}, invoked)
    seconds = [trial["seconds"] for trial in record["trials"]]
    conclude(
        "bench_gate_seconds", record, {"median": median(seconds), "max": max(seconds), "invocations": len(seconds)}
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
