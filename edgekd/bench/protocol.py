"""The measuring protocol: fresh processes, interleaved, so that a busy moment of the machine hits every model alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime

from edgekd import inference
from edgekd.bench import record
from edgekd.bench.environment import fingerprint
from edgekd.bench.inputs import describe
from edgekd.bench.local import Measurement, Request, measure
from edgekd.config import Target
from edgekd.errors import BadSetting, CannotLoad
from edgekd.onnx_file import load
from edgekd.run_folder import HeldOut
from edgekd.teachers import answers

Runner = Callable[[Request], Measurement]
"""Where a request is carried out. `local.measure` is one; another machine is another."""


@dataclass(frozen=True)
class Progress:
    """The process about to start: `done` of `total` are over."""

    label: str
    done: int
    total: int


def _silent(_: Progress) -> None:
    pass


def bench(
    models: Mapping[str, Path],
    target: Target,
    *,
    held_out: HeldOut | None = None,
    input_shape: tuple[int, ...] | None = None,
    watch: Callable[[Progress], None] = _silent,
    runner: Runner = measure,
) -> dict[str, Any]:
    """Measure models side by side on this machine, at batch 1 unless a file fixes another.

    Args:
        models: label to file; ratios are computed for the labels "teacher", "student" and "student.int8".
        target: provider, session options and how long to measure.
        held_out: generated images with the teacher's answers, for agreement; its range is that of the random input.
        input_shape: shape without the batch, for models that leave it free.
        watch: called before each process.
        runner: where to measure.

    Returns:
        A record of schema `edgekd.bench/1`, see `edgekd.bench.record`.

    Raises:
        BadSetting: no model at all.
        BadModel: a file is no usable model, or leaves dimensions free.
        CannotLoad: this machine lacks the provider, or cannot load or run a model; names which.
    """
    if not models:
        raise BadSetting("nothing to measure")
    _require_provider(target)
    low, high = (held_out.low, held_out.high) if held_out else (0.0, 1.0)
    loaded = {label: load(path) for label, path in models.items()}
    requests = {
        label: Request(path, describe(loaded[label], path, input_shape, low, high), target.runtime, target.bench)
        for label, path in models.items()
    }
    environment = fingerprint()
    measured = _interleaved(requests, target.bench.processes, watch, runner)
    entries = {
        label: record.file_facts(loaded[label], requests[label])
        | record.times_and_memory(measured[label])
        | _faithfulness(path, held_out)
        for label, path in models.items()
    }
    return record.assemble(entries, target, environment, len(held_out.codes) if held_out else 0)


def _require_provider(target: Target) -> None:
    available = onnxruntime.get_available_providers()
    if target.runtime.provider not in available:
        what = f"{target.runtime.provider} is not in this onnxruntime"
        raise CannotLoad(what, where=f"target {target.name}", allowed=", ".join(available))


def _interleaved(
    requests: Mapping[str, Request], rounds: int, watch: Callable[[Progress], None], runner: Runner
) -> dict[str, Sequence[Measurement]]:
    """A B C A B C ...: one fresh process per model and round."""
    measured: dict[str, list[Measurement]] = {label: [] for label in requests}
    total = rounds * len(requests)
    for step, label in enumerate(list(requests) * rounds):
        watch(Progress(label, step, total))
        measured[label].append(runner(requests[label]))
    return dict(measured)


def _faithfulness(path: Path, held_out: HeldOut | None) -> dict[str, float | None]:
    """Share of held-out generated images on which a model chooses what the teacher does: the class, or each label."""
    if held_out is None:
        return {"agreement": None}
    found = answers.logits(path, held_out.images(), held_out.task, layout=held_out.layout)
    return {"agreement": inference.agreement(found, held_out.logits, held_out.task)}
