"""Measure everything a run has to show beside its teacher, and keep the record in the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

from edgekd.bench.local import Runner, Task
from edgekd.bench.protocol import Watch, bench
from edgekd.config import Target
from edgekd.inference import fed_shape
from edgekd.run_folder import RunFolder, read_json, write_json


class Told(TypedDict, total=False):
    """What `bench` may be told beside the models."""

    baselines: Mapping[str, Path]
    twice: bool
    examined: Sequence[Task]
    watch: Watch
    runner: Runner


def bench_run(run: RunFolder, target: Target, *, teacher: Path | None = None, **told: Unpack[Told]) -> dict[str, Any]:
    """Measure teacher, student and INT8 student of a run side by side, and write its bench.json.

    Args:
        run: exported.
        target: see `bench`.
        teacher: where the teacher's file is now, if it is not where run.json says; without it, it is left out.
        told: see `bench`.

    Returns:
        The record of schema `edgekd.bench/1`.

    Raises:
        BadRun: not exported yet, or `teacher` is another one.
        BadModel, CannotLoad: see `bench`.
    """
    held_out = run.held_out() if run.held_out_file.is_file() else None
    record = bench(run.models(teacher), target, held_out=held_out, input_shape=_input_shape(run), **told)
    for label, accuracy in _accuracies(run, record["models"]).items():
        record["models"][label]["accuracy"] = accuracy
    write_json(run.bench_file, {key: value for key, value in record.items() if key != "baseline"})
    return record


def _accuracies(run: RunFolder, models: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Of the models that were evaluated as they are now; whether the record is sound is for `gate` to say."""
    if not run.evaluation_file.is_file():
        return {}
    evaluated = read_json(run.evaluation_file).get("models", {})
    found = {}
    for label, entry in models.items():
        told = evaluated.get(entry["file"]) if isinstance(evaluated, dict) else None
        if isinstance(told, dict) and (told.get("model") or {}).get("sha256") == entry["sha256"]:
            found[label] = told["accuracy"]
    return found


def _input_shape(run: RunFolder) -> tuple[int, ...]:
    """Shape of one image as the run's models take it."""
    teacher = run.record()["teacher"]
    return fed_shape((teacher["channels"], teacher["height"], teacher["width"]), teacher["layout"])
