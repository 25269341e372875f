"""Measure models where they run: size, latency, memory and agreement, side by side in fresh processes."""

from edgekd.bench.of_run import bench_run
from edgekd.bench.protocol import Progress, Runner, bench
from edgekd.bench.record import SCHEMA
from edgekd.bench.table import headers, rows

__all__ = ["SCHEMA", "Progress", "Runner", "bench", "bench_run", "headers", "rows"]
