"""The state of a training on disk: written whole, taken up whole, or in that part which students of a sweep share."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from edgekd.errors import BadRun
from edgekd.machine import random_states, set_random_states
from edgekd.run_folder import atomic
from edgekd.training import Training

_SHARED = ("generator", "bank", "prior", "held_out")
_STUDENTS = {"student": "first", "rivals": "rivals", "student_optimizer": "optimizer"}
_OWN = ("generator_optimizer", "objective", "supply", *_SHARED)
_COUNTERS = ("step", "seconds", "images_seen", "examined", "collapses", "asked", "spent")


def save(training: Training, path: Path) -> None:
    """Write the whole state, atomically. Of several processes the first writes that of all."""
    parts = {name: part.state_dict() for name, part in _parts(training).items()}
    counters = {name: getattr(training, name) for name in _COUNTERS}
    if not training.ranks.first:
        return
    written = io.BytesIO()  # torch hides a full disk behind an error of its own, so it never writes to one
    torch.save({"parts": parts, "counters": counters, "random": random_states(training.device)}, written)
    with atomic(path) as file:
        file.write(written.getbuffer())


def restore(training: Training, path: Path) -> None:
    """Take up the state of an earlier `save`.

    Raises:
        BadRun: the file is missing, damaged or of another network.
    """
    with _read(training, path) as state:
        for name, part in _parts(training).items():
            part.load_state_dict(state["parts"][name])
        for name in _COUNTERS:
            setattr(training, name, state["counters"][name])
        set_random_states(state["random"], training.device)


def take_over(training: Training, path: Path) -> None:
    """Begin with the generator, the images and the answers of another run.

    Raises:
        BadRun: its checkpoint is missing or damaged, or keeps other answers of other images.
    """
    with _read(training, path) as state:
        for name in _SHARED:
            getattr(training, name).load_state_dict(state["parts"][name])
        training.examined = state["counters"]["examined"]


def _parts(training: Training) -> dict[str, Any]:
    """Everything that has a state of its own, by its name in the file."""
    students = {name: getattr(training.students, own) for name, own in _STUDENTS.items()}
    return students | {name: getattr(training, name) for name in _OWN}


@contextmanager
def _read(training: Training, path: Path) -> Iterator[dict[str, Any]]:
    try:
        yield torch.load(path, map_location=training.device, weights_only=True)
    except Exception as error:  # a damaged pickle may raise anything at all
        hint = "start afresh with --overwrite"
        raise BadRun("the checkpoint is damaged or does not fit this run", where=path, hint=hint) from error
