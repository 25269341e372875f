"""Losses as TensorBoard event files, for those who look at many runs side by side there.

tensorboardX writes them, for it needs neither torch nor TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Protocol

from edgekd.errors import CannotLoad
from edgekd.run_folder import RunFolder

FOLDER = "tensorboard"


class Told(Protocol):
    """What is read of the progress of a distillation."""

    @property
    def step(self) -> int: ...
    @property
    def images_per_second(self) -> float: ...
    @property
    def losses(self) -> dict[str, float]: ...


@contextmanager
def event_files(run: RunFolder) -> Iterator[Callable[[Told], None]]:
    """A watcher that writes every loss term, and images per second, into `tensorboard/` of a run folder.

    Nothing is written before the run has begun. Where a run goes on, events of later rounds than it begins with are
    marked as void.

    Raises:
        CannotLoad: `edgekd[tensorboard]` is not installed.
    """
    if find_spec("tensorboardX") is None:
        raise CannotLoad(
            "tensorboardX is not installed", where="--tensorboard", hint="pip install 'edgekd[tensorboard]'"
        )
    from tensorboardX import SummaryWriter  # noqa: PLC0415 - of an extra

    writers: list[Any] = []

    def watch(progress: Told) -> None:
        if not progress.losses:
            return
        if not writers:
            writers.append(SummaryWriter(str(run.path / FOLDER), purge_step=progress.step, flush_secs=5))
        for name, value in progress.losses.items():
            writers[0].add_scalar(f"loss/{name}", value, progress.step)
        writers[0].add_scalar("images per second", progress.images_per_second, progress.step)

    try:
        yield watch
    finally:
        for writer in writers:
            writer.close()
