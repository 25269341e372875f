"""Where the time of a distillation goes: in the networks' own kernels, the optimizers, the rest of the work, or Python.

    python benchmarks/distill/loop.py [--rows …] [--rounds 20]

The default method's rounds run under torch's profiler, on one thread, whose own time is then sorted by kernel; what is
left of the wall clock is Python and waiting. Writes `benchmarks/results/loop.json`. Noise moves shares by a point or
two.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
from real import begun  # noqa: E402
from rows import ROWS  # noqa: E402

from edgekd.run_folder import write_json  # noqa: E402
from edgekd.settings import resolve_settings  # noqa: E402
from edgekd.training import Training  # noqa: E402

RESULT = ROOT / "benchmarks/results/loop.json"
LAYERS = re.compile(r"conv|batch_norm|mm|linear|relu|threshold|clamp_min|pool|hardswish|hardsigmoid|tanh|upsample")
"""Kernels of the networks' layers, forward and backward (a rectifier goes by three names)."""
SHORTCUTS = re.compile(r"aten::add_?$")
"""Sums of feature maps, `[N, C, H, W]`, forward and backward; those of anything smaller are of losses."""
STEP = "Optimizer.step"
"""The range that torch's optimizers mark: Muon multiplies matrices there, and that is no layer's work."""
WARM, ROUNDS = 4, 1000


def prepared(name: str, folder: Path) -> Training:
    """The default method's training on one row, with its procedural images asked about."""
    row = ROWS[name]
    training = begun(row, resolve_settings({"student": row.student, "steps": ROUNDS}), folder)
    for _ in range(8):
        training.ask_about_prior()
    return training


def shares(training: Training, rounds: int) -> dict[str, float]:
    """Of the wall clock, by kind."""
    for _ in range(WARM):
        training.round(training.step / ROUNDS)
    started = time.perf_counter()
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as seen:
        for _ in range(rounds):
            training.round(training.step / ROUNDS)
        wall = time.perf_counter() - started
    found: Counter[str] = Counter()
    for event in seen.events():
        found[_kind(event)] += event.self_cpu_time_total / 1e6
    return {kind: seconds / wall for kind, seconds in found.items()} | {"seconds_per_round": wall / rounds}


def _kind(event: Any) -> str:
    """Optimizers, the networks' layers and shortcuts, or the rest: losses, copies, the bank."""
    above = event
    while above is not None:
        if above.name.startswith(STEP):
            return "optimizers"
        above = above.cpu_parent
    maps = any(len(shape) == len("NCHW") for shape in event.input_shapes)
    return "networks" if LAYERS.search(event.name) or (SHORTCUTS.match(event.name) and maps) else "rest"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=["fashion-bn"])
    parser.add_argument("--rounds", type=int, default=20)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in given.rows:
            measured = shares(prepared(name, Path(folder)), given.rounds)
            found[name] = {kind: round(share, 4) for kind, share in measured.items()}
    write_json(RESULT, {"schema": "edgekd.benchmark.loop/1", "rows": found})
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
