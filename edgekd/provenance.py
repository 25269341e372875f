"""What a run's record says it was made from, and whether a run may go on from it or be replaced.

It reads and writes the record's facts; when to do so is the loop's business, in `distill`.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from shlex import quote
from typing import Any

import torch
from torch import Tensor

from edgekd import __version__
from edgekd.config import DistillSettings
from edgekd.errors import BadData, BadRun, BadSetting
from edgekd.networks import choose_student, generator_of, parameters, student_of
from edgekd.networks.headers import Headers
from edgekd.networks.joined import Parts
from edgekd.objectives import find_method
from edgekd.parts import new_parts
from edgekd.proxies import read_proxies, read_sequences
from edgekd.run_folder import RunFolder, atomic
from edgekd.run_record import SCHEMA
from edgekd.teachers.open import Known, Opened
from edgekd.teachers.spec import Interface

UNBOUND = ("max_queries", "device", "fixed", "teacher_accuracy")
"""Settings that a resumed run may change: they say when to stop or where to work, not what comes out."""

LEAST = 64
"""Images of one's own that are learned from alone: fewer teach nothing, and one in 32 of them is set aside."""


def new_record(opened: Sequence[Opened], settings: DistillSettings) -> dict[str, Any]:
    """The contents of run.json for a run that begins.

    `teacher` is the first one, which decides about the student; `more_teachers` are the others.
    """
    first = opened[0].teacher.spec
    shape = (first.channels, first.height, first.width)
    count = opened[0].facts["parameters"]
    headers = _headers(settings, len(opened))
    parts = new_parts(opened, settings)
    name, width = _student(settings, shape, count, opened[0], headers, parts)
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "started": datetime.now(UTC).isoformat(timespec="microseconds"),
        "finished": None,
        "state": "running",
        "tool": {"name": "edgekd", "version": __version__},
        "teacher": opened[0].facts,
        "more_teachers": [one.facts for one in opened[1:]],
        "student": {"name": name, "width": width, "headers": asdict(headers) if headers else None},
        "generator": {
            "latent": settings.recipe.latent,
            "width": settings.recipe.generator_width,
            "output": settings.recipe.output,
            "noisy": settings.recipe.noisy,
            "batch": settings.recipe.generator_batch,
        },
        "signals": sorted(frozenset.intersection(*(one.teacher.signals for one in opened))),
        "settings": settings.model_dump(mode="json"),
        "versions": {p: version(p) for p in ("torch", "onnx", "numpy")} | {"python": platform.python_version()},
        "host": {"system": platform.platform(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "progress": {"step": 0, "seconds": 0.0, "images": 0, "collapses": 0},
    }
    record["student"]["parts"] = json.loads(json.dumps(asdict(parts))) if parts else None
    record["student"]["parameters"] = parameters(student_of(record))
    record["generator"]["parameters"] = parameters(generator_of(record))
    return record


def _student(
    settings: DistillSettings,
    shape: tuple[int, int, int],
    count: int | None,
    first: Opened,
    headers: Headers | None,
    parts: Parts | None,
) -> tuple[str, float]:
    """Name and width; one that is added to others is like them."""
    if settings.added_to is not None:
        like = RunFolder(Path(settings.added_to)).record()["student"]
        return like["name"], like["width"]
    spec = first.teacher.spec
    chosen = partial(choose_student, settings.student, settings.width, shape, spec.classes, count, spec.grid)
    return chosen(headers, parts, spec.vocabulary)


def learns_alone(settings: DistillSettings, first: Interface) -> bool:
    """Whether nothing is generated: images of one's own take the generator's place, as a method has it, or it is token
    ids that are learned from, one's own or procedural ones."""
    own = settings.samples is not None and find_method(settings.method).samples_alone
    return own or first.vocabulary is not None


def own_images(settings: DistillSettings, first: Interface, record: dict[str, Any]) -> Tensor | None:
    """The user's own unlabelled images, codes `[N, C, H, W]`, entered into the record; None if there are none.

    Raises:
        BadData: they are not readable.
        BadSetting: the recipe has no place for them.
        BadRun: they are not those that the run began with.
    """
    alone = learns_alone(settings, first)
    if settings.samples is None:
        if alone:
            _check_alone(settings, first)
            record["samples"] = {"count": 0, "sha256": None, "alone": True}
        return None
    if not (settings.recipe.prior or alone):
        hint = "--set prior=60000 --set prior_share=0.6 makes one"
        raise BadSetting("the recipe has no place for images of one's own", where="--samples", hint=hint)
    shape = (first.channels, first.height, first.width)
    if first.vocabulary is not None:
        codes = read_sequences(Path(settings.samples), first.channels, first.vocabulary)
    else:
        codes = read_proxies(Path(settings.samples), shape, first.low, first.high)
    codes = codes if alone else codes[: settings.recipe.prior]
    if alone:
        _check_alone(settings, first)
    if alone and len(codes) < LEAST:
        raise BadData(f"it holds {len(codes)} images", where=settings.samples, allowed=f"{LEAST} and more")
    told: dict[str, Any] = {"count": len(codes), "sha256": hashlib.sha256(codes.tobytes()).hexdigest()}
    told |= {"alone": True} if alone else {}
    if record.setdefault("samples", told) != told:
        raise BadRun("other images than it began with", where=settings.samples, hint="start another run")
    return torch.from_numpy(codes)


def _check_alone(settings: DistillSettings, first: Interface) -> None:
    """Refuse a recipe that wants batches generated, or token ids moved as pixels are.

    Raises:
        BadSetting: it does.
    """
    recipe, ids = settings.recipe, first.vocabulary is not None
    if recipe.share_batch or recipe.fresh or recipe.asked or (settings.samples is None and not recipe.bank):
        hint = "--method edgekd and --method teacher-class have it so" if ids else ""
        said = "share_batch=false, fresh=false, asked=0, bank above 0"
        raise BadSetting("without a generator no batch is generated", where="recipe", allowed=said, hint=hint)
    if ids and (recipe.shift or recipe.mirror):
        raise BadSetting("token ids are no pixels to move", where="recipe", allowed="shift=0, mirror=false")


def _headers(settings: DistillSettings, teachers: int) -> Headers | None:
    """One for every teacher, if the method has them.

    Raises:
        BadSetting: it has none, and the user says which.
    """
    own = find_method(settings.method).headers
    if own is None and settings.headers is not None:
        hint = "those that have: --method cdfkd-mfs, --method cdfkd"
        raise BadSetting(f"method {settings.method} has one answer for all teachers", where="--headers", hint=hint)
    return Headers(settings.headers or own, teachers) if own else None


def described_again(record: Mapping[str, Any] | None) -> list[Known]:
    """What a record tells of each of its teachers; nothing without a record."""
    return [record["teacher"], *record.get("more_teachers", [])] if record is not None else []


def check_same(
    run: RunFolder, record: dict[str, Any], opened: Sequence[Opened], settings: DistillSettings
) -> dict[str, Any]:
    """The record of a run that goes on, with the settings that may change.

    Raises:
        BadRun: other teachers or other settings than the run was started with, or it is finished.
    """
    before, now = described_again(record), [one.facts for one in opened]
    if len(before) != len(now):
        raise BadRun(f"it was started with {len(before)} teachers, not {len(now)}", where=run.path)
    for then, one in zip(before, now, strict=True):
        if then["sha256"] != one["sha256"]:
            raise BadRun(f"it was started with another teacher ({then['path']})", where=run.path)
        if then.get("access", one["access"]) != one["access"]:
            what = f"it had access {then['access']} to {then['path']}, now {one['access']}"
            raise BadRun(what, where=run.path, hint=f"say --access {then['access']}")
        if (task := one["task"]) != (known := then.get("task", "classes")):
            hint = "start another run, or say --task there"
            raise BadRun(f"it was started with {then['path']} as {known}, now {task}", where=run.path, hint=hint)
    stored, told = record["settings"], settings.model_dump(mode="json")
    bound = [key for key in told if key not in UNBOUND]
    defaults = {name: field.default for name, field in DistillSettings.model_fields.items()}
    different = [f"{k} {stored.get(k)} -> {told[k]}" for k in bound if stored.get(k, defaults[k]) != told[k]]
    if different:
        hint = "resume with the same settings, or start another run"
        raise BadRun(f"it was started with other settings ({', '.join(different)})", where=run.path, hint=hint)
    if record["state"] == "finished":
        hint = f"go on with: edgekd export {quote(str(run.path))} --int8"
        raise BadRun("it is finished already", where=run.path, hint=hint)
    return record | {"settings": told}


def bank_of(run: RunFolder, record: Mapping[str, Any] | None) -> RunFolder | None:
    """The run whose images a run learns from, if they are not its own."""
    return RunFolder(run.path / record["bank"]) if record is not None and record.get("bank") else None


def check_bank(bank: RunFolder | None, opened: Sequence[Opened], settings: DistillSettings) -> None:
    """See that a run's images and answers are what these teachers and this method would make.

    Raises:
        BadSetting: there is no such run, and nothing is to be generated either.
        BadRun: it has not come to its end, or is of other teachers or another method.
    """
    if bank is None:
        if not settings.recipe.generator_steps:
            what = "0 leaves the student without images"
            raise BadSetting(what, where="recipe: generator_steps", allowed="1 and more; 0 in what edgekd sweep writes")
        return
    record = bank.record()
    if record["state"] != "finished" and "--max-queries" not in str(record.get("stopped")):
        raise BadRun("it is not finished, so its images are not there yet", where=bank.path, hint="resume it first")
    if [one["sha256"] for one in described_again(record)] != [one.facts["sha256"] for one in opened]:
        raise BadRun("its images were answered by other teachers", where=bank.path)
    if record["settings"]["method"] != settings.method:
        raise BadRun(f"its images were made by --method {record['settings']['method']}", where=bank.path)


def take_samples(run: RunFolder, bank: RunFolder) -> None:
    """Give a run the held-out and procedural images of the one that it learned from, and the picture of them."""
    for file in (run.held_out_file, run.procedural_file, run.samples / "final.png"):
        theirs = bank.samples / file.name
        if theirs.is_file():
            with atomic(file) as copy:
                copy.write(theirs.read_bytes())


def discard(run: RunFolder, opened: Sequence[Opened]) -> None:
    """Remove a run that is to be overwritten, and nothing that is not a run.

    Raises:
        BadRun: it is no run, or a teacher lies in it.
    """
    if not run.record_file.is_file() and any(run.path.iterdir()):
        raise BadRun("not a run folder: it is left untouched", where=run.path, hint="choose another --out")
    if any(one.path is not None and one.path.resolve().is_relative_to(run.path.resolve()) for one in opened):
        raise BadRun("the teacher lies in the run that is to be replaced", where=run.path, hint="move it first")
    shutil.rmtree(run.path)


def cut_metrics(run: RunFolder, step: int) -> None:
    """Drop the lines that a killed run wrote after its last checkpoint."""
    if not run.metrics_file.is_file():
        return
    lines = run.metrics_file.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
    with atomic(run.metrics_file) as file:
        file.write("".join(line + "\n" for line in kept).encode())
