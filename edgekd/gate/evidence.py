"""What is known of one model: its file, the run it belongs to, and the records that were made of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import Any, Literal

from onnx import ModelProto

from edgekd import baseline, onnx_file
from edgekd.errors import BadRun, BadSetting
from edgekd.run_folder import RunFolder, read_json


@dataclass(frozen=True)
class Evidence:
    """What is known of one model: its file, and the run it belongs to, if any, whose records are read on demand."""

    file: Path
    model: ModelProto
    run: RunFolder | None
    bench: Path | None = None

    def of_run(self) -> RunFolder:
        """The run; `check` lets no limit that needs one come here without it."""
        assert self.run is not None
        return self.run

    @cached_property
    def sha256(self) -> str:
        """Of the file as it is now."""
        return onnx_file.model_sha256(self.file)

    @cached_property
    def teacher(self) -> dict[str, Any]:
        """What run.json keeps of the teacher."""
        found: dict[str, Any] = self.of_run().record()["teacher"]
        return found

    @property
    def label(self) -> str:
        """What the model is called in a bench record."""
        return self.file.name.removesuffix(".onnx")

    @property
    def bench_file(self) -> Path:
        """Where times and memory were written down."""
        return self.bench or self.of_run().require(self.of_run().bench_file, "bench")

    @cached_property
    def bench_record(self) -> dict[str, Any]:
        """That record."""
        return baseline.read_file(self.bench) if self.bench else read_json(self.bench_file)

    @cached_property
    def measured(self) -> dict[str, Any]:
        """This file's entry of the bench record."""
        return self._benched(self.label, self.sha256)

    def _benched(self, label: str, sha256: object) -> dict[str, Any]:
        entry = _entry(self.bench_record, label)
        if not entry or entry.get("sha256") != sha256:
            what = f"it holds no measurement of the {label} as it is now"
            subject = quote(str(self.run.path if self.run else self.file))
            raise BadRun(what, where=self.bench_file, hint=f"measure again: edgekd bench {subject}")
        return entry

    def measurement(self, *keys: str) -> float:
        """A number of this file's entry in the bench record.

        Raises:
            BadRun: it was not measured.
        """
        if keys[0] in ("latency_ms", "load_ms") and self.bench_record.get("simulated"):
            what = f"its {keys[0]} is a simulator's, and says nothing about the device"
            raise BadRun(what, where=self.bench_file, hint="drop the limits on times, or measure on the device")
        return number(self.measured, self.bench_file, *keys)

    def of_teacher(self, *keys: str) -> float:
        """A number of the teacher's entry in the bench record. Raises as `measurement` does."""
        return number(self._benched("teacher", self.teacher["sha256"]), self.bench_file, *keys)

    def recorded_of_teacher(self, key: str) -> float:
        """A number that run.json keeps of the teacher."""
        return number(self.teacher, self.of_run().record_file, key)

    def require_equal_batches(self, limit: str) -> None:
        """Refuse to divide times of different batches.

        Raises:
            BadSetting: the teacher's file fixes another batch than the model's.
        """
        own, theirs = self.measurement("batch"), self.of_teacher("batch")
        if own != theirs:
            what = f"{limit} compares a batch of {own:g} with the teacher's {theirs:g}"
            raise BadSetting(what, where=self.bench_file, hint="drop it, or use a teacher whose batch is free")

    def require_inputs_of(self, earlier: baseline.Entry, where: str) -> None:
        """Refuse to compare with a model that is fed something else; what a file leaves free fits.

        Raises:
            BadRun: the baseline's inputs differ in number, type or shape.
        """
        then = [(tuple(one["shape"]), str(one["dtype"])) for one in earlier["inputs"]]
        now = [
            (onnx_file.dimensions(value), onnx_file.dtype_name(value)) for value in onnx_file.real_inputs(self.model)
        ]
        alike = len(now) == len(then) and all(
            dtype == kind and (dims is None or _fits(dims, shape))
            for (dims, dtype), (shape, kind) in zip(now, then, strict=True)
        )
        if not alike:
            told = [", ".join(f"{kind} {list(dims or ())}" for dims, kind in inputs) for inputs in (then, now)]
            what = f"it is of another model: {earlier['file']} takes {told[0]}, {self.file.name} {told[1]}"
            raise BadRun(what.replace("None", "?"), where=where, hint="choose the baseline of this model")

    def where(self, source: Literal["model", "bench", "samples", "evaluation"]) -> str:
        """The file a value comes from."""
        if source == "bench" and self.bench:
            return str(self.bench)
        if source == "model" or self.run is None:
            return str(self.file)
        files = {
            "bench": self.run.bench_file,
            "samples": self.run.held_out_file,
            "evaluation": self.run.evaluation_file,
        }
        return str(files[source])

    def macs(self) -> float:
        """Multiply-accumulates of one image.

        Raises:
            BadSetting: the file does not tell them.
        """
        count = onnx_file.macs(self.model)
        if count is None:
            hint = "drop max_macs, or export it with fixed shapes"
            raise BadSetting("its MACs cannot be counted, shapes are unknown", where=self.file, hint=hint)
        return count

    def agreement(self) -> float:
        """With the teacher's choices on the held-out generated images, run now."""
        from edgekd import inference  # noqa: PLC0415 - ONNX Runtime takes long to import, and most budgets need none

        held_out = self.of_run().held_out()
        answers = inference.logits(self.file, held_out.images(), layout=held_out.layout)
        return inference.agreement(answers, held_out.logits, held_out.task)

    def accuracy(self) -> float:
        """From evaluation.json, if it is of this file."""
        return number(self._evaluated, self.of_run().evaluation_file, "accuracy")

    def teacher_accuracy(self) -> float:
        """The teacher's on the same images."""
        return number(self._evaluated, self.of_run().evaluation_file, "teacher", "accuracy")

    @cached_property
    def _evaluated(self) -> dict[str, Any]:
        run = self.of_run()
        command = f"eval {quote(str(self.file))} --data evaluation.npz"
        if not run.evaluation_file.is_file():
            raise BadRun("evaluation.json is missing", where=run.path, hint=f"run first: edgekd {command}")
        entry = _entry(read_json(run.evaluation_file), self.file.name)
        identity = entry.get("model")
        if not isinstance(identity, dict) or identity.get("sha256") != self.sha256:
            what = f"it holds no evaluation of {self.file.name} as it is now"
            raise BadRun(what, where=run.evaluation_file, hint=f"evaluate again: edgekd {command}")
        return entry


def _fits(dims: Sequence[int | None], shape: Sequence[int]) -> bool:
    return len(dims) == len(shape) and all(not own or own == other for own, other in zip(dims, shape, strict=True))


def _entry(record: Mapping[str, Any], label: str) -> dict[str, Any]:
    """One of a record's models; empty when it is not there."""
    models = record.get("models")
    entry = models.get(label) if isinstance(models, dict) else None
    return entry if isinstance(entry, dict) else {}


def number(record: Mapping[str, Any], where: Path, *keys: str) -> float:
    """A number deep in a record.

    Raises:
        BadRun: it is not there, or no number.
    """
    value: Any = record
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise BadRun(f"{'.'.join(keys)} is no number", where=where, hint="write it again with this edgekd")
    return value
