"""One call of `edgekd bench`: what to measure, beside which teacher, against which baseline, and what is kept of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekd import baseline
from edgekd.bench.chart import chart
from edgekd.bench.local import Task
from edgekd.bench.of_run import bench_run
from edgekd.bench.protocol import Watch, bench
from edgekd.bench.where import runner_at
from edgekd.devices import Target
from edgekd.errors import BadSetting
from edgekd.run_folder import RunFolder, atomic, scratch, write_json


@dataclass(frozen=True)
class Session:
    """What was asked for.

    Attributes:
        subject: a run, or one model.
        target: where and how to measure.
        teacher: its file, if it is not where run.json says, or to go beside one model.
        shape: of one image, for a lone model that leaves it free.
        compare: a record's file, an ONNX file, `REV` or `REV:PATH`.
        saved: where to keep this measurement as a baseline.
        profile, placement: what else to find out.
        chart: where to draw the profile, if not where it lies by default.
    """

    subject: RunFolder | Path
    target: Target
    teacher: Path | None = None
    shape: tuple[int, ...] | None = None
    compare: str | None = None
    saved: Path | None = None
    profile: bool = False
    placement: bool = False
    chart: Path | None = None

    def models(self) -> dict[str, Path]:
        """Label to file. Raises as `RunFolder.models` does."""
        if isinstance(self.subject, RunFolder):
            return self.subject.models(self.teacher)
        return {"teacher": self.teacher, "student": self.subject} if self.teacher else {self.subject.stem: self.subject}

    def draw(self, record: Mapping[str, Any]) -> Path | None:
        """Draw where the time goes: into the run, or of one model into the current folder.

        Returns:
            The SVG file, or None where the runner told no profile.

        Raises:
            EdgekdError: it cannot be written.
        """
        if not any(entry.get("operators") for entry in record["models"].values()):
            return None
        own = self.subject.profile_file if isinstance(self.subject, RunFolder) else f"{self.subject.stem}.profile.svg"
        with atomic(path := self.chart or Path(own)) as file:
            file.write(chart(record).encode())
        return path


def measured(session: Session, watch: Watch) -> dict[str, Any]:
    """Measure, compare, and keep what is to be kept.

    Returns:
        The record, with "comparison" (see `baseline.compare`) where there was something to compare with.

    Raises:
        BadSetting, BadRun: the baseline cannot be found, is of another schema or model.
        BadModel, CannotLoad: see `bench`.
    """
    with scratch() as folder, runner_at(session.target.runner, session.target.machine) as runner:
        earlier, files = _baseline(session, folder)
        counted = session.placement and session.target.runner.kind == "qemu"
        wishes: dict[Task, bool] = {"profile": session.profile, "placement": session.placement, "instructions": counted}
        examined = [task for task, wanted in wishes.items() if wanted]
        told: dict[str, Any] = {"examined": examined, "watch": watch, "baselines": files, "runner": runner}
        told["twice"] = bool(files) or session.saved is not None
        if isinstance(session.subject, RunFolder):
            record = bench_run(session.subject, session.target, teacher=session.teacher, **told)
        else:
            record = bench(session.models(), session.target, input_shape=session.shape, **told)
    in_turn = record.pop("baseline", None)
    if session.saved is not None:
        write_json(session.saved, record)
    if session.compare and (against := in_turn or earlier):
        record["comparison"] = baseline.compare(record, against, session.compare, paired=in_turn is not None)
    return record


def _baseline(session: Session, folder: Path) -> tuple[dict[str, Any] | None, Mapping[str, Path]]:
    """An earlier record, or earlier files to measure in turn with the new ones."""
    name = session.compare
    if name is None:
        return None, {}
    if session.saved is not None:
        raise BadSetting("--compare and --save-baseline", where="--compare", allowed="one of them")
    revision, _, path = name.partition(":")
    if Path(name).is_file():
        return _found(session, Path(name), Path(name).read_bytes(), name, folder)
    if path:
        return _found(session, Path(path), baseline.at_revision(revision, Path(path)), name, folder)
    if Path(name).suffix in (".json", ".onnx"):
        raise BadSetting("no such file", where=f"--compare {name}", allowed="a record, an ONNX file, REV or REV:PATH")
    now = {label: file for label, file in session.models().items() if label != "teacher"}
    return None, {
        label: _kept(folder / f"{label}.onnx", baseline.at_revision(revision, file)) for label, file in now.items()
    }


def _found(
    session: Session, path: Path, content: bytes, name: str, folder: Path
) -> tuple[dict[str, Any] | None, Mapping[str, Path]]:
    if path.suffix != ".onnx":
        return baseline.read(content, name), {}
    label = next(reversed(session.models()))  # the model itself; a teacher comes before it
    return None, {label: _kept(folder / f"{label}.onnx", content)}


def _kept(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
