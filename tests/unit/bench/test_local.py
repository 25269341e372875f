from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from edgekd.bench.inputs import InputSpec
from edgekd.bench.local import Request, ask, measure
from edgekd.devices import Protocol, Runtime
from edgekd.errors import CannotLoad, NotMeasurable

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


def test_a_provider_that_is_not_here_is_told_apart_from_a_bad_model(make_classifier):
    # onnxruntime only warns and goes on with the CPU when the requested provider is not there
    with pytest.raises(NotMeasurable, match=r"CUDAExecutionProvider is not in this onnxruntime, which has .*CPU"):
        measure(request(make_classifier(), Runtime(provider="CUDAExecutionProvider")))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "was ended by SIGSEGV"),
        ("raise SystemExit('out of paper')", "failed with status 1: out of paper"),
        ("print('hello')", "failed with status 0: it said nothing"),
        ("print('[1]')", "failed with status 0"),
        ('print(\'{"error": "no room"}\')', "cannot load or run it: no room"),
    ],
)
def test_a_child_that_does_not_answer(code, message):
    with pytest.raises(CannotLoad, match=rf"m\.onnx: .*{message}") as caught:
        ask(request(Path("m.onnx")), python(code))
    assert "\n" not in str(caught.value)


def test_no_such_command():
    with pytest.raises(CannotLoad, match="no process can be started"):
        ask(request(Path("m.onnx")), ["./there-is-no-such-program"])


def test_a_hanging_child_is_killed_and_reaped(tmp_path):
    code = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    with pytest.raises(CannotLoad, match=r"no answer within 1 s, the process was killed"):
        ask(request(Path("m.onnx")), python(code), timeout=1)
    assert gone(int((tmp_path / "pid").read_text()))


def test_ctrl_c_kills_the_child(tmp_path):
    pid = tmp_path / "pid"
    child = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid()) + '.'); time.sleep(600)"
    parent = (
        # A shell that starts tests in the background has them ignore Ctrl-C, and their children with them.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "import sys; from pathlib import Path; from edgekd.bench.local import *;"
        f"ask(Request(Path('m'), [], Runtime(), Protocol()), [sys.executable, '-c', {child!r}])"
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


def test_an_answer_that_is_no_measurement():
    with pytest.raises(CannotLoad, match=r"m\.onnx: .*its answer is no measurement"):
        measure(request(Path("m.onnx")), lambda _: {"load_ns": 1})


def test_what_a_hanging_child_started_is_killed_with_it(tmp_path):
    grandchild = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}])"
    with pytest.raises(CannotLoad, match="no answer within"):
        ask(request(Path("m.onnx")), python(code), timeout=3)
    pid = int((tmp_path / "pid").read_text())
    for _ in range(500):  # whoever adopted it has to reap it first
        if gone(pid) or "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]:
            return
        time.sleep(0.01)
    pytest.fail("the grandchild still runs")


def test_cores_that_are_not_there(make_classifier):
    wanted = replace(request(make_classifier()), protocol=SHORT.model_copy(update={"affinity": (4095,)}))
    with pytest.raises(NotMeasurable, match=r"cores \[4095\] cannot be had, those of this process are \["):
        measure(wanted)


def test_it_stays_on_its_cores_and_says_where_it_ran(make_classifier):
    core = min(os.sched_getaffinity(0))
    pinned = replace(request(make_classifier()), protocol=SHORT.model_copy(update={"affinity": (core,)}))
    assert measure(pinned).environment["onnxruntime"] == onnxruntime.__version__


def test_a_plug_in_that_is_not_installed_names_what_to_install(make_classifier):
    runtime = Runtime(provider="MoonExecutionProvider", plugin="onnxruntime_ep_moon", wheel="onnxruntime-ep-moon")
    with pytest.raises(NotMeasurable, match=r"onnxruntime_ep_moon is not installed; .*pip install onnxruntime-ep-moon"):
        measure(request(make_classifier(), runtime))


def test_placement_names_every_node_and_its_provider(make_classifier):
    parts = ask(replace(request(make_classifier()), task="placement"))["parts"]
    assert {provider for provider, _ in parts} == {"CPUExecutionProvider"}
    assert {"Conv", "Gemm"} <= {operator for _, nodes in parts for _, operator in nodes}


def test_a_profile_has_one_duration_per_run_and_node(make_classifier):
    found = ask(replace(request(make_classifier()), task="profile"))
    assert found["runs"] >= 10
    assert {len(node["us"]) for node in found["nodes"]} == {found["runs"]}


def test_the_same_seed_is_answered_alike(make_classifier):
    asked = replace(request(make_classifier()), task="answer")
    (first,) = ask(asked)["outputs"]
    assert len(first) == 4
    assert ask(asked)["outputs"] == [first]
    assert ask(replace(asked, seed=1))["outputs"] != [first]
