"""The measured process: load one model, run it, print what it took as one line of JSON.

    python -P child.py '{"model": ..., "inputs": [...], ...}'

It is one file that imports nothing but the standard library, numpy and onnxruntime, so that its peak memory is the
model's and the runtime's, and so that it can be copied alone to another machine. It computes no statistics and takes no
decisions: `edgekd.bench.local` says what to do, and explains failures.
"""

from __future__ import annotations

import gc
import json
import signal
import sys
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

CANNOT_LOAD = 3
_STATUS = Path("/proc/self/status")
_PAGES = 1024


def memory(field: str) -> int:
    """Bytes held now (`VmRSS`) or at most so far (`VmHWM`).

    `ru_maxrss` is only the fallback: on Linux a child inherits the peak of the process that started it.
    """
    try:
        lines = _STATUS.read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(field + ":")) * _PAGES
    except (OSError, StopIteration):
        import resource  # noqa: PLC0415 - it does not exist on every system

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * _PAGES


def forget_peak() -> None:
    """Let the high-water mark start again from here, where the kernel allows it (Linux, own process)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def random_input(shape: list[int], dtype: str, low: float, high: float, rng: np.random.Generator) -> np.ndarray:
    """A contiguous input within the range: uniform for floats, every code for 8 bits, 0 or 1 for wider integers.

    Wider integers are indices as a rule, and 0 and 1 are valid in any table.
    """
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return np.ascontiguousarray(rng.uniform(low, high, shape).astype(kind))
    ends = np.iinfo(kind) if kind.kind in "iu" and kind.itemsize == 1 else None
    return np.ascontiguousarray(
        rng.integers(ends.min if ends else 0, (ends.max if ends else 1) + 1, shape).astype(kind)
    )


def timed(run: Callable[[], object], runs: int, seconds: float, cap: float) -> array[int]:
    """Durations in ns of repeated calls: at least `runs` and at least `seconds`, but no longer than `cap` seconds."""
    samples, clock = array("q"), time.perf_counter_ns
    start = clock()
    enough, latest = start + int(seconds * 1e9), start + int(cap * 1e9)
    while True:
        before = clock()
        run()
        after = clock()
        samples.append(after - before)
        if (after >= enough and len(samples) >= runs) or after >= latest:
            return samples


def open_session(request: dict[str, Any]) -> Any:
    """A session on the requested provider alone; a provider that cedes the model to the CPU is an error."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads, options.inter_op_num_threads = (
        request["intra_op_threads"],
        request["inter_op_threads"],
    )
    for key, value in request["session_config"].items():
        options.add_session_config_entry(key, value)
    provider = (request["provider"], request["provider_options"])
    session = onnxruntime.InferenceSession(request["model"], options, providers=[provider])
    if session.get_providers()[0] != request["provider"]:
        raise RuntimeError(
            f"{request['provider']} did not start, ONNX Runtime fell back to {session.get_providers()[0]}"
        )
    return session


def measure(request: dict[str, Any]) -> dict[str, Any]:
    """Load, first run, warm-up, samples. Times in ns, memory in bytes; the peak is taken before sampling needs room."""
    rng = np.random.default_rng(request["seed"])
    feed = {i["name"]: random_input(i["shape"], i["dtype"], i["low"], i["high"], rng) for i in request["inputs"]}
    gc.collect()
    forget_peak()
    baseline = memory("VmHWM")
    before = time.perf_counter_ns()
    session = open_session(request)
    load = time.perf_counter_ns() - before
    outputs = [output.name for output in session.get_outputs()]
    run = session.run
    call = lambda: run(outputs, feed)  # noqa: E731
    gc.disable()
    first = timed(call, 1, 0, 0)[0]
    warmup = timed(call, request["warmup_runs"], request["warmup_seconds"], request["cap_seconds"])
    peak = memory("VmHWM")
    samples = timed(call, request["runs"], request["seconds"], request["cap_seconds"])
    return {
        "load_ns": load,
        "first_ns": first,
        "warmup_runs": len(warmup),
        "samples_ns": samples.tolist(),
        "baseline_bytes": baseline,
        "peak_bytes": peak,
    }


def main() -> int:
    """Answer the request in `argv[1]`; the exit status is 3 when the model cannot be loaded or run."""
    request = json.loads(sys.argv[1])
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it in silence; the parent does the talking
    if hasattr(signal, "alarm"):
        signal.alarm(request["deadline_seconds"])  # should the parent be killed, a hanging run still ends
    try:
        answer = measure(request)
    except Exception as error:  # providers raise what they like
        text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        print(json.dumps({"error": text}))  # noqa: T201
        return CANNOT_LOAD
    print(json.dumps(answer))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
