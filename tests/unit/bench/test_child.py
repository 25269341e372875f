from __future__ import annotations

import itertools
import json
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest

from edgekd.bench import child
from edgekd.bench.local import CHILD


@pytest.fixture
def clock(monkeypatch):
    """A clock that advances one second at every look."""
    ticks = itertools.count(0, 10**9)
    monkeypatch.setattr(child.time, "perf_counter_ns", lambda: next(ticks))


@pytest.mark.parametrize(
    ("runs", "seconds", "cap", "expected"),
    [(5, 0, 99, 5), (1, 9, 99, 5), (1, 0, 0, 1), (100, 0, 9, 5)],
    ids=["runs decide", "seconds decide", "cap at once", "cap cuts runs short"],
)
@pytest.mark.usefixtures("clock")
def test_how_long_it_samples(runs, seconds, cap, expected):
    assert child.timed(lambda: None, runs, seconds, cap).tolist() == [10**9] * expected


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [
        *[("float32", -2, 3), ("float16", -2, 3), ("float64", -2, 3), ("uint8", 0, 255), ("int8", -128, 127)],
        *[("int32", -2, 3), ("int64", -2, 3), ("bool", 0, 1)],
    ],
)
def test_random_inputs_fill_their_range(dtype, low, high):
    values = child.random_input([2, 50, 50], dtype, -2, 3, np.random.default_rng(0))
    assert values.dtype == np.dtype(dtype)
    assert values.shape == (2, 50, 50)
    assert low <= values.min() < low + 0.1 * (high - low)
    assert high >= values.max() > high - 0.1 * (high - low)


def test_it_imports_neither_edgekd_nor_what_edgekd_needs():
    code = f"import sys, runpy; runpy.run_path({CHILD[-1]!r}); print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "onnxruntime" in modules
    assert not {"edgekd", "onnx", "pydantic", "torch"} & set(modules)


def test_it_ends_itself_when_nobody_is_left_to_end_it(make_classifier):
    request = {
        "task": "measure",
        "plugin": "",
        "affinity": [],
        "io_binding": True,
        "stable": 0.02,
        "model": str(make_classifier()),
        "inputs": [{"name": "image", "shape": [1, 1, 8, 8], "dtype": "float32", "low": 0, "high": 1}],
        "provider": "CPUExecutionProvider",
        "provider_options": {},
        "session_config": {},
        "intra_op_threads": 1,
        "inter_op_threads": 1,
        "seed": 0,
        "warmup_runs": 1,
        "warmup_seconds": 0,
        "runs": 1,
        "seconds": 3600,
        "cap_seconds": 3600,
        "deadline_seconds": 1,
    }
    done = subprocess.run([*CHILD, json.dumps(request)], capture_output=True, timeout=60, check=False)
    assert done.returncode == -child.signal.SIGALRM


def warm(durations, stable=0.02):
    """A warm-up over runs of known length, in blocks of two."""
    spent = iter(durations)
    now = 0

    def run():
        nonlocal now
        now += next(spent)

    request = {"warmup_runs": 4, "warmup_seconds": 0, "cap_seconds": 10**9, "stable": stable}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(child.time, "perf_counter_ns", lambda: now)
        return child.warmed_up(run, request)


def test_warm_up_ends_when_two_neighbouring_blocks_agree():
    assert warm([900, 900, 500, 500, 400, 400, 401, 401, 1, 1]) == (8, True)
    assert warm([400, 400, 400, 400]) == (4, True)


def test_a_warm_up_that_never_settles_ends_and_says_so():
    assert warm([100, 100, 200, 200] * child.BLOCKS) == (2 * child.BLOCKS, False)


@pytest.mark.parametrize("io_binding", [True, False])
def test_inputs_and_outputs_stay_where_they_are(make_classifier, io_binding):
    session = onnxruntime.InferenceSession(make_classifier(), providers=["CPUExecutionProvider"])
    feed = {"image": np.ones((1, 1, 8, 8), np.float32)}
    found = session.run(None, feed)
    call = child.repeated(session, feed, {"io_binding": io_binding}, found)
    bound = call.func.__name__ == "run_with_iobinding"
    assert bound is io_binding
    answer = call()
    np.testing.assert_array_equal(call.args[0].copy_outputs_to_cpu()[0] if bound else answer[0], found[0])
