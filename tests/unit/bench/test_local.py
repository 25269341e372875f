from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from edgekd.bench.inputs import InputSpec
from edgekd.bench.local import Request, measure
from edgekd.config import Protocol, Runtime
from edgekd.errors import CannotLoad

SHORT = Protocol(processes=1, warmup_runs=2, warmup_seconds=0, runs=10, seconds=0.01)


def request(path: Path, runtime: Runtime = Runtime(), **changes) -> Request:  # noqa: B008 - it is immutable
    spec = {"name": "image", "shape": (1, 1, 8, 8), "dtype": "float32", "low": 0.0, "high": 1.0} | changes
    return Request(path, [InputSpec(**spec)], runtime, SHORT)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_model_is_measured(make_classifier):
    found = measure(request(make_classifier()))
    assert len(found.samples_ns) >= 10
    assert found.samples_ns.dtype == np.int64
    assert found.samples_ns.min() > 0
    assert found.load_ns > found.samples_ns.min()
    assert found.warmup_runs >= 2
    assert 0 < found.baseline_bytes <= found.peak_bytes


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the child's peak is read from getrusage")
def test_peak_memory_is_the_childs_own(make_classifier):
    fat = np.ones(400_000_000, np.uint8)  # ru_maxrss of a child would start from this process's size
    assert measure(request(make_classifier())).peak_bytes < fat.nbytes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "other"}, "cannot load or run it: .*image"),
        ({"shape": (1, 2, 8, 8)}, "cannot load or run it: .*invalid dimensions"),
    ],
)
def test_a_model_that_cannot_run(make_classifier, changes, message):
    with pytest.raises(CannotLoad, match=message) as caught:
        measure(request(make_classifier(), **changes))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3


def test_a_file_onnx_runtime_refuses(tmp_path):
    (tmp_path / "no.onnx").write_bytes(b"not a model")
    with pytest.raises(CannotLoad, match=r"no\.onnx: ONNX Runtime cannot load or run it"):
        measure(request(tmp_path / "no.onnx"))


def test_a_provider_that_cedes_to_the_cpu_is_an_error(make_classifier):
    # onnxruntime only warns and goes on with the CPU when the requested provider is not there
    with pytest.raises(CannotLoad, match="CUDAExecutionProvider did not start, ONNX Runtime fell back to CPU"):
        measure(request(make_classifier(), Runtime(provider="CUDAExecutionProvider")))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "was ended by SIGSEGV"),
        ("raise SystemExit('out of paper')", "failed with status 1: out of paper"),
        ("print('hello')", "failed with status 0: it said nothing"),
        ("print('[1]')", "failed with status 0"),
        ("print('{\"load_ns\": 1}')", "failed with status 0"),
        ('print(\'{"error": "no room"}\')', "cannot load or run it: no room"),
    ],
)
def test_a_child_that_does_not_answer(code, message):
    with pytest.raises(CannotLoad, match=rf"m\.onnx: .*{message}") as caught:
        measure(request(Path("m.onnx")), python(code))
    assert "\n" not in str(caught.value)


def test_no_such_command():
    with pytest.raises(CannotLoad, match="no process can be started"):
        measure(request(Path("m.onnx")), ["./there-is-no-such-program"])


def test_a_hanging_child_is_killed_and_reaped(tmp_path):
    code = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    with pytest.raises(CannotLoad, match=r"no answer within 1 s, the process was killed"):
        measure(request(Path("m.onnx")), python(code), timeout=1)
    assert gone(int((tmp_path / "pid").read_text()))


def test_ctrl_c_kills_the_child(tmp_path):
    pid = tmp_path / "pid"
    child = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid()) + '.'); time.sleep(600)"
    parent = (
        # A shell that starts tests in the background has them ignore Ctrl-C, and their children with them.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "import sys; from pathlib import Path; from edgekd.bench.local import *;"
        f"measure(Request(Path('m'), [], Runtime(), Protocol()), [sys.executable, '-c', {child!r}])"
    )
    process = subprocess.Popen(python(parent), stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while not (pid.is_file() and pid.read_text().endswith(".")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=60)
    finally:
        process.kill()
    assert b"KeyboardInterrupt" in complaint
    assert gone(int(pid.read_text().rstrip(".")))
