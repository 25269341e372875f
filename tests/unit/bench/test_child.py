from __future__ import annotations

import itertools
import json
import subprocess
import sys

import numpy as np
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
        *[("int32", 0, 1), ("int64", 0, 1), ("bool", 0, 1)],
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
