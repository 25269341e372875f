"""Students and generators: choose one, build one, load one from a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from edgekd.codes import Bound, vocabulary
from edgekd.errors import BadRun, BadSetting
from edgekd.networks.catalogue import (
    STUDENTS,
    build_student,
    choose_student,
    is_factory,
    is_row,
    parameters,
    require_student,
)
from edgekd.networks.generators import Generator, RowGenerator
from edgekd.networks.headers import Headers, MultiHeader
from edgekd.networks.joined import Joined, Parts
from edgekd.networks.latents import GaussianLatents, NoisyLatents
from edgekd.networks.standardized import Standardized

__all__ = [
    "STUDENTS",
    "build_student",
    "choose_student",
    "for_export",
    "generator_of",
    "is_factory",
    "is_row",
    "load_generator",
    "load_student",
    "parameters",
    "parts_alone",
    "parts_of",
    "require_student",
    "standardization",
    "student_of",
]


def standardization(teacher: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """Mean and deviation per channel: the teacher's own where known, else the middle and a quarter of its range."""
    if teacher["mean"] is not None and teacher["std"] is not None:
        return list(teacher["mean"]), list(teacher["std"])
    lows, highs = (_each(teacher[end], teacher["channels"]) for end in ("low", "high"))
    ends = list(zip(lows, highs, strict=True))
    return [(low + high) / 2 for low, high in ends], [(high - low) / 4 for low, high in ends]


def _each(bound: Bound, channels: int) -> Sequence[float]:
    return [bound] * channels if isinstance(bound, float | int) else bound


def student_of(record: Mapping[str, Any]) -> Standardized:
    """The student that a run's record describes, with fresh weights."""
    teacher, student = record["teacher"], record["student"]
    shape = (teacher["channels"], teacher["height"], teacher["width"])
    grid = teacher.get("grid")
    headers = Headers(**student["headers"]) if student.get("headers") else None
    parts = parts_of(student["parts"]) if student.get("parts") else None
    pixels = (grid[0], grid[1]) if grid else None
    ids = vocabulary(teacher["layout"], teacher["high"])
    network = build_student(student["name"], student["width"], shape, teacher["classes"], pixels, headers, parts, ids)
    if ids is not None:
        return Standardized(network, [0.0], [1.0], ids=True)
    return Standardized(network, *standardization(teacher), rows=is_row(shape))


def parts_of(told: Mapping[str, Any]) -> Parts:
    """The parts that a run's record describes."""
    grid, kernel = told.get("grid"), told.get("kernel", (1, 1))
    return Parts(
        chunks=tuple(tuple(chunk) for chunk in told["chunks"]),
        added=tuple(told.get("added", ())),
        rectified=told.get("rectified", False),
        grid=(grid[0], grid[1]) if grid else None,
        kernel=(kernel[0], kernel[1]),
    )


def generator_of(record: Mapping[str, Any]) -> Generator | RowGenerator:
    """The generator that a run's record describes, with fresh weights.

    Raises:
        BadSetting: it is to make images of wanted classes, and the teacher does not answer classes.
    """
    teacher, generator = record["teacher"], record["generator"]
    mean, std = standardization(teacher)
    shape = (teacher["channels"], teacher["height"], teacher["width"])
    length, count = generator["latent"], generator.get("batch", 1)
    noisy = generator.get("noisy", False)
    if noisy and teacher["task"] != "classes":
        allowed = "teachers of classes; for others noisy=false"
        raise BadSetting(f"the teacher's task is {teacher['task']}", where="recipe: noisy", allowed=allowed)
    latents = NoisyLatents(length, teacher["classes"], count) if noisy else GaussianLatents(length, count)
    if is_row(shape):
        lows, highs = (_each(teacher[end], shape[0]) for end in ("low", "high"))
        return RowGenerator(latents, generator["width"], lows, highs)
    others = {"low": teacher["low"], "high": teacher["high"], "output": generator.get("output", "soft")}
    return Generator(latents, shape, generator["width"], mean=mean, std=std, **others)


def load_student(
    record: Mapping[str, Any], weights: Path, *, scorer: Sequence[float] | None = None, trust_factory: bool = False
) -> Standardized:
    """A run's student with its trained weights, in evaluation mode.

    Args:
        record, weights: of the run.
        scorer: of its headers, the K weights of `headers.MultiHeader.scorer`.
        trust_factory: import and call what the record names, if its student is a `module:factory`. A run folder may
            come from anybody, so this is for the user to say.

    Raises:
        BadRun: the weights are missing, damaged or of another network, or the student is a factory that is not trusted.
    """
    name = record["student"]["name"]
    if is_factory(name) and not trust_factory:
        what = f"its student {name} is code of your own, which would be run"
        hint = f"if you trust it: edgekd export {quote(str(weights.parent))} --trust-factory"
        raise BadRun(what, where=weights.parent, hint=hint)
    student = student_of(record)
    _load(student, weights)
    if scorer is not None and isinstance(student.network, MultiHeader):
        student.network.score_by(scorer)
    return student


def for_export(student: Standardized, kept: Sequence[int], *, each: bool) -> nn.Module:
    """What a file is made of: a student with some of its headers, that answers each of them too if wanted.

    Args:
        student: it is changed.
        kept: numbers of its headers; empty where it has none.
        each: answer `(logits, header, header, …)`, each `[N, K]`.
    """
    if isinstance(student.network, MultiHeader):
        student.network.keep(kept)
    return EachHeader(student) if each else student


class EachHeader(nn.Module):
    """A student with headers that answers their logits beside its own."""

    def __init__(self, student: Standardized) -> None:
        super().__init__()
        self.student = student

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Logits `[N, K]`, joined and then of each header."""
        network = self.student.network
        assert isinstance(network, MultiHeader), "others have no such outputs"
        logits, _ = network.each(self.student.standardized(images))
        return network.joined(logits), *logits.unbind(dim=1)


class Part(nn.Module):
    """One of the students side by side, behind the standardization of all."""

    def __init__(self, student: Standardized, place: int) -> None:
        super().__init__()
        network = student.network
        assert isinstance(network, Joined), "others have no parts"
        self.part = Standardized(network.students[place], [0.0], [1.0], rows=student.rows, ids=student.ids)
        self.part.pixel_mean, self.part.pixel_scale = (
            student.get_buffer("pixel_mean"),
            student.get_buffer("pixel_scale"),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Its answer `[N, length]` or `[N, length, h, w]`."""
        answer: Tensor = self.part(images)
        return answer


def parts_alone(student: Standardized) -> list[nn.Module]:
    """Each of the students side by side as a network of its own, and the head that joins what they answer."""
    network = student.network
    assert isinstance(network, Joined), "others have no parts"
    return [*(Part(student, place) for place in range(len(network.students))), network.head]


def load_generator(record: Mapping[str, Any], weights: Path) -> Generator | RowGenerator:
    """A run's generator with its trained weights, in evaluation mode. Raises as `load_student` does."""
    generator = generator_of(record)
    _load(generator, weights)
    return generator


def _load(network: nn.Module, weights: Path) -> None:
    try:
        network.load_state_dict(safetensors.torch.load_file(weights))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise BadRun("the weights do not fit this run's record", where=weights, hint="distill again") from error
    network.eval()
