"""The measuring protocol: fresh processes, interleaved, so that a busy moment of the machine hits every model alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from onnx import ModelProto

from edgekd import inference
from edgekd.bench import local, record
from edgekd.bench.child import fingerprint
from edgekd.bench.inputs import describe
from edgekd.bench.local import Measurement, Request, Runner, measure
from edgekd.codes import extent
from edgekd.devices import Runtime, Target
from edgekd.errors import BadSetting, NotMeasurable
from edgekd.onnx_file import load
from edgekd.run_folder import HeldOut
from edgekd.teachers import answers

Turn = tuple[str, str]
"""Whose turn it is: "now", "baseline" or "again", and the label of the model."""


@dataclass(frozen=True)
class Progress:
    """The process about to start: `done` of `total` are over."""

    label: str
    done: int
    total: int


Watch = Callable[[Progress], None]


def _silent(_: Progress) -> None:
    pass


def bench(
    models: Mapping[str, Path],
    target: Target,
    *,
    baselines: Mapping[str, Path] | None = None,
    twice: bool = False,
    examined: Sequence[local.Task] = (),
    held_out: HeldOut | None = None,
    input_shape: tuple[int, ...] | None = None,
    watch: Watch = _silent,
    runner: Runner = local.ask,
) -> dict[str, Any]:
    """Measure models side by side, at batch 1 unless a file fixes another.

    Args:
        models: label to file; ratios are computed for the labels "teacher", "student" and "student.int8".
        target: provider, session options and how long to measure.
        baselines: earlier files of the same labels, measured in turn with `models`; their record is `["baseline"]`.
        twice: measure the baselines (or, without any, the models) a second time in each round, and tell from such an
            A/A run how far two measurements of one file are apart: `["noise"]` of their record.
        examined: "profile", "placement" or both, each in one more process per model.
        held_out: generated images with the teacher's answers, for agreement; its range is that of the random input.
        input_shape: shape without the batch, for models that leave it free.
        watch: called before each process.
        runner: where to measure.

    Returns:
        A record of schema `edgekd.bench/1`, see `edgekd.bench.record`. Where the target cannot be measured here, all
        that needs no running is in it, and `["not_measured"]` says why.

    Raises:
        BadSetting: no model at all.
        BadModel: a file is no usable model, or leaves dimensions free.
        CannotLoad: a model cannot be loaded or run; names which.
    """
    if not models:
        raise BadSetting("nothing to measure")
    bounds = extent(held_out.low, held_out.high) if held_out else (0.0, 1.0)
    groups = {"now": models, "baseline": baselines or {}, "again": (baselines or models) if twice else {}}
    loaded = {path: load(path) for files in groups.values() for path in files.values()}
    requests = {
        (kind, label): Request(
            files[label],
            describe(loaded[files[label]], files[label], input_shape, *bounds),
            target.runtime,
            target.bench,
        )
        for label in models
        for kind, files in groups.items()
        if label in files
    }
    reason, measured = _measured(requests, target.bench.processes, watch, runner)
    environment = next((m.environment for found in measured.values() for m in found if m.environment), None)

    def of(kind: str) -> dict[str, Any]:
        """The record of one group; a baseline answers no held-out images."""
        shown = held_out if kind == "now" else None
        entries = {
            label: _entry(loaded[path], requests[kind, label], measured.get((kind, label)), shown)
            for label, path in groups[kind].items()
        }
        facts = environment or fingerprint()
        return record.assemble(entries, target, facts, len(shown.codes) if shown else 0, reason)

    found, earlier = of("now"), of("baseline") if baselines else None
    if twice and not reason:
        kind = "baseline" if baselines else "now"
        noise = {label: record.noise(measured["again", label], measured[kind, label]) for label in groups["again"]}
        (earlier or found)["noise"] = noise
    if earlier is not None:
        found["baseline"] = earlier
    if not reason:
        for label, path in models.items():
            found["models"][label] |= _examined(loaded[path], requests["now", label], examined, runner)
    return found


def _examined(model: ModelProto, request: Request, tasks: Sequence[local.Task], runner: Runner) -> dict[str, Any]:
    """What else was asked for of one model; what a runner cannot tell is left out."""
    told: dict[str, Any] = {}
    for task in tasks:
        asked = replace(request, task=task)
        with suppress(NotMeasurable):
            told |= record.examined(task, runner(asked), model, asked)
    elsewhere = runner is not local.ask or request.runtime.provider != local.CPU
    return told | ({"difference": _difference(request, runner)} if "placement" in tasks and elsewhere else {})


def _measured(
    requests: Mapping[Turn, Request], rounds: int, watch: Watch, runner: Runner
) -> tuple[str | None, dict[Turn, list[Measurement]]]:
    """A B C A B C ...: one fresh process per model and round; or why this cannot be done here."""
    measured: dict[Turn, list[Measurement]] = {turn: [] for turn in requests}
    total = rounds * len(requests)
    try:
        for step, turn in enumerate(list(requests) * rounds):
            watch(Progress(turn[1] if turn[0] == "now" else f"{turn[1]}, {turn[0]}", step, total))
            measured[turn].append(measure(requests[turn], runner))
    except NotMeasurable as error:
        return str(error), {}
    return None, measured


def _difference(request: Request, runner: Runner) -> dict[str, Any]:
    """Between what the target answers to one random input, and what this machine's own kernels do."""
    asked = replace(request, task="answer")
    return record.difference(runner(asked), local.ask(replace(asked, runtime=Runtime())))


def _entry(
    model: ModelProto, request: Request, measured: Sequence[Measurement] | None, held_out: HeldOut | None
) -> dict[str, Any]:
    times = record.times_and_memory(measured) if measured else dict(record.UNMEASURED)
    return record.file_facts(model, request) | times | _faithfulness(request.model, held_out)


def _faithfulness(path: Path, held_out: HeldOut | None) -> dict[str, float | None]:
    """Share of held-out generated images on which a model chooses what the teacher does: the class, or each label."""
    if held_out is None:
        return {"agreement": None}
    found = answers.logits(path, held_out.images(), held_out.task, layout=held_out.layout)
    return {"agreement": inference.agreement(found, held_out.logits, held_out.task)}
