"""Measure everything a run has to show beside its teacher, and keep the record in the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

from edgekd.bench import local, record
from edgekd.bench.inputs import describe
from edgekd.bench.local import Request, Runner, Task
from edgekd.bench.protocol import Watch, bench
from edgekd.devices import Target
from edgekd.inference import fed_shape
from edgekd.onnx_file import load
from edgekd.part_files import HEAD, exported_parts
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

    Where students side by side were exported apart as well, what those take is measured afterwards, on this machine.

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
    apart = _parts(run)
    found = bench(run.models(teacher), target, held_out=held_out, input_shape=_input_shape(run), **told)
    for label, accuracy in _accuracies(run, found["models"]).items():
        found["models"][label]["accuracy"] = accuracy
    if not found["not_measured"] and told.get("runner", local.ask) is local.ask:
        for label, files in ((label, files) for label, files in apart.items() if label in found["models"]):
            found["models"][label]["apart"] = _measured_apart(files, target, _input_shape(run))
    write_json(run.bench_file, {key: value for key, value in found.items() if key != "baseline"})
    return found


def _parts(run: RunFolder) -> dict[str, dict[str, Path]]:
    """The files of the run's students and of their head, by the label of the file in which they are joined.

    Raises:
        BadRun: one is missing, or of older weights.
    """
    written = {path.name for path in run.parts.glob("*.onnx")}
    small = {name for name in written if name.endswith(".int8.onnx")}
    told = run.record()
    suffixes = {"student": "" if written - small else None, "student.int8": ".int8" if small else None}
    return {label: exported_parts(run, told, suffix) for label, suffix in suffixes.items() if suffix is not None}


def _measured_apart(files: Mapping[str, Path], target: Target, shape: tuple[int, ...]) -> dict[str, Any]:
    """What students one after the other, and all at once, take, in as many fresh processes as any model."""
    students = [path for name, path in files.items() if name != HEAD]
    inputs = describe(load(students[0]), students[0], shape, 0.0, 1.0)
    request = Request(files[HEAD], inputs, target.runtime, target.bench, task="apart", students=students)
    found = [local.ask(request) for _ in range(target.bench.processes)]
    return {"students": len(students), **record.apart(found)}


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
