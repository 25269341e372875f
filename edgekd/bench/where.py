"""Where a target's measurements are made: the one place that knows all runners."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial

from edgekd.bench import emulated, local, remote, web
from edgekd.bench.local import Answer, Request, Runner
from edgekd.config import Place
from edgekd.errors import NotMeasurable


@contextmanager
def _here(_: Place) -> Iterator[Runner]:
    yield local.ask


_PLACES: dict[str, Callable[[Place], AbstractContextManager[Runner]]] = {
    "local": _here,
    "ssh": remote.connected,
    "adb": remote.connected,
    "qemu": emulated.emulator,
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
