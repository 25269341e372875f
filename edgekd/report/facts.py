"""What a run folder holds at this moment, read with patience: a run may be half-way, a record older or newer than we.

Only run.json has to be there and sound. Whatever else is missing, damaged or of another file becomes a line that says
so and names the command that makes it; nothing here raises for it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from edgekd import inference, onnx_file
from edgekd.errors import BadInput, BadRun, EdgekdError
from edgekd.inference import fed
from edgekd.run_folder import HeldOut, RunFolder, is_number, read_json, task_of
from edgekd.scoring import interval
from edgekd.tasks import KINDS, Task, choices
from edgekd.teachers.classes import class_names
from edgekd.user_code import is_file_name

STUDENTS = ("student", "student.int8")


@dataclass(frozen=True)
class Missing:
    """What the run does not hold: `what`, `why`, and the command that makes it, or ""."""

    what: str
    why: str
    command: str = ""


@dataclass(frozen=True)
class Row:
    """One model beside the others; what is not known is None.

    Attributes:
        label: teacher, student or student.int8.
        file: its name.
        bytes, parameters, macs: of the file.
        measured: its entry of bench.json, if that is of this very file.
        evaluated: its entry of evaluation.json, likewise.
        sha256: of the file.
    """

    label: str
    file: str
    bytes: float | None
    parameters: float | None
    macs: float | None
    measured: Mapping[str, Any] = field(default_factory=dict)
    evaluated: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""


class Facts:
    """A run as it is now.

    Args:
        run: its folder.
        teacher: where the teacher's file is, if it is not where run.json says.
        names: of the classes, in order; without them those that the teacher's file tells, or numbers.

    Raises:
        BadRun: no run folder, or its run.json is damaged.
    """

    def __init__(self, run: RunFolder, teacher: Path | None = None, names: Sequence[str] | None = None) -> None:
        self.run = run
        self.record = run.record()
        self.missing: list[Missing] = []
        self.task: Task = task_of(self.record)
        self.export = self._read(run.export_file, "export", "--int8")
        self.bench = self._read(run.bench_file, "bench")
        self.evaluation = self._read(run.evaluation_file, "eval", "--data evaluation.npz")
        self.fidelity = self._read(run.fidelity_file, "eval", "--no-data")
        self.metrics = self._metrics()
        self.held_out = self._held_out()
        self.files = self._files()
        self.teacher_file = self._teacher_file(teacher)
        count = self.record["teacher"]["classes"]
        self.names = names or (class_names(self.teacher_file, count) if self.teacher_file else None)

    def command(self, name: str, options: str = "") -> str:
        """A command about this run, as one would type it."""
        return f"edgekd {name} {quote(str(self.run.path))} {options}".rstrip()

    def option(self, number: int) -> str:
        """What option `number` is called: a class, or of a label off and on."""
        if not KINDS[self.task].exclusive:
            label = f"{self._name(number // 2)}, " if self.record["teacher"]["classes"] > 1 else ""
            return f"{label}{'on' if number % 2 else 'off'}"
        return self._name(number)

    def _name(self, number: int) -> str:
        named = self.names[number] if self.names and number < len(self.names) else ""
        return named or f"class {number}"

    # ------------------------------------------------------------------------------------------------------- records

    def _read(self, path: Path, command: str, options: str = "") -> dict[str, Any]:
        if not path.is_file():
            self.missing.append(Missing(path.name, "not there yet", self.command(command, options)))
            return {}
        try:
            return read_json(path)
        except EdgekdError as error:
            self.missing.append(Missing(path.name, str(error), self.command(command, options)))
            return {}

    def _metrics(self) -> list[dict[str, float]]:
        try:
            return self.run.metrics()
        except BadRun:
            self.missing.append(Missing(self.run.metrics_file.name, "not there: no round has been logged"))
            return []

    def _held_out(self) -> HeldOut | None:
        if not self.run.held_out_file.is_file():
            why = f"not there: the run is {self.record['state']}, and they are written when it ends"
            self.missing.append(Missing("samples/held_out.npz", why))
            return None
        try:
            held = self.run.held_out()
        except EdgekdError as error:
            self.missing.append(Missing("samples/held_out.npz", str(error)))
            return None
        fits = held.codes.ndim == 4 and held.codes.dtype.kind in "iu" and len(held.codes) == len(held.logits)
        if not fits:
            self.missing.append(Missing("samples/held_out.npz", "images and answers do not fit each other"))
        return held if fits and len(held.codes) else None

    # --------------------------------------------------------------------------------------------------------- files

    def _files(self) -> dict[str, Path]:
        found = {}
        for label, path in zip(STUDENTS, (self.run.student_onnx, self.run.student_int8_onnx), strict=True):
            try:
                found[label] = self.run.exported(path)
                onnx_file.load(path)
            except EdgekdError as error:
                found.pop(label, None)
                why = "not exported yet" if not path.is_file() else str(error)
                command = self.command("export", "--int8" * (label == "student.int8"))
                self.missing.append(Missing(path.name, why, command))
        return found

    def _teacher_file(self, told: Path | None) -> Path | None:
        """The teacher's file, if it is at hand and the same.

        Raises:
            BadRun: it was told, and is another one.
        """
        record = self.record["teacher"]
        path = Path(told or record["path"])
        try:
            same = path.is_file() and onnx_file.model_sha256(path) == record["sha256"]
        except (BadInput, OSError):
            same = False
        if told is not None and not same:
            self.run.models(told)  # says what is wrong, or that nothing was exported
        return path if same else None

    @cached_property
    def rows(self) -> list[Row]:
        """Teacher, student and INT8 student, as far as they are there."""
        teacher = self.record["teacher"]
        known = Row(
            "teacher",
            shown_name(str(teacher["path"])),
            teacher.get("bytes"),
            teacher.get("parameters"),
            onnx_file.macs(onnx_file.load(self.teacher_file)) if self.teacher_file else None,
            self._measured("teacher", str(teacher["sha256"])),
            self._teacher_evaluated(),
        )
        return [known, *(self._student(label, path) for label, path in self.files.items())]

    def _student(self, label: str, path: Path) -> Row:
        model, digest = onnx_file.load(path), onnx_file.model_sha256(path)
        evaluated = part(self.evaluation, "models", path.name)
        same = deep(evaluated, "model", "sha256") == digest
        return Row(
            label,
            path.name,
            onnx_file.size(path),
            onnx_file.parameters(model),
            onnx_file.macs(model),
            self._measured(label, digest),
            evaluated if same else {},
            digest,
        )

    def _measured(self, label: str, digest: str) -> Mapping[str, Any]:
        entry = part(self.bench, "models", label)
        if entry and entry.get("sha256") != digest:
            why = f"its {label} is another file than the one that is there now"
            self.missing.append(Missing("bench.json", why, self.command("bench")))
            return {}
        return entry

    def _teacher_evaluated(self) -> Mapping[str, Any]:
        """What an evaluation of a student says of this teacher."""
        for entry in part(self.evaluation, "models").values():
            told = deep(entry, "teacher")
            if isinstance(told, Mapping) and told.get("sha256") == self.record["teacher"]["sha256"]:
                return told
        return {}

    # ------------------------------------------------------------------------------------------------------ fidelity

    @cached_property
    def right(self) -> dict[str, NDArray[np.bool_]]:
        """Per student, whether it answers each question of the held-out images as the teacher does, bool `[N, Q]`."""
        held, found = self.held_out, dict[str, NDArray[np.bool_]]()
        if held is None:
            return found
        layout = self.record["teacher"]["layout"]
        theirs = choices(held.logits, held.task)
        for label, path in self.files.items():
            try:
                own = inference.logits(path, fed(held.images(), layout), layout=layout)
                if own.shape != held.logits.shape:
                    raise EdgekdError(f"it answers {list(own.shape[1:])}, the teacher {list(held.logits.shape[1:])}")
            except EdgekdError as error:
                self.missing.append(Missing(f"agreement of {path.name}", str(error)))
                continue
            found[label] = choices(own, held.task) == theirs
        return found

    def probed(self, row: Row) -> Mapping[str, Any]:
        """What `eval --no-data` told of a model's file as it is now."""
        record = part(self.fidelity, "models", row.file)
        return record if deep(record, "model", "sha256") == row.sha256 else {}

    def agreement(self, label: str) -> tuple[float, float, float] | None:
        """Share of held-out questions that a student answers as the teacher does, with the ends of its 95 % interval.

        Answers about one image are related; where it has several, the interval is that of as many independent ones as
        would vary as much (`edgekd.scoring.interval`).
        """
        right = self.right.get(label)
        if right is None:
            return None
        return (float(right.mean()), *interval(right))

    @cached_property
    def owners(self) -> NDArray[np.bool_] | None:
        """Which options the teacher chooses at each held-out image, bool `[N, O]`: classes, or of labels off and on."""
        held = self.held_out
        if held is None:
            return None
        kind, chosen = KINDS[held.task], choices(held.logits, held.task)
        options, count = kind.options(held.logits.shape[1]), len(chosen)
        if kind.exclusive or kind.grid:
            marks = np.zeros((count, options), np.bool_)
            marks[np.arange(count)[:, None], chosen] = True
            return marks
        marks = np.stack([chosen == 0, chosen == 1], axis=2)
        return marks.reshape(count, -1)

    def shares_by_option(self, label: str) -> list[float | None] | None:
        """Per option, the share of held-out images of the teacher's which the student answers alike; None without any.

        Of a label it is the share of the images where that label is so; of pixels, the mean over images that hold it.
        """
        right, owners = self.right.get(label), self.owners
        if right is None or owners is None:
            return None
        several = not KINDS[self.task].grid and right.shape[1] > 1
        own = np.repeat(right, 2, axis=1) if several else np.repeat(right.mean(axis=1)[:, None], owners.shape[1], 1)
        counts = owners.sum(axis=0)
        sums = (own * owners).sum(axis=0)
        return [float(total / count) if count else None for total, count in zip(sums, counts, strict=True)]

    # -------------------------------------------------------------------------------------------------------- ledger

    def spent(self) -> dict[str, int]:
        """Samples asked about, by teacher; empty where nothing was counted, or the file cannot be read now."""
        if not self.run.ledger_file.is_file():
            return {}
        try:
            database = sqlite3.connect(f"{self.run.ledger_file.absolute().as_uri()}?mode=ro", uri=True)
            try:
                rows = database.execute("SELECT teacher, samples FROM spent ORDER BY samples DESC").fetchall()
            finally:
                database.close()
        except sqlite3.Error as error:
            self.missing.append(Missing("ledger.sqlite", f"not readable now: {error}"))
            return {}
        return {str(teacher): int(samples) for teacher, samples in rows}


# ------------------------------------------------------------------------------------------------------ deep in records


def deep(record: Any, *keys: str) -> Any:
    """A value deep in a record, None where the way to it is not there."""
    for key in keys:
        record = record.get(key) if isinstance(record, Mapping) else None
    return record


def part(record: Any, *keys: str) -> Mapping[str, Any]:
    """A table deep in a record, an empty one where it is not there."""
    found = deep(record, *keys)
    return found if isinstance(found, Mapping) else {}


def entries(record: Any, *keys: str) -> list[Mapping[str, Any]]:
    """A list of tables deep in a record, an empty one where it is not there."""
    found = deep(record, *keys)
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []


def number(record: Any, *keys: str) -> float | None:
    """A finite number deep in a record, or None."""
    found = deep(record, *keys)
    return float(found) if is_number(found) else None


def shown_name(path: str) -> str:
    """What a teacher is called in a page that is passed on: the file's name, or a URL without what may be secret."""
    if "://" in path:
        parts = urlsplit(path)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return Path(path).name if is_file_name(path) else path
