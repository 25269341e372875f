"""How a teacher's representation is shared out to students side by side, and what such students begin with.

It knows runs: one student more may be added to those of a finished one, which stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional

from edgekd.config import DistillSettings
from edgekd.errors import BadRun, BadSetting
from edgekd.networks import load_student, parts_of
from edgekd.networks.joined import Joined, Parts, balanced, contiguous
from edgekd.networks.standardized import Standardized
from edgekd.objectives import METHODS, find_method
from edgekd.run_folder import RunFolder
from edgekd.synthesis.supply import drawn
from edgekd.teachers import Teacher
from edgekd.teachers.codes import from_codes, within
from edgekd.teachers.last_layer import last_layer
from edgekd.teachers.open import Opened

LOOKED_AT, PART = 1024, 128
"""Procedural images by which variances are measured, and how many of them at a time."""


def new_parts(opened: Sequence[Opened], settings: DistillSettings) -> Parts | None:
    """What each of the students of a new run answers; None where the method has one student.

    Raises:
        BadSetting: the method has one student and the user says how many, or several teachers.
        BadModel: no dense representation is found.
        BadRun: one is to be added to a run of another teacher.
    """
    if find_method(settings.method).students is None:
        _refuse_flags(settings)
        return None
    if len(opened) > 1:
        hint = "--method edgekd learns their mean, cdfkd-mfs has a header for each"
        raise BadSetting(f"{len(opened)} teachers", where=f"method {settings.method}", allowed="one", hint=hint)
    if settings.added_to is not None:
        return _with_one_more(RunFolder(Path(settings.added_to)), opened[0])
    assert settings.students is not None, "resolve_settings takes the method's own"
    teacher, count = opened[0].teacher, settings.students
    with torch.device("cpu"):  # where teachers are until training begins
        layer = last_layer(teacher)
        chunks = contiguous(layer.weight.shape[1], count)
        if settings.chunks == "balanced":
            chunks = balanced(_variances(teacher), count)
    kernel = (layer.weight.shape[2], layer.weight.shape[3]) if layer.grid else (1, 1)
    return Parts(chunks, (), layer.rectified, layer.grid, kernel)


def told(parts: Parts) -> str:
    """A line for people."""
    lengths = sorted({len(chunk) for chunk in parts.chunks}, reverse=True)
    each = " and ".join(map(str, lengths))
    uneven = ", which does not divide evenly" if len(lengths) > 1 else ""
    more = f", and {len(parts.added)} added to them" * bool(parts.added)
    kind = "channels" if parts.grid else "numbers"
    students = "1 student" if len(parts.chunks) == 1 else f"{len(parts.chunks)} students"
    return f"{students} for {len(parts.order)} {kind}{uneven}: {each} each{more}"


def begin(student: Standardized, teacher: Teacher, settings: DistillSettings) -> None:
    """Give students side by side what they begin with: the teacher's last layer, or all of an earlier run's.

    It is for a run without a checkpoint, before its teacher is moved to a GPU.

    Others are left as they are.

    Raises:
        BadRun: the earlier run's weights are missing or damaged.
    """
    network = student.network
    if not isinstance(network, Joined):
        return
    if settings.added_to is None:
        with torch.device("cpu"):
            layer = last_layer(teacher)
        network.head.begin_with(layer.weight, layer.bias)
        return
    run = RunFolder(Path(settings.added_to))
    try:
        lacking = student.load_state_dict(safetensors.torch.load_file(run.student_weights), strict=False)
        new = f"network.students.{len(network.students) - 1}."
        if lacking.unexpected_keys or not all(key.startswith(new) for key in lacking.missing_keys):
            raise RuntimeError("of other students")
    except (OSError, SafetensorError, RuntimeError) as error:
        what = "its weights are missing, damaged or of other students"
        raise BadRun(what, where=run.path, hint="distill it again") from error


def learn(student: Standardized, settings: DistillSettings) -> None:
    """Where a student is added to others, let it learn alone."""
    if isinstance(student.network, Joined) and settings.added_to is not None:
        student.network.learn_only([len(student.network.students) - 1])


def _refuse_flags(settings: DistillSettings) -> None:
    flags = {"--students": settings.students, "--chunks": settings.chunks, "--add-student": settings.added_to}
    flags |= {"--representation": settings.representation}
    if said := [flag for flag, value in flags.items() if value is not None]:
        several = ", ".join(f"--method {name}" for name, method in METHODS.items() if method.students)
        what = f"method {settings.method} has one student and cuts nothing"
        raise BadSetting(what, where=", ".join(said), hint=f"those that do: {several}")


def _with_one_more(run: RunFolder, opened: Opened) -> Parts:
    """The parts of an earlier run, and one more student for the chunk that its students miss most."""
    record = run.record()
    if not record["student"].get("parts"):
        hint = "those of --method teacher-class have students side by side"
        raise BadRun("it has one student, to which none can be added", where=run.path, hint=hint)
    if record["teacher"]["sha256"] != opened.facts["sha256"]:
        raise BadRun(f"it was distilled from another teacher ({record['teacher']['path']})", where=run.path)
    if record["state"] != "finished":
        raise BadRun(f"it is {record['state']}, not finished", where=run.path, hint="go on with --resume first")
    parts = parts_of(record["student"]["parts"])
    held = run.held_out()
    images = from_codes(torch.from_numpy(held.codes), held.low, held.high)
    with torch.device("cpu"):
        student = load_student(record, run.student_weights)
        return replace(parts, added=(*parts.added, _most_missed(student, opened.teacher, parts, images)))


@torch.no_grad()
def _most_missed(student: Standardized, teacher: Teacher, parts: Parts, images: Tensor) -> int:
    """The chunk with the largest squared error, summed over its numbers, weighed by what logits make of each."""
    network = student.network
    assert isinstance(network, Joined), "its record says so"
    weights = network.head.last.weight.flatten(2) if parts.grid else network.head.last.weight.unsqueeze(2)
    matters, errors = weights.square().sum(dim=(0, 2)), torch.zeros(len(parts.order))
    for some in torch.split(images, PART):
        own, _ = network.both(student.standardized(some), apart=True)
        theirs = teacher(some).features
        assert theirs is not None, "a last layer has an input"
        own = functional.relu(own) if parts.rectified else own  # below 0 counts as 0
        missed = (own - theirs[:, parts.order]).square()
        errors += missed.transpose(0, 1).flatten(1).sum(dim=1)
    sums = [float(one.sum()) for one in torch.split(matters * errors, [len(chunk) for chunk in parts.chunks])]
    return max(range(len(sums)), key=sums.__getitem__)


@torch.no_grad()
def _variances(teacher: Teacher) -> list[float]:
    """Of every number of the representation, on procedural images that are always the same."""
    spec = teacher.spec
    found = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(LOOKED_AT // PART):
            images = drawn(PART, (spec.channels, spec.height, spec.width), spec.vocabulary)
            features = teacher(within(images, spec.low, spec.high)).features
            assert features is not None, "it has a last layer"
            found.append(features.transpose(0, 1).flatten(1).float())
    return [float(one) for one in torch.cat(found, dim=1).var(dim=1)]
