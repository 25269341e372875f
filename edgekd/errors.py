"""Every error edgekd raises on purpose, and the exit code each becomes.

    EdgekdError            4   it failed while running
    ├── BadInput           2   what was handed in cannot be used
    │   ├── BadSetting         a flag, a settings file, a budget
    │   ├── BadModel           an ONNX file, or one edgekd cannot use that way
    │   ├── BadData            labelled or unlabelled samples
    │   ├── BadRun             a run folder: missing, unfinished, of another teacher, there already
    │   └── UnknownName        no target, recipe, student or metric of that name
    ├── CannotLoad         3   fine in itself, but not loadable or measurable on this machine
    │   └── NotMeasurable      the machine lacks the provider, device or program that a target asks for
    └── Refused                no more questions for now; the run can be resumed
        └── OutOfQueries           the user's own limit on them is reached

A message is one line that says what is wrong, where, what is allowed and what to do next. Anything else that reaches
the user is a bug.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EdgekdError(Exception):
    """It failed while running. `str(error)` is the one line shown to a person.

    Args:
        what: what is wrong, a clause without a full stop.
        where: the file, flag or node it is about.
        allowed: what would have been accepted.
        hint: what to do next.
        page: of the documentation, where it helps: `extend/target.md`, with a heading if there is one for it. It is no
            part of the line; the command line tells it.
    """

    exit_code = 4

    def __init__(self, what: str, *, where: object = None, allowed: str = "", hint: str = "", page: str = "") -> None:
        self.page = page
        sentences = [f"{where}: {what}" if where is not None else what]
        if allowed:
            sentences.append(f"allowed: {allowed}")
        if hint:
            sentences.append(hint)
        super().__init__("; ".join(" ".join(sentence.split()) for sentence in sentences))


class BadInput(EdgekdError):
    """What was handed in cannot be used."""

    exit_code = 2


class BadSetting(BadInput):
    """A flag, a settings file or a budget holds a value that is not allowed."""


class BadModel(BadInput):
    """A file is not a usable ONNX model, or not usable for what was asked."""


class BadData(BadInput):
    """Samples or labels are of the wrong kind."""


class BadRun(BadInput):
    """A run folder is missing, unfinished, of another teacher, or already there."""


class UnknownName(BadInput):
    """No such name; the message lists the known ones and the nearest."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f"did you mean {nearest[0]}?" if nearest else ""
        allowed = ", ".join(names) or "none"
        super().__init__(f"unknown {kind} '{name}'", allowed=allowed, hint=hint, page=_PAGES.get(kind, ""))


_PAGES = {
    "target": "extend/target.md",
    "student": "extend/student.md",
    "method": "methods.md",
    "limit of the budget": "tutorial.md#a-gate-in-ci",
    "metric of the budget": "tutorial.md#a-gate-in-ci",
}


class CannotLoad(EdgekdError):
    """Fine in itself, but this machine cannot load or measure it."""

    exit_code = 3


class NotMeasurable(CannotLoad):
    """This machine lacks what a target asks for, whatever the model: a provider, a device, a program, another machine.

    `edgekd bench` reports it and goes on with what needs no running; only --require-measured makes it exit code 3.
    """


class Refused(EdgekdError):
    """A teacher answers no more for now: its server's quota is used up. A run that meets it ends like an interrupted
    one, and goes on from its last checkpoint.
    """


class OutOfQueries(Refused):
    """The limit on samples asked of the teachers is reached. Nothing is lost: a run that meets it ends like an
    interrupted one.

    Args:
        asked: how many were asked about so far.
        limit: how many may be.
    """

    def __init__(self, asked: int, limit: int) -> None:
        super().__init__(f"{asked:,} of {limit:,} queries are used", where="--max-queries", hint="allow more of them")
        self.asked, self.limit = asked, limit
