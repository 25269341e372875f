"""In which order teachers have their classes: what files tell of it, and what the user says.

Several teachers are learned from column by column, so that column k has to be one class in all of them. Files may name
their classes in their metadata; where two name the same ones in another order, the second is put in the first's.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgekd import onnx_file
from edgekd.errors import BadData, BadModel, BadSetting

KEYS = ("names", "class_names", "classes", "labels", "id2label")
"""Metadata that exporters write names of classes into: Ultralytics, Azure Custom Vision, Hugging Face and others."""
Order = tuple[int, ...]


def class_names(path: Path, count: int) -> tuple[str, ...] | None:
    """The names of a file's `count` classes, in order, where its metadata tells as many different ones."""
    told = onnx_file.metadata(onnx_file.load(path))
    for value in (told[key] for key in KEYS if key in told):
        names = _listed(value)
        if names is not None and len(names) == len(set(names)) == count:
            return names
    return None


def _listed(text: str) -> tuple[str, ...] | None:
    """Names out of a list, or a dictionary from numbers to names, as JSON or as Python writes it."""
    found: Any = None
    for read in (json.loads, ast.literal_eval):  # Ultralytics writes str(dict); literals hold no code
        try:
            found = read(text)
            break
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    if isinstance(found, dict):
        numbered = {str(key): value for key, value in found.items()}
        found = [numbered.get(str(number)) for number in range(len(numbered))]
    if isinstance(found, list | tuple) and found and all(isinstance(name, str) for name in found):
        return tuple(found)
    return None


def order_of(first: Sequence[str] | None, names: Sequence[str] | None, who: str, like: str) -> Order | None:
    """Which columns of a teacher are the first teacher's classes 0, 1, …; None: they need not be moved.

    Args:
        first, names: what the first teacher and this one call their classes, None where they do not tell.
        who, like: this one and the first, for messages.

    Raises:
        BadModel: both tell, and not of the same classes.
    """
    if first is None or names is None or tuple(first) == tuple(names):
        return None
    if unknown := [name for name in names if name not in first]:
        what = f"it has a class {unknown[0]!r}, which {like} does not name"
        hint = "if they are the same under other names, say their order with --class-order FILE"
        raise BadModel(what, where=who, allowed="teachers of the same classes", hint=hint)
    return tuple(names.index(name) for name in first)


def checked_order(orders: Sequence[Order | None], teachers: int, classes: int) -> None:
    """Refuse what is not a permutation of K columns for each teacher.

    Raises:
        BadSetting: says which.
    """
    where = "--class-order"
    allowed = f"for each teacher null or the numbers 0 to {classes - 1}, each once"
    if len(orders) != teachers:
        raise BadSetting(f"{len(orders)} orders for {teachers} teachers", where=where, allowed=allowed)
    for number, order in enumerate(orders):
        if order is not None and sorted(order) != list(range(classes)):
            raise BadSetting(
                f"that of teacher {number + 1} is no permutation of {classes}", where=where, allowed=allowed
            )


def read_order(path: Path) -> tuple[Order | None, ...]:
    """The orders in a JSON file: a list with, for each teacher, null or a list of whole numbers.

    Number k of a list is the column of that teacher that holds class k.

    Raises:
        BadData: unreadable, or something else.
    """
    allowed = "JSON such as [null, [2, 0, 1]]"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadData(f"not readable as JSON: {onnx_file.first_line(error)}", where=path, allowed=allowed) from error
    if not isinstance(found, list) or not all(one is None or _whole_numbers(one) for one in found):
        raise BadData("not a list of orders", where=path, allowed=allowed)
    return tuple(one if one is None else tuple(one) for one in found)


def _whole_numbers(values: object) -> bool:
    return isinstance(values, list) and all(type(value) is int for value in values)
