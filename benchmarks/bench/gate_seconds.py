"""How long `edgekd gate` takes from its start to its exit code.

python benchmarks/bench/gate_seconds.py [INVOCATIONS]
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from statistics import median
from typing import Any

from kept import ROOT, conclude, trials

MODEL = ROOT / "examples" / "teacher.onnx"
LIMITS = ("--max-size", "2MB", "--max-gzip-size", "2MB", "--max-parameters", "1M", "--max-macs", "1G")


def invoked(_: int) -> dict[str, Any]:
    """One gate on every limit that a file alone tells: seconds on the clock, and of a core."""
    command = [sys.executable, "-m", "edgekd", "gate", str(MODEL), *LIMITS]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    before, spent = time.perf_counter(), cpu_of_children()
    subprocess.run(command, capture_output=True, check=True, env=environment | {"PYTHONPATH": str(ROOT)})
    return {"seconds": time.perf_counter() - before, "cpu_seconds": cpu_of_children() - spent}


def cpu_of_children() -> float:
    """Seconds of user and system time of the processes that were waited for."""
    told = resource.getrusage(resource.RUSAGE_CHILDREN)
    return told.ru_utime + told.ru_stime


def main(count: int) -> None:
    """The median and the worst."""
    invoked(0)  # an installed edgekd is compiled, a checkout is after its first start
    record = trials("bench_gate_seconds", count, {"model": MODEL.name, "limits": list(LIMITS)}, invoked)
    seconds, spent = ([trial[key] for trial in record["trials"]] for key in ("seconds", "cpu_seconds"))
    told = {"invocations": len(seconds), "median": median(seconds), "max": max(seconds), "cpu_median": median(spent)}
    conclude("bench_gate_seconds", record, told)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
