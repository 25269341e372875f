"""What a command answers when a test calls it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """Exit code, and what went to stdout and stderr."""

    code: int
    out: str
    err: str


Call = Callable[..., Result]
