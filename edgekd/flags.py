"""Texts of the command line as values, and values as texts. None stays None: nothing was said."""

from __future__ import annotations

import math
from shlex import quote
from typing import TYPE_CHECKING

from edgekd.errors import BadSetting

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
    """C,H,W of --input-shape."""
    values = numbers(text, "--input-shape", 3)
    if values is None:
        return None
    channels, height, width = (int(value) for value in values)
    if (channels, height, width) != values or min(values) < 1:
        raise BadSetting(
            f"{text!r} is not a shape", where="--input-shape", allowed="whole numbers C,H,W such as 3,224,224"
        )
    return channels, height, width


def bounds(text: str | None) -> tuple[float, float] | None:
    """LOW,HIGH of --input-range."""
    values = numbers(text, "--input-range", 2)
    if values is None:
        return None
    low, high = values
    if not low < high:
        raise BadSetting(f"{text!r} is empty", where="--input-range", allowed="LOW,HIGH with LOW below HIGH")
    return low, high


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
