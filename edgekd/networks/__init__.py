"""Students and generators: choose one, build one, load one from a run."""

from __future__ import annotations

import importlib
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from edgekd.codes import Bound, vocabulary
from edgekd.errors import BadRun, BadSetting, UnknownName
from edgekd.networks.generators import Generator, RowGenerator
from edgekd.networks.headers import Headers, MultiHeader
from edgekd.networks.joined import Joined, Parts
from edgekd.networks.latents import GaussianLatents, NoisyLatents
from edgekd.networks.standardized import Standardized
from edgekd.networks.students import LeNet5, Mlp, MobileNetV3Small, ResNet, TextCnn
from edgekd.networks.unet import Grid, UNet
from edgekd.user_code import working_directory_on_path

Shape = tuple[int, int, int]
Factory = Callable[[Shape, int, float], nn.Module]
OWN = "extend/student.md"
QUARTER = 0.25
"""The share of the teacher's parameters that `--student auto` aims at."""
TWENTIETH = 0.05
"""The share that students side by side aim at, all together: published are 21 to 36 times fewer parameters."""


def _stem_stride(shape: Shape) -> int:
    """Images of 64 pixels and more are halved by the stem, 160 and more quartered: small ones need every pixel."""
    return 1 if min(shape[1:]) < 64 else 2 if min(shape[1:]) < 160 else 4


def _cnn_small(shape: Shape, classes: int, width: float) -> nn.Module:
    return ResNet(shape[0], classes, width, 32, ((64, 1, 2), (128, 1, 2)), _stem_stride(shape))


def _resnet18(shape: Shape, classes: int, width: float) -> nn.Module:
    stages = ((64, 2, 1), (128, 2, 2), (256, 2, 2), (512, 2, 2))
    return ResNet(shape[0], classes, width, 64, stages, _stem_stride(shape))


def _mobilenet(shape: Shape, classes: int, width: float) -> nn.Module:
    return MobileNetV3Small(shape[0], classes, width, small_images=min(shape[1:]) < 64)


def _lenet5(shape: Shape, classes: int, width: float) -> nn.Module:
    return LeNet5(shape[0], classes, width)


def _lenet5_tiny(shape: Shape, classes: int, width: float) -> nn.Module:
    return LeNet5(shape[0], classes, width, (2, 4, 60, 30))


def _mlp(shape: Shape, classes: int, width: float) -> nn.Module:
    return Mlp(shape[0], classes, width)


STUDENTS: dict[str, tuple[Factory, float]] = {
    "lenet5": (_lenet5, 1.0),
    "lenet5-half": (_lenet5, 0.5),
    "lenet5-tiny": (_lenet5_tiny, 0.5),
    "cnn-small": (_cnn_small, 0.5),
    "resnet18": (_resnet18, 1.0),
    "mobilenetv3-small": (_mobilenet, 1.0),
}
"""Of the image as a whole: name to (factory, width when none is given)."""
PIXEL_STUDENTS: dict[str, tuple[Callable[[Shape, int, float, Grid], nn.Module], float]] = {"unet": (UNet, 1.0)}
"""Of every pixel of a grid."""
TABLE_STUDENTS: dict[str, tuple[Factory, float]] = {"mlp": (_mlp, 1.0)}
"""Of a row of a table: an image of F channels and one pixel, `[F, 1, 1]`."""
TEXT_STUDENTS: dict[str, tuple[Callable[[int, int, float], nn.Module], float]] = {"text-cnn": (TextCnn, 1.0)}
"""Of a sequence of token ids; they are told how many ids there are, not how long sequences are."""


def is_row(shape: Shape) -> bool:
    """Whether what is shaped so is a row of a table."""
    return shape[1:] == (1, 1)


def parameters(network: nn.Module) -> int:
    """Trainable numbers of a network."""
    return sum(p.numel() for p in network.parameters())


def choose_student(
    name: str,
    width: float | None,
    shape: Shape,
    classes: int,
    teacher: int | None,
    grid: Grid | None = None,
    headers: Headers | None = None,
    parts: Parts | None = None,
    ids: int | None = None,
) -> tuple[str, float]:
    """Resolve `auto` and a missing width.

    `auto` takes `cnn-small`, or `resnet18` where a quarter of the teacher is more than a million parameters, or `unet`
    where pixels are answered, or `mlp` for rows of a table, `text-cnn` for token ids, at the largest width whose
    parameters are at most a quarter of the teacher's (1 % over is let pass). Students side by side are all of one kind,
    and all together a twentieth.

    Args:
        name, width: as the user gave them.
        shape, classes: the teacher's input and K.
        teacher: the teacher's parameter count; without one there is nothing to take a quarter of.
        grid: the h, w of its answer per pixel, if it is one.
        headers, parts, ids: as in `build_student`; they count.

    Raises:
        UnknownName: no student of that name.
    """
    goal = (QUARTER if parts is None else TWENTIETH) * (teacher or 0) * 1.01
    found = "unet" if grid else "mlp" if is_row(shape) else "resnet18" if goal > 1e6 else "cnn-small"
    chosen = name if name != "auto" else found if ids is None else "text-cnn"
    if width is not None or name != "auto" or not teacher:
        own = {**STUDENTS, **PIXEL_STUDENTS, **TABLE_STUDENTS, **TEXT_STUDENTS}.get(chosen, (None, 1.0))[1]
        return chosen, width if width is not None else own
    widths = [eighths / 64 for eighths in range(4, 257)]
    size = partial(_size, chosen, shape=shape, classes=classes, grid=grid, headers=headers, parts=parts, ids=ids)
    return chosen, widths[max(0, bisect_right(widths, goal, key=size) - 1)]  # wider is never smaller


def _size(
    name: str,
    width: float,
    shape: Shape,
    classes: int,
    grid: Grid | None,
    headers: Headers | None,
    parts: Parts | None,
    ids: int | None,
) -> int:
    """Parameters of a student that is not built."""
    with torch.device("meta"):
        return parameters(build_student(name, width, shape, classes, grid, headers, parts, ids))


def _known_student(
    name: str, shape: Shape, classes: int, width: float, grid: Grid | None, ids: int | None
) -> nn.Module:
    """A student of a name in one of the tables.

    Raises:
        UnknownName: no student of that name.
        BadSetting: it answers for the image and the teacher for its pixels, or the other way round, or it takes
            something else than the teacher: images, rows of a table, token ids.
    """
    kind = "token ids" if ids is not None else "rows of a table" if is_row(shape) else "images"
    whole = TAKEN[kind]
    if grid is None and name in TEXT_STUDENTS and ids is not None:
        return TEXT_STUDENTS[name][0](ids, classes, width)
    if grid is None and name in whole:
        return {**STUDENTS, **TABLE_STUDENTS}[name][0](shape, classes, width)
    if grid is not None and name in PIXEL_STUDENTS:
        return PIXEL_STUDENTS[name][0](shape, classes, width, grid)
    known = ["auto", *(PIXEL_STUDENTS if grid else whole), "module:factory"]
    require_student(name, known)
    takes = next((one for one, names in TAKEN.items() if name in names), kind)
    if grid is None and takes != kind:
        what = f"it takes {takes}, the teacher {kind}"
        raise BadSetting(what, where=f"student {name}", allowed=", ".join(known))
    answers = ("for the image as a whole", "for every pixel")
    what = f"it answers {answers[not grid]}, the teacher {answers[bool(grid)]}"
    raise BadSetting(what, where=f"student {name}", allowed=", ".join(known))


TAKEN = {"images": tuple(STUDENTS), "rows of a table": tuple(TABLE_STUDENTS), "token ids": tuple(TEXT_STUDENTS)}
"""What students of the image as a whole take, and their names."""
NAMES = (*STUDENTS, *PIXEL_STUDENTS, *TABLE_STUDENTS, *TEXT_STUDENTS)


def require_student(name: str, known: Sequence[str] = ("auto", *NAMES, "module:factory")) -> None:
    """See that there is a student of that name, whatever it is to answer; a factory is not looked for.

    Raises:
        UnknownName: there is none; those that are `known` are told.
    """
    if name not in {"auto", *NAMES} and not is_factory(name):
        raise UnknownName("student", name, known)


def is_factory(name: str) -> bool:
    """Whether a student's name is `module:factory`: the user's own code, imported and called."""
    return ":" in name


def build_student(
    name: str,
    width: float,
    shape: Shape,
    classes: int,
    grid: Grid | None = None,
    headers: Headers | None = None,
    parts: Parts | None = None,
    ids: int | None = None,
) -> nn.Module:
    """A student with fresh weights: a known name, or `module:factory` called as `factory(shape, classes, width)`.

    The module is looked for in the working directory first, as `python -m` does.

    Args:
        name, width: of the student.
        shape, classes: the teacher's input and K.
        grid: the h, w of its answer per pixel, if it is one.
        headers: what it is the trunk of, if anything; a network of one's own then needs `headers.Trunk.stages`.
        parts: what several of it side by side answer, if there are several.
        ids: how many token ids there are, if it takes those; a factory is then given `(T, ids, 1)` for its shape.

    Raises:
        UnknownName: no student of that name.
        BadSetting: it is not one for such a teacher, or cannot have headers; the factory cannot be imported, or does
            not return a module.
    """
    if parts is not None:
        one = partial(build_student, name, width, shape, grid=parts.grid, ids=ids)
        return Joined(lambda length: one(classes=length), parts, classes, grid)
    if headers is not None and grid is not None:
        what, allowed = "headers answer for the image as a whole, the teacher for every pixel", "teachers of images"
        raise BadSetting(what, where=f"student {name}", allowed=allowed)
    if is_factory(name):
        network = _own_student(name, width, shape if ids is None else (shape[0], ids, 1), classes)
    else:
        network = _known_student(name, shape, classes, width, grid, ids)
    return network if headers is None else MultiHeader(network, shape, classes, headers)


def _own_student(name: str, width: float, shape: Shape, classes: int) -> nn.Module:
    module, _, attribute = name.partition(":")
    try:
        with working_directory_on_path():
            network = getattr(importlib.import_module(module), attribute)(shape, classes, width)
    except Exception as error:  # the user's own code may raise anything
        raise BadSetting(f"{type(error).__name__}: {error}", where=f"student {name}", page=OWN) from error
    if not isinstance(network, nn.Module):
        raise BadSetting("the factory returned no torch.nn.Module", where=f"student {name}", page=OWN)
    return network


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
