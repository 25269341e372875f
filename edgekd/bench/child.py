"""The measured process: load one model, run it, print what it took as one line of JSON.

    python -P child.py '{"task": "measure", "model": ..., "inputs": [...], ...}'      (`-`: a line of stdin)

It is one file that imports nothing but the standard library, numpy and onnxruntime, so that its peak memory is the
model's and the runtime's, and so that it can be copied alone to another machine. It computes no statistics and takes no
decisions: `edgekd.bench.local` says what to do, and explains failures.

Tasks: `measure` times; `placement` tells which provider took which node; `profile` how long each operator takes;
`answer` what the model says to one input, to compare it with another machine's; `repeat` runs it and times nothing;
`apart` how long students and the head that joins them take, one after the other and with a thread for each student.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import platform
import signal
import sys
import tempfile
import threading
import time
from array import array
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

CANNOT_LOAD = 3
BLOCKS = 20
"""A warm-up that has not settled after so many blocks never will: then that is said."""
ISA = ("avx", "avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "asimddp", "i8mm", "sve")
"""Instruction sets that decide how fast INT8 and float kernels run, by their names in /proc/cpuinfo."""

_STATUS = Path("/proc/self/status")
CPUINFO = Path("/proc/cpuinfo")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_PAGES = 1024


class NotHere(Exception):
    """This machine lacks what the target asks for: it is no fault of the model's."""


# -------------------------------------------------------------------------------------------------------- machine


def cpu_flags(cpuinfo: str) -> set[str]:
    """Instruction sets by the names that the text of /proc/cpuinfo has for them, on x86 or ARM."""
    lines = (line.partition(":") for line in cpuinfo.splitlines())
    return {flag for key, _, value in lines if key.strip() in ("flags", "Features") for flag in value.split()}


def processor(cpuinfo: str) -> tuple[str, list[str]]:
    """Model name and instruction sets of interest from the text of Linux's /proc/cpuinfo (x86 or ARM)."""
    facts: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            facts.setdefault(key.strip(), value.strip())
    has = cpu_flags(cpuinfo)
    part = " ".join(facts[key] for key in ("CPU implementer", "CPU part") if key in facts)
    name = facts.get("model name") or facts.get("Model") or part
    return name or platform.processor() or platform.machine(), [isa for isa in ISA if isa in has]


def text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def fingerprint() -> dict[str, Any]:
    """CPU, instruction sets, cores, governor, system and versions, and how loaded the machine is."""
    name, isa = processor(text_of(CPUINFO))
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": name,
        "isa": isa,
        "cores": os.cpu_count(),
        "cores_allowed": allowed,
        "governor": text_of(_GOVERNOR) or None,
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": onnxruntime.__version__,
        "load_average": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
    }


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


def pin(cores: list[int]) -> None:
    """Keep this process, and the threads it will start, on some cores."""
    if not cores:
        return
    if not hasattr(os, "sched_setaffinity"):
        raise NotHere(f"{platform.system()} does not let a process choose its cores; drop the affinity")
    try:
        os.sched_setaffinity(0, cores)
    except OSError as error:
        there = sorted(os.sched_getaffinity(0))
        raise NotHere(f"cores {cores} cannot be had, those of this process are {there}") from error


# -------------------------------------------------------------------------------------------------------- session


def options_of(request: dict[str, Any]) -> Any:
    """Session options: threads, and the configuration entries as they are."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = request["intra_op_threads"]
    options.inter_op_num_threads = request["inter_op_threads"]
    for key, value in request["session_config"].items():
        options.add_session_config_entry(key, value)
    return options


def devices_of(request: dict[str, Any]) -> list[Any]:
    """The devices that a plug-in wheel offers here, after registering its library under the provider's name."""
    provider, plugin = request["provider"], request["plugin"]
    try:
        library = importlib.import_module(plugin).get_library_path()
    except ImportError as error:
        raise NotHere(f"the plug-in {plugin} is not installed; {request['hint']}") from error
    try:
        onnxruntime.register_execution_provider_library(provider, library)
    except Exception as error:
        raise NotHere(f"the plug-in {plugin} cannot be registered: {first_line(error)}") from error
    found = [device for device in onnxruntime.get_ep_devices() if device.ep_name == provider]
    if wanted := request["device"]:
        found = [device for device in found if device.device.type.name.lower() == wanted]
    if not found:
        raise NotHere(f"{provider} is registered but offers no {wanted or ''} device here".replace("  ", " "))
    return found[:1]


def open_session(request: dict[str, Any], options: Any) -> Any:
    """A session on the requested provider; what it does not take falls to the CPU unless the session forbids it."""
    provider = request["provider"]
    if request["plugin"]:
        options.add_provider_for_devices(devices_of(request), request["provider_options"])
        return onnxruntime.InferenceSession(request["model"], options)
    available = onnxruntime.get_available_providers()
    if provider not in available:
        raise NotHere(f"{provider} is not in this onnxruntime, which has {', '.join(available)}; {request['hint']}")
    session = onnxruntime.InferenceSession(
        request["model"], options, providers=[(provider, request["provider_options"])]
    )
    if session.get_providers()[0] != provider:
        raise NotHere(f"{provider} did not start, ONNX Runtime fell back to {session.get_providers()[0]}")
    return session


def random_input(shape: list[int], dtype: str, low: float, high: float, rng: np.random.Generator) -> np.ndarray:
    """A contiguous input within the range: uniform for floats and wider integers, every code for 8 bits."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return np.ascontiguousarray(rng.uniform(low, high, shape).astype(kind))
    ends = (int(low), int(high)) if kind.itemsize > 1 else (0, 1)
    if kind.kind in "iu" and kind.itemsize == 1:
        ends = np.iinfo(kind).min, np.iinfo(kind).max
    return np.ascontiguousarray(rng.integers(ends[0], ends[1] + 1, shape).astype(kind))


def feed_of(request: dict[str, Any]) -> dict[str, np.ndarray]:
    """The same inputs for the same seed."""
    rng = np.random.default_rng(request["seed"])
    return {i["name"]: random_input(i["shape"], i["dtype"], i["low"], i["high"], rng) for i in request["inputs"]}


# ----------------------------------------------------------------------------------------------------------- time


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


def warmed_up(run: Callable[[], object], request: dict[str, Any]) -> tuple[int, bool]:
    """Run in blocks of half the warm-up until two neighbours have medians within `stable` of each other.

    Returns:
        How many runs that took, and whether it settled.
    """
    runs, seconds = -(-request["warmup_runs"] // 2), request["warmup_seconds"] / 2
    count, before, latest = 0, 0.0, time.perf_counter() + request["cap_seconds"]
    for _ in range(BLOCKS):
        block = timed(run, runs, seconds, request["cap_seconds"])
        count, now = count + len(block), float(np.median(block))
        if abs(now - before) <= request["stable"] * now:
            return count, True
        if time.perf_counter() > latest:
            break
        before = now
    return count, False


def bound(session: Any, feed: dict[str, np.ndarray], outputs: list[np.ndarray]) -> Callable[[], object]:
    """A call that reads its inputs, and writes its outputs, where they already lie."""
    binding = session.io_binding()
    for name, value in feed.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(value))
    for entry, value in zip(session.get_outputs(), outputs, strict=True):
        binding.bind_ortvalue_output(entry.name, onnxruntime.OrtValue.ortvalue_from_numpy(value))
    return partial(session.run_with_iobinding, binding)


def repeated(session: Any, feed: dict[str, np.ndarray], request: dict[str, Any], found: list[Any]) -> Any:
    """What is timed: with preallocated inputs and outputs where all of these are tensors, else a plain run."""
    tensors = [value for value in found if isinstance(value, np.ndarray) and value.dtype.kind in "fiub"]
    if request["io_binding"] and len(tensors) == len(found):
        return bound(session, feed, [np.ascontiguousarray(value) for value in tensors])
    return partial(session.run, [output.name for output in session.get_outputs()], feed)


# ---------------------------------------------------------------------------------------------------------- tasks


def measure(request: dict[str, Any]) -> dict[str, Any]:
    """Load, first run, warm-up, samples. Times in ns, memory in bytes; the peak is taken before sampling needs room."""
    environment, feed = fingerprint(), feed_of(request)
    pin(request["affinity"])
    gc.collect()
    forget_peak()
    baseline = memory("VmHWM")
    options = options_of(request)
    before = time.perf_counter_ns()
    session = open_session(request, options)
    loaded = time.perf_counter_ns()
    found = session.run(None, feed)
    first = time.perf_counter_ns() - loaded
    call = repeated(session, feed, request, found)
    gc.disable()
    warmup, stable = warmed_up(call, request)
    peak = memory("VmHWM")
    samples = timed(call, request["runs"], request["seconds"], request["cap_seconds"])
    return {
        "load_ns": loaded - before,
        "first_ns": first,
        "warmup_runs": warmup,
        "stable": stable,
        "samples_ns": samples.tolist(),
        "baseline_bytes": baseline,
        "peak_bytes": peak,
        "environment": environment,
    }


def placement(request: dict[str, Any]) -> dict[str, Any]:
    """Which provider took which node, after ONNX Runtime's own first simplifications.

    Raises:
        NotHere: an ONNX Runtime before 1.24 does not tell.
    """
    options = options_of(request)
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = open_session(request, options)
    if not hasattr(session, "get_provider_graph_assignment_info"):
        raise NotHere(f"onnxruntime {onnxruntime.__version__} does not tell which provider took which node")
    parts = session.get_provider_graph_assignment_info()
    return {"parts": [[part.ep_name, [[n.name, n.op_type] for n in part.get_nodes()]] for part in parts]}


def profile(request: dict[str, Any]) -> dict[str, Any]:
    """Time per node as ONNX Runtime's profiler sees it: name, operator, provider, and one duration in µs per run."""
    feed = feed_of(request)
    pin(request["affinity"])
    with tempfile.TemporaryDirectory() as folder:
        options = options_of(request)
        options.enable_profiling, options.profile_file_prefix = True, str(Path(folder) / "profile")
        session = open_session(request, options)
        call = partial(session.run, None, feed)
        skipped = len(timed(call, request["warmup_runs"], request["warmup_seconds"], request["cap_seconds"]))
        runs = len(timed(call, request["runs"], 0, request["cap_seconds"]))
        events = json.loads(Path(session.end_profiling()).read_text())
    nodes: dict[str, dict[str, Any]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            told = event["args"]
            name = event["name"].removesuffix("_kernel_time")
            row = {"node": name, "operator": told["op_name"], "provider": told["provider"], "us": []}
            nodes.setdefault(name, row)["us"].append(event["dur"])
    for row in nodes.values():
        row["us"] = row["us"][skipped:]
    return {"runs": runs, "nodes": list(nodes.values())}


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """What the model says to the input that the seed makes: one list of numbers per output."""
    session = open_session(request, options_of(request))
    found = session.run(None, feed_of(request))
    return {"outputs": [np.asarray(value, np.float64).ravel().tolist() for value in found]}


def repeat(request: dict[str, Any]) -> dict[str, Any]:
    """Run the model so many times, for somebody else to count what that takes."""
    session, feed = open_session(request, options_of(request)), feed_of(request)
    for _ in range(request["runs"]):
        session.run(None, feed)
    return {"runs": request["runs"]}


def apart(request: dict[str, Any]) -> dict[str, Any]:
    """Times in ns of students and head: the students in turn, or all at once and a thread for each; then the head."""
    feed = feed_of(request)
    pin(request["affinity"])
    students = [open_session(request | {"model": path}, options_of(request)) for path in request["students"]]
    head = open_session(request, options_of(request))
    entry, calls = head.get_inputs()[0], [partial(student.run, None, feed) for student in students]
    shapes = [call()[0].shape for call in calls]
    # Beside each other they lie along the axis on which they add up to what the head takes.
    axis = next(a for a, size in enumerate(entry.shape) if a and sum(shape[a] for shape in shapes) == size)

    def way(found: Callable[[], Any]) -> list[int]:
        def joined() -> object:
            return head.run(None, {entry.name: np.concatenate([one[0] for one in found()], axis=axis)})

        warmed_up(joined, request)
        return timed(joined, request["runs"], request["seconds"], request["cap_seconds"]).tolist()

    gc.disable()
    with ThreadPoolExecutor(len(students)) as threads:
        return {
            "in_turn_ns": way(lambda: [call() for call in calls]),
            "abreast_ns": way(lambda: threads.map(lambda call: call(), calls)),
        }


TASKS = {task.__name__: task for task in (measure, placement, profile, answer, repeat, apart)}


def first_line(error: BaseException) -> str:
    """The first non-empty line of an error's text, or its type's name."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def leave_with_caller() -> None:
    """End when standard input does: the caller, perhaps on another machine, is no longer there."""
    while os.read(0, 1):  # the buffered reader would hold a lock when the interpreter ends
        pass
    os._exit(1)


def main() -> int:
    """Answer the request in `argv[1]`; the exit status is 3 when the model cannot be loaded or run."""
    request = json.loads(sys.stdin.readline() if sys.argv[1] == "-" else sys.argv[1])
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it in silence; the parent does the talking
    if hasattr(signal, "alarm"):
        signal.alarm(request["deadline_seconds"])  # should the parent be killed, a hanging run still ends
    if sys.argv[1] == "-":
        threading.Thread(target=leave_with_caller, daemon=True).start()
    try:
        found = TASKS[request["task"]](request)
    except NotHere as error:
        found = {"not_here": str(error)}
    except Exception as error:  # providers raise what they like
        found = {"error": first_line(error)}
    print(json.dumps(found))  # noqa: T201
    return CANNOT_LOAD if found.keys() & {"error", "not_here"} else 0


if __name__ == "__main__":
    sys.exit(main())
