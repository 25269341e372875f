"""Distillation without data: the one loop, from a teacher's ONNX file to a run folder.

It never sees labelled data, and no figure of accuracy decides anything here: the last state is the result.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
import safetensors.torch
import torch

from edgekd import __version__, onnx_file
from edgekd.config import DistillSettings, validated
from edgekd.errors import BadRun, BadSetting, EdgekdError
from edgekd.networks import Standardized, choose_student, generator_of, is_factory, parameters, student_of
from edgekd.objectives import find_method
from edgekd.run_folder import SCHEMA, HeldOut, RunFolder, atomic, write_json
from edgekd.shipped import read_toml
from edgekd.synthesis.bank import from_codes
from edgekd.synthesis.grid import write_grid
from edgekd.synthesis.losses import class_entropy
from edgekd.teachers import Signal, require
from edgekd.teachers.graph import GraphTeacher
from edgekd.teachers.spec import TeacherSpec, read_spec
from edgekd.training import Training, mean_logits

DEFAULT_MINUTES = 3.8
LOG_SECONDS, CHECKPOINT_SECONDS, GRIDS = 1.0, 30.0, 10
PRIOR_SHARE = 0.1


@dataclass(frozen=True)
class Progress:
    """What a watcher is told now and then.

    Attributes:
        step: rounds done.
        fraction: share of the run that is done, 0 to 1.
        seconds, seconds_left: training time so far, and an estimate of the rest.
        images_per_second: images the student learned from, over the last interval.
        losses: mean of every term since the last report.
        message: a sentence for people, or None.
    """

    step: int
    fraction: float
    seconds: float
    seconds_left: float
    images_per_second: float
    losses: dict[str, float]
    message: str | None = None


Watch = Callable[[Progress], None]
Stop = Callable[[], bool]


def distill(
    teacher: Path,
    settings: DistillSettings,
    run: RunFolder,
    *,
    resume: bool = False,
    overwrite: bool = False,
    watch: Watch = lambda _: None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> None:
    """Distil one ONNX teacher into a student, into a run folder.

    A run of `--steps` is reproducible: killed at any moment and resumed, it ends bitwise where an uninterrupted run on
    the same machine ends. A run of `--minutes` follows the clock, and so differs from run to run.

    Args:
        teacher: the ONNX file.
        settings: what decides the outcome.
        run: where to write; must not exist, unless resuming or overwriting.
        resume: go on from the folder's checkpoint; teacher and settings must be those it was started with.
        overwrite: replace an existing run.
        watch: told of progress about once a second.
        checkpoint_seconds: time between checkpoints; the last state is always written.

    Raises:
        BadModel, BadSetting, BadRun, UnknownName: nothing has been written.
        EdgekdError: the disk is full, or training diverged; the last checkpoint is kept.
        KeyboardInterrupt: passed on after a checkpoint was written.
    """
    spec = read_spec(
        *(teacher,),
        **{name: getattr(settings, name) for name in ("input_shape", "input_range", "mean", "std", "layout")},
    )
    run.check_writable()
    if run.path.exists() and not (resume or overwrite):
        hint = "choose another --out, or go on with --resume, or replace it with --overwrite"
        raise BadRun("the run folder exists already", where=run.path, hint=hint)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    objective = find_method(settings.method).objective(settings.recipe)
    source = GraphTeacher(spec)
    require(source, objective.needs, f"method {settings.method}")
    record = run.record() if resume else _new_record(source, settings)
    if resume:
        _check_same(run, record, spec, settings)
    torch.manual_seed(settings.seed)  # here, so that a run begun again draws what it drew the first time
    student = _checked(student_of(record), spec)
    training = Training([source], student, generator_of(record), objective, settings.recipe)
    if overwrite and run.path.exists():
        _discard(run, spec)
    if resume:
        _take_up(training, run)
    with _recorded(run, record, training), _stop_asked() as stop:
        _tell_what_is_missing(source, settings, watch)
        clock = _Clock(training, settings)
        _ask_about_prior(training, clock, run, watch, stop)
        _loop(training, clock, run, watch, stop, checkpoint_seconds)
        _finish(training, run)


def _tell_what_is_missing(teacher: GraphTeacher, settings: DistillSettings, watch: Watch) -> None:
    if settings.recipe.statistics and Signal.STATISTICS not in teacher.signals:
        _say(watch, "the teacher holds no batch-norm statistics, so that term is left out: expect a weaker student")


def _ask_about_prior(training: Training, clock: _Clock, run: RunFolder, watch: Watch, stop: Stop) -> None:
    """Ask the teachers about the procedural images; the time it takes counts, and is a tenth of the whole at most."""
    missing = len(training.prior.codes) - len(training.prior)
    if missing:
        _say(watch, f"asking the teacher about {missing:,} procedural images")
    while clock.fraction() < PRIOR_SHARE or not len(training.prior):
        if not training.ask_about_prior():
            break
        training.seconds = clock.seconds()
        if stop():
            _save(training, run)
            raise KeyboardInterrupt


def _say(watch: Watch, message: str) -> None:
    watch(Progress(0, 0.0, 0.0, 0.0, 0.0, {}, message))


def _loop(
    training: Training, clock: _Clock, run: RunFolder, watch: Watch, stop: Stop, checkpoint_seconds: float
) -> None:
    """Generator steps, student steps, log, checkpoint; until the time or the steps are used up, one round at least."""
    recipe = training.recipe
    journal = _Journal(training, run, watch)
    saved = time.monotonic()
    while (fraction := clock.fraction()) < 1 or not training.step:
        training.set_rates(fraction)
        terms: dict[str, float] = {}
        for _ in range(recipe.generator_steps):
            images, logits, terms = training.generator_step()
            fresh = training.keep(images, logits)
        for _ in range(recipe.student_steps):
            batch = fresh if recipe.share_batch else training.diet()
            terms |= training.student_step(*batch)
        training.step += 1
        training.seconds = clock.seconds()
        journal.note(terms, clock.fraction())
        if stop():
            _save(training, run)
            raise KeyboardInterrupt
        if time.monotonic() - saved > checkpoint_seconds:
            _save(training, run)
            saved = time.monotonic()


@contextmanager
def _stop_asked() -> Iterator[Stop]:
    """Hold Ctrl-C back until a round is whole, for half a round cannot be resumed; a second Ctrl-C ends at once."""
    asked = False
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def note(*_: object) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)


class _Clock:
    """Training time, which a resumed run takes up where it was."""

    def __init__(self, training: Training, settings: DistillSettings) -> None:
        self.training, self.settings = training, settings
        self.started = time.monotonic() - training.seconds

    def seconds(self) -> float:
        return time.monotonic() - self.started

    def fraction(self) -> float:
        if self.settings.steps is not None:
            return self.training.step / self.settings.steps
        assert self.settings.minutes is not None
        return self.seconds() / (60 * self.settings.minutes)


class _Journal:
    """Sums loss terms up; about once a second writes a line to metrics.jsonl and tells the watcher."""

    def __init__(self, training: Training, run: RunFolder, watch: Watch) -> None:
        self.training, self.run, self.watch = training, run, watch
        self.sums: dict[str, float] = {}
        self.rounds, self.images, self.told, self.pictured = 0, training.images_seen, time.monotonic(), 0

    def note(self, terms: Mapping[str, float], fraction: float) -> None:
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.rounds += 1
        if not np.isfinite(sum(terms.values())):
            raise EdgekdError(f"the losses are no longer finite at step {self.training.step}: {dict(terms)}")
        now = time.monotonic()
        if now - self.told < LOG_SECONDS and fraction < 1:
            return
        self._tell(fraction, now - self.told)
        self.sums, self.rounds, self.images, self.told = {}, 0, self.training.images_seen, now
        if int(fraction * GRIDS) > self.pictured:
            self.pictured = int(fraction * GRIDS)
            kept = self.training.held_out
            write_grid(self.run.samples / f"step_{self.training.step:06d}.png", *kept.in_order())

    def _tell(self, fraction: float, interval: float) -> None:
        training = self.training
        means = {name: total / self.rounds for name, total in self.sums.items()}
        rate = (training.images_seen - self.images) / max(interval, 1e-9)
        left = training.seconds * (1 - fraction) / max(fraction, 1e-9) if fraction < 1 else 0.0
        progress = Progress(training.step, min(fraction, 1.0), training.seconds, left, rate, means)
        logits = training.held_out.in_order()[1][-256:]
        balance = class_entropy(logits.argmax(dim=1), logits.shape[1])
        line = {"step": training.step, "seconds": round(training.seconds, 2), "class_entropy": round(balance, 4)}
        line |= {name: round(value, 6) for name, value in means.items()}
        with self.run.metrics_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.watch(progress)


# ------------------------------------------------------------------------------------------------ what is on disk


def _new_record(teacher: GraphTeacher, settings: DistillSettings) -> dict[str, Any]:
    spec, model = teacher.spec, onnx_file.load(teacher.spec.path)
    shape = (spec.channels, spec.height, spec.width)
    count = onnx_file.parameters(model)
    name, width = choose_student(settings.student, settings.width, shape, spec.classes, count)
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "started": datetime.now(UTC).isoformat(timespec="microseconds"),
        "finished": None,
        "state": "running",
        "tool": {"name": "edgekd", "version": __version__},
        "teacher": _described(spec) | {"bytes": onnx_file.size(spec.path), "parameters": count},
        "student": {"name": name, "width": width},
        "generator": {
            "latent": settings.recipe.latent,
            "width": settings.recipe.generator_width,
            "soft_output": settings.recipe.soft_output,
        },
        "signals": sorted(teacher.signals),
        "settings": settings.model_dump(mode="json"),
        "versions": {p: version(p) for p in ("torch", "onnx", "numpy")} | {"python": platform.python_version()},
        "host": {"system": platform.platform(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "progress": {"step": 0, "seconds": 0.0, "images": 0},
    }
    record["student"]["parameters"] = parameters(student_of(record))
    record["generator"]["parameters"] = parameters(generator_of(record))
    return record


def _described(spec: TeacherSpec) -> dict[str, Any]:
    return asdict(spec) | {"path": str(spec.path.resolve())}


def _check_same(run: RunFolder, record: Mapping[str, Any], spec: TeacherSpec, settings: DistillSettings) -> None:
    """Refuse to go on with another teacher or other settings than the run was started with."""
    if record["teacher"]["sha256"] != spec.sha256:
        raise BadRun(f"it was started with another teacher ({record['teacher']['path']})", where=run.path)
    before, now = record["settings"], settings.model_dump(mode="json")
    different = [f"{key} {before.get(key)} -> {now[key]}" for key in now if before.get(key) != now[key]]
    if different:
        hint = "resume with the same settings, or start another run"
        raise BadRun(f"it was started with other settings ({', '.join(different)})", where=run.path, hint=hint)
    if record["state"] == "finished":
        raise BadRun(
            "it is finished already", where=run.path, hint=f"go on with: edgekd export {quote(str(run.path))} --int8"
        )


def _checked(student: Standardized, spec: TeacherSpec) -> Standardized:
    """Try a student on two images, before anything is written: it may be the user's own.

    Raises:
        BadSetting: it does not answer `[2, K]`.
    """
    images = torch.full((2, spec.channels, spec.height, spec.width), spec.low)
    allowed = f"[N, {spec.channels}, {spec.height}, {spec.width}] to [N, {spec.classes}]"
    try:
        with torch.no_grad():
            shape = list(student.eval()(images).shape)
    except Exception as error:  # the user's own network may raise anything
        raise BadSetting(f"{type(error).__name__}: {error}", where="student", allowed=allowed) from error
    if shape != [2, spec.classes]:
        raise BadSetting(f"it answers {shape} to two images", where="student", allowed=allowed)
    return student


def _discard(run: RunFolder, spec: TeacherSpec) -> None:
    """Remove a run that is to be overwritten, and nothing that is not a run."""
    if not run.record_file.is_file() and any(run.path.iterdir()):
        raise BadRun("not a run folder: it is left untouched", where=run.path, hint="choose another --out")
    if spec.path.resolve().is_relative_to(run.path.resolve()):
        raise BadRun("the teacher lies in the run that is to be replaced", where=run.path, hint="move it first")
    shutil.rmtree(run.path)


def _take_up(training: Training, run: RunFolder) -> None:
    """Go on from the checkpoint; a run that was killed before its first one starts from its beginning."""
    for leftover in run.path.rglob(".*.??????*"):  # what `atomic` was writing when the run was killed
        if leftover.is_file():
            leftover.unlink()
    if run.checkpoint_file.is_file():
        training.restore(run.checkpoint_file)
    _cut_metrics(run, training.step)


def _cut_metrics(run: RunFolder, step: int) -> None:
    """Drop the lines that a killed run wrote after its last checkpoint."""
    if not run.metrics_file.is_file():
        return
    lines = run.metrics_file.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
    with atomic(run.metrics_file) as file:
        file.write("".join(line + "\n" for line in kept).encode())


@contextmanager
def _recorded(run: RunFolder, record: dict[str, Any], training: Training) -> Iterator[None]:
    """Keep run.json true: running, then finished, interrupted or failed."""
    write_json(run.record_file, record | {"state": "running"})
    _save(training, run)
    state = "failed"
    try:
        yield
        state = "finished"
    except KeyboardInterrupt:
        state = "interrupted"
        raise
    finally:
        finished = datetime.now(UTC).isoformat(timespec="microseconds") if state == "finished" else None
        ended = {"state": state, "finished": finished, "progress": _counted(training)}
        write_json(run.record_file, record | ended)


def _counted(training: Training) -> dict[str, float]:
    return {"step": training.step, "seconds": round(training.seconds, 2), "images": training.images_seen}


def _save(training: Training, run: RunFolder) -> None:
    """Checkpoint and weights of this moment, so that an interrupted run can be resumed and exported."""
    training.save(run.checkpoint_file)
    for network, path in ((training.student, run.student_weights), (training.generator, run.generator_weights)):
        weights = {name: value.contiguous() for name, value in network.state_dict().items()}
        with atomic(path) as file:
            file.write(safetensors.torch.save(weights))


def _finish(training: Training, run: RunFolder) -> None:
    """The last state, and the held-out images with the teachers' answers in full precision."""
    _save(training, run)
    codes, stored = training.held_out.in_order()
    write_grid(run.samples / "final.png", codes, stored)
    images = from_codes(codes, training.low, training.high)
    with torch.no_grad():
        answers = [mean_logits([t(part) for t in training.teachers]) for part in torch.split(images, 256)]
    run.write_held_out(HeldOut(codes.numpy(), torch.cat(answers).numpy(), training.low, training.high))


# ------------------------------------------------------------------------------------------------------ settings


def resolve_settings(
    flags: Mapping[str, Any], config_file: Path | None = None, run: RunFolder | None = None
) -> DistillSettings:
    """Settings from, first to last: the command line, a settings file or the run being resumed, the method's recipe.

    Args:
        flags: what the user set, by `DistillSettings` field; `recipe` may be a partial mapping. None means not set.
        config_file: a TOML file of the same keys.
        run: the run that is being resumed.

    Raises:
        BadSetting, UnknownName: lists all that is wrong.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    stored = run.record()["settings"] if run is not None else {}
    if is_factory(str(stored.get("student", ""))) and given.get("student") != stored["student"]:
        hint = f"if its code may run here, say --student {quote(stored['student'])}"
        raise BadRun(f"its student is code of one's own, {stored['student']}", where=run and run.path, hint=hint)
    written = read_toml(config_file) if config_file else {}
    merged = {**stored, **written, **given}
    method = find_method(str(merged.setdefault("method", "edgekd")))
    parts = [source.get("recipe", {}) for source in (stored, written, given)]
    if not all(isinstance(part, Mapping) for part in parts):
        raise BadSetting("recipe must be a table of weights and sizes", where=config_file)
    base = {} if stored else method.recipe.model_dump()
    merged["recipe"] = {**base, **{key: value for part in parts for key, value in part.items()}}
    if "steps" in given and "minutes" not in given:
        merged["minutes"] = None
    if "minutes" in given and "steps" not in given:
        merged["steps"] = None
    if merged.get("minutes") is None and merged.get("steps") is None:
        merged["minutes"] = DEFAULT_MINUTES
    return validated(DistillSettings, merged, config_file or "settings")
