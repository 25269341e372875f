"""Texts of the command line as values, and values as texts. None stays None: nothing was said."""

from __future__ import annotations

import math
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from edgekd import units
from edgekd.errors import BadData, BadSetting

if TYPE_CHECKING:
    from edgekd.config import Reach


def numbers(text: str | None, flag: str, count: int | None = None) -> tuple[float, ...] | None:
    """Comma-separated numbers of a flag."""
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise BadSetting(f"{text!r} is not a list of numbers", where=flag, allowed="0.5 or 0.4,0.5,0.6") from None
    if not all(map(math.isfinite, values)):
        raise BadSetting(f"{text!r} is not finite", where=flag, allowed="finite numbers")
    if count is not None and len(values) != count:
        raise BadSetting(f"{len(values)} numbers", where=flag, allowed=f"{count} numbers, separated by commas")
    return values


def whole(text: str | None, flag: str) -> tuple[int, ...] | None:
    """Comma-separated whole numbers of a flag."""
    values = numbers(text, flag)
    if values is not None and any(value != int(value) for value in values):
        raise BadSetting(f"{text!r} are not whole numbers", where=flag, allowed="0 or 0,2")
    return values if values is None else tuple(map(int, values))


def shape(text: str | None) -> tuple[int, int, int] | None:
    """C,H,W of --input-shape, or the F features of a table, which are channels of one pixel."""
    values = numbers(text, "--input-shape")
    if values is None:
        return None
    sizes = tuple(int(value) for value in values)
    if sizes != values or min(values) < 1 or len(sizes) not in (1, 3):
        allowed = "whole numbers C,H,W such as 3,224,224, or F of a table"
        raise BadSetting(f"{text!r} is not a shape", where="--input-shape", allowed=allowed)
    return (sizes[0], sizes[1], sizes[2]) if len(sizes) == 3 else (sizes[0], 1, 1)


def share(text: str | None, flag: str) -> float | None:
    """A part of a whole, neither none of it nor all."""
    if text is None:
        return None
    try:
        value = units.read_share(text)
    except ValueError as error:
        raise BadSetting(str(error), where=flag) from error
    if not 0 < value < 1:
        raise BadSetting(f"{text!r} is none or all", where=flag, allowed="0.93, 93 %")
    return value


def bounds(text: str | None) -> tuple[float, float] | None:
    """LOW,HIGH of --input-range."""
    values = numbers(text, "--input-range", 2)
    if values is None:
        return None
    low, high = values
    if not low < high:
        raise BadSetting(f"{text!r} is empty", where="--input-range", allowed="LOW,HIGH with LOW below HIGH")
    return low, high


def every_bound(file: Path | None) -> tuple[tuple[float, float], ...] | None:
    """Ranges of a table's features out of a text file: a line LOW,HIGH or NAME,LOW,HIGH for each, in their order.

    Empty lines, and those that begin with #, are skipped.

    Raises:
        BadData: no such file, or a line is no range.
    """
    if file is None:
        return None
    allowed = "a line LOW,HIGH or NAME,LOW,HIGH for each feature, with LOW below HIGH"
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        what = getattr(error, "strerror", None) or "no text"
        raise BadData(f"cannot be read: {what}", where=file, allowed=allowed) from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            low, high = map(float, line.split(",")[-2:])
        except ValueError:
            raise BadData(f"line {number} is {line[:60]!r}", where=file, allowed=allowed) from None
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise BadData(f"line {number}: {low:g},{high:g} is no range", where=file, allowed=allowed)
        found.append((low, high))
    if not found:
        raise BadData("it holds no ranges", where=file, allowed=allowed)
    return tuple(found)


def pairs(texts: list[str] | None, flag: str, example: str) -> dict[str, str] | None:
    """KEY=VALUE pairs of a flag that may be given often."""
    if not texts:
        return None
    parts = [text.partition("=") for text in texts]
    for key, equals, value in parts:
        if not (key and equals and value):
            raise BadSetting(f"'{key}{equals}{value}'", where=flag, allowed=f"KEY=VALUE such as {example}")
    return {key: value for key, _, value in parts}


def command(*words: str) -> str:
    """An edgekd command as a shell takes it."""
    return " ".join(("edgekd", *map(quote, words)))


def reaching(reach: Reach) -> list[str]:
    """What has to be said again to reach the teachers of a run: its record holds none of it."""
    named = ["--token-env", reach.token_env] if reach.token_env else []
    named += [word for name, variable in reach.headers.items() for word in ("--header", f"{name}={variable}")]
    return [*named, "--trust-callable"] if reach.trust_callable else named
