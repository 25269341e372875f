"""Where a target's measurements are made: the one place that knows all runners."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path

from edgekd.bench import local, remote, web
from edgekd.bench.local import CHILD_FILE, Answer, Request, Runner
from edgekd.config import Place
from edgekd.errors import NotMeasurable


@contextmanager
def _here(_: Place) -> Iterator[Runner]:
    yield local.ask


@contextmanager
def _emulated(place: Place) -> Iterator[Runner]:
    """The child under an emulator, with the Python of a system for that architecture in `place.folder`."""
    program = place.host or "qemu-aarch64"
    if shutil.which(program) is None:
        raise NotMeasurable(f"{program} is not installed; install it: apt install qemu-user")
    root, python = Path(place.folder), place.python.lstrip("/")
    if not place.folder or not (root / python).exists():
        raise NotMeasurable(f"no {python} in {place.folder or 'runner.folder, which is not set'}")
    command = [program, *place.options, "-L", str(root), str(root / python), str(CHILD_FILE)]
    yield partial(local.ask, command=command, timeout=place.timeout)


_PLACES: dict[str, Callable[[Place], AbstractContextManager[Runner]]] = {
    "local": _here,
    "ssh": remote.connected,
    "adb": remote.connected,
    "qemu": _emulated,
    "web": web.browser,
}


@contextmanager
def runner_at(place: Place) -> Iterator[Runner]:
    """What carries out requests at a place. One that cannot be reached answers each request with the reason."""
    with ExitStack() as stack:
        try:
            runner = stack.enter_context(_PLACES[place.kind](place))
        except NotMeasurable as error:
            runner = partial(_refuse, str(error))
        yield runner


def _refuse(reason: str, _: Request) -> Answer:
    raise NotMeasurable(reason)
