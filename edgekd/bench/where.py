"""Where a target's measurements are made: the one place that knows all runners."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial

from edgekd.bench import emulated, local, remote, web
from edgekd.bench.child import CPUINFO, cpu_flags, text_of
from edgekd.bench.local import Answer, Request, Runner
from edgekd.devices import Machine, Place
from edgekd.errors import NotMeasurable

_NAMES = {"amd64": "x86_64", "arm64": "aarch64"}


def foreign(wanted: Machine) -> str:
    """Why a time measured on this machine would be none of the device's; empty if it would."""
    found = _NAMES.get(platform.machine().lower(), platform.machine().lower())
    if wanted.architecture not in ("any", found):
        return f"this machine is {found}, the target {wanted.architecture}"
    flags = cpu_flags(text_of(CPUINFO))
    lacking = [flag for flag in wanted.flags if flag not in flags]
    if lacking:
        return f"this CPU lacks {', '.join(lacking)}"
    beyond = [flag for flag in wanted.flags_absent if flag in flags]
    return f"this CPU has {', '.join(beyond)}, the target has not" if beyond else ""


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
def runner_at(place: Place, machine: Machine | None = None) -> Iterator[Runner]:
    """What carries out requests at a place. One that cannot be reached answers each request with the reason.

    Args:
        place: where.
        machine: what this one must be to stand for the device, where the place is here.
    """
    with ExitStack() as stack:
        try:
            if machine is not None and place.kind == "local" and (reason := foreign(machine)):
                raise NotMeasurable(reason)
            runner = stack.enter_context(_PLACES[place.kind](place))
        except NotMeasurable as error:
            runner = partial(_refuse, str(error))
        yield runner


def _refuse(reason: str, _: Request) -> Answer:
    raise NotMeasurable(reason)
