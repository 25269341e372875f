"""Measure everything a run has to show beside its teacher, and keep the record in the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgekd.bench.protocol import Progress, bench
from edgekd.config import Target
from edgekd.inference import fed_shape
from edgekd.run_folder import RunFolder, write_json


def bench_run(
    run: RunFolder, target: Target, *, teacher: Path | None = None, watch: Callable[[Progress], None] = lambda _: None
) -> dict[str, Any]:
    """Measure teacher, student and INT8 student of a run side by side, and write its bench.json.

    Args:
        run: exported.
        target: see `bench`.
        teacher: where the teacher's file is now, if it is not where run.json says; without it, it is left out.
        watch: see `bench`.

    Returns:
        The record of schema `edgekd.bench/1`.

    Raises:
        BadRun: not exported yet, or `teacher` is another one.
        BadModel, CannotLoad: see `bench`.
    """
    held_out = run.held_out() if run.held_out_file.is_file() else None
    record = bench(run.models(teacher), target, held_out=held_out, input_shape=_input_shape(run), watch=watch)
    write_json(run.bench_file, record)
    return record


def _input_shape(run: RunFolder) -> tuple[int, ...]:
    """Shape of one image as the run's models take it."""
    teacher = run.record()["teacher"]
    return fed_shape((teacher["channels"], teacher["height"], teacher["width"]), teacher["layout"])
