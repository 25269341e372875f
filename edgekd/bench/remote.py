"""Measure on another machine that has python3 and onnxruntime: over ssh, or over adb on a phone.

The model and `child.py`, one file, are copied into a new folder there; each request is one command, its answer a line.
The folder is removed at the end. While a request runs, its standard input stays open: should the connection or this
process end, the child there reads the end of it and ends too.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote

from edgekd import onnx_file
from edgekd.bench import local
from edgekd.bench.local import CHILD_FILE, Answer, Request
from edgekd.devices import Place
from edgekd.errors import CannotLoad, NotMeasurable

PATIENCE = 60.0
"""Seconds for a command that only connects, makes a folder or removes one."""
COPY_SECONDS = 600.0
GRACE = 10.0
"""Seconds that a request may take beyond its own deadline, which the child over there keeps by itself."""
NO_COMMAND = 127
"""A shell's status for a program that is not there."""
NO_MODULE = "No module named"


@dataclass
class Shell:
    """A shell on another machine, and the folder there that holds what was copied."""

    place: Place
    command: Sequence[str]
    folder: str = ""
    copied: dict[str, str] = field(default_factory=dict)

    def say(self, line: str, *, stdin: bytes | None = None, seconds: float = PATIENCE) -> str:
        """Run one line there and return the last line that it prints.

        Raises:
            NotMeasurable: the machine cannot be reached, or the line fails.
        """
        where = Path(self.place.host or self.place.kind)
        try:
            done = local.run([*self.command, line], where, seconds, stdin)
        except CannotLoad as error:
            raise NotMeasurable(f"{self.place.kind}: {error}") from error
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            what = said[-1] if said else f"status {done.returncode}"
            raise NotMeasurable(f"{self.place.kind} {self.place.host}: {what}".replace(" :", ":"))
        return done.stdout.decode(errors="replace").strip().rpartition("\n")[2]  # a greeting may come before

    def copy(self, path: Path) -> str:
        """Put a file, and for a model its external data, into the folder there, once."""
        key = onnx_file.sha256(path)
        if key not in self.copied:
            inside = f"{self.folder}/{len(self.copied)}"
            self.say(f"mkdir -p {quote(inside)}")
            for part in onnx_file.parts(path) if path.suffix == ".onnx" else [path]:
                name = f"{inside}/{part.relative_to(path.resolve().parent) if part != path else path.name}"
                # `cat` is everywhere; what scp and sftp need on the other side is not.
                self.say(f"cat > {quote(name)}", stdin=part.read_bytes(), seconds=COPY_SECONDS)
            self.copied[key] = f"{inside}/{path.name}"
        return self.copied[key]

    def __call__(self, request: Request) -> Answer:
        """Carry out a request there. Raises as `local.ask` does, and when the machine cannot be reached."""
        line = f"{quote(self.place.python)} {quote(self.copy(CHILD_FILE))} -"
        text = request.as_json(self.copy(request.model)) + "\n"
        seconds = self.place.timeout or request.deadline_seconds() + GRACE
        done = local.run([*self.command, line], request.model, seconds, text.encode(), hold=True)
        said = (done.stderr.decode(errors="replace").strip().splitlines() or [""])[-1]
        missing = "python3" if done.returncode == NO_COMMAND else "onnxruntime" if NO_MODULE in said else ""
        if missing and not done.stdout.strip():
            raise NotMeasurable(f"{self.place.kind} {self.place.host}: {said}; install {missing} there")
        return local.understood(done, request.model)


def _ssh(place: Place) -> list[str]:
    port = ["-p", str(place.port)] if place.port else []
    return ["ssh", "-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15", *port, *place.options, "--", place.host]


def _adb(place: Place) -> list[str]:
    serial = ["-s", place.host] if place.host else []
    return ["adb", *serial, *place.options, "shell", "-T"]


_COMMANDS: dict[str, tuple[Callable[[Place], list[str]], str]] = {
    "ssh": (_ssh, "install an SSH client: apt install openssh-client"),
    "adb": (_adb, "install the Android platform tools: apt install adb"),
}


@contextmanager
def connected(place: Place) -> Iterator[Shell]:
    """A shell over there with a folder of its own, removed when done.

    Raises:
        NotMeasurable: the program is missing here, or the machine cannot be reached.
    """
    make, hint = _COMMANDS[place.kind]
    command = make(place)
    if shutil.which(command[0]) is None:
        raise NotMeasurable(f"{command[0]} is not installed; {hint}")
    shell = Shell(place, command)
    usual = "/data/local/tmp" if place.kind == "adb" else "${TMPDIR:-/tmp}"
    where = quote(place.folder) if place.folder else usual
    shell.folder = shell.say(f"umask 077 && mktemp -d {where}/edgekd.XXXXXX")
    try:
        yield shell
    finally:
        with suppress(NotMeasurable):  # what is gone needs no tidying
            shell.say(f"rm -rf {quote(shell.folder)}")
