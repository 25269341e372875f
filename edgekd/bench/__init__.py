"""Measure models where they run: size, latency, memory and agreement, side by side in fresh processes."""

from edgekd.bench.chart import chart
from edgekd.bench.local import Runner
from edgekd.bench.of_run import bench_run
from edgekd.bench.operators import profile_headers, profile_rows
from edgekd.bench.protocol import Progress, bench
from edgekd.bench.table import headers, rows
from edgekd.bench_record import SCHEMA

__all__ = [
    "SCHEMA",
    "Progress",
    "Runner",
    "bench",
    "bench_run",
    "chart",
    "headers",
    "profile_headers",
    "profile_rows",
    "rows",
]
