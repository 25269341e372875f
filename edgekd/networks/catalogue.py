"""Students by name: which there are, what `auto` takes, and how one is built with fresh weights."""

from __future__ import annotations

import importlib
import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

from edgekd.errors import BadSetting, UnknownName
from edgekd.networks.committee import Committee
from edgekd.networks.headers import Headers, MultiHeader
from edgekd.networks.joined import Joined, Parts
from edgekd.networks.students import LeNet5, Mlp, MobileNetV3Small, ResNet, TextCnn
from edgekd.networks.synchronized import BatchNorm
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
MOST_MEMBERS = 16
_SEVERAL = re.compile(r"(\d+)x([^\d].*)")


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
    parameters are at most a quarter of the teacher's (1 % over is let pass), counted as they ship: batch normalization
    folded away. Students side by side are all of one kind, and all together a twentieth.

    Args:
        name, width: as the user gave them.
        shape, classes: the teacher's input and K.
        teacher: the teacher's parameter count; without one there is nothing to take a quarter of.
        grid: the h, w of its answer per pixel, if it is one.
        headers, parts, ids: as in `build_student`; they count.

    Raises:
        UnknownName: no student of that name.
        BadSetting: of `members`.
    """
    goal = (QUARTER if parts is None else TWENTIETH) * (teacher or 0) * 1.01
    found = "unet" if grid else "mlp" if is_row(shape) else "resnet18" if goal > 1e6 else "cnn-small"
    chosen = name if name != "auto" else found if ids is None else "text-cnn"
    if width is not None or name != "auto" or not teacher:
        of_one = members(chosen)[1]
        own = {**STUDENTS, **PIXEL_STUDENTS, **TABLE_STUDENTS, **TEXT_STUDENTS}.get(of_one, (None, 1.0))[1]
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
    """Parameters of a student that is not built, as it ships: of each batch normalization a bias is left."""
    with torch.device("meta"):
        student = build_student(name, width, shape, classes, grid, headers, parts, ids)
    return parameters(student) - sum(m.num_features for m in student.modules() if isinstance(m, BatchNorm))


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


def members(name: str) -> tuple[int, str]:
    """How many networks a student's name asks for, and of what name each is: `4xlenet5-half` for four; others for one.

    Raises:
        BadSetting: fewer than two, or more than `MOST_MEMBERS`; or of a kind that has to be chosen first.
    """
    found = _SEVERAL.fullmatch(name)
    if not found:
        return 1, name
    count, each = int(found[1]), found[2]
    if not 2 <= count <= MOST_MEMBERS or each == "auto":
        allowed = f"2xNAME to {MOST_MEMBERS}xNAME, NAME one of {', '.join(NAMES)}"
        raise BadSetting("no committee of students", where=f"student {name}", allowed=allowed)
    return count, each


def require_student(name: str, known: Sequence[str] = ("auto", *NAMES, "module:factory")) -> None:
    """See that there is a student of that name, whatever it is to answer; a factory is not looked for.

    Raises:
        UnknownName: there is none; those that are `known` are told.
        BadSetting: of `members`.
    """
    name = members(name)[1]
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

    `4x` before either is a committee of four. The module is looked for in the working directory first, as `python -m`
    does.

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
    count, each = members(name)
    if count > 1 and (headers or parts):
        what, allowed = "a committee has neither headers nor chunks of its own", f"{each} with such a method"
        raise BadSetting(what, where=f"student {name}", allowed=allowed)
    if count > 1:
        return Committee(partial(build_student, each, width, shape, classes, grid, ids=ids), count)
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
