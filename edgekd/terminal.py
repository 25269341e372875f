"""What people see of a command: tables, progress, and one line when something goes wrong.

Results go to stdout. Everything else goes to stderr: notices, progress and errors. Of several processes that torchrun
started only the first says anything, unless EDGEKD_DEBUG is set.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from io import StringIO
from typing import TYPE_CHECKING, Any, TextIO

import typer

from edgekd.errors import EdgekdError

if TYPE_CHECKING:
    from edgekd.bench import Progress as BenchProgress
    from edgekd.distill import Progress

UsageError: type[typer.BadParameter] = typer.BadParameter.__bases__[0]
"""Click's UsageError; Typer carries its own click in some versions and does not export the name."""

DOCS = "docs/"
"""Where the pages are that an error names."""
INTERRUPTED = 128 + signal.SIGINT
PIPE_CLOSED = 128 + 13
"""What a shell reports for SIGPIPE; Windows has no such signal to name."""
PLAIN_SECONDS = 15.0
"""How often progress is told where there is no terminal to draw a bar on."""


# ----------------------------------------------------------------------------------------------------- the boundary


def guarded(command: Callable[[], int | None]) -> int:
    """Run a command and turn whatever it raises into one line on stderr and an exit code.

    An unexpected exception is a bug; its traceback is shown when EDGEKD_DEBUG is set.
    """
    debug = bool(os.environ.get("EDGEKD_DEBUG"))
    if not debug:
        warnings.simplefilter("ignore")
    if not (speaks() or debug):
        sys.stdout = sys.stderr = StringIO()
    try:
        return command() or 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if debug:
            traceback.print_exc()
        return _explained(error)


def speaks() -> bool:
    """Whether this process answers the user: it is alone, or the first of those that torchrun started."""
    return "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("RANK", "0") == "0"


def _explained(error: Exception) -> int:
    if isinstance(error, UsageError):
        return _usage(error)
    if isinstance(error, EdgekdError):
        return _fail(str(error) + (f"; see {DOCS}{error.page}" if error.page else ""), error.exit_code)
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror}", EdgekdError.exit_code)
    if isinstance(error, MemoryError):
        return _fail("out of memory", EdgekdError.exit_code)
    what = " ".join(f"{type(error).__name__}: {error}".split())
    hint = "run it again with EDGEKD_DEBUG=1 and report what it prints"
    return _fail(f"this is a bug in edgekd: {what}; {hint}", EdgekdError.exit_code)


def _usage(error: Exception) -> int:
    """A misused command line; without any command the help is the answer."""
    message = " ".join(error.format_message().split())  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "edgekd"
    if type(error).__name__ == "NoArgsIsHelpError":
        return 2  # Typer has printed the help
    return _fail(f"{message.rstrip('.')}; see: {path} --help", 2)


def _fail(message: str, code: int) -> int:
    typer.echo(f"edgekd: error: {message}", err=True)
    return code


def _forget_stdout() -> None:
    """Keep the interpreter from flushing, on its way out, what nobody reads any more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# -------------------------------------------------------------------------------------------------------- results


def note(text: str) -> None:
    """A line for people, on stderr."""
    typer.echo(text, err=True)


def show(record: Any, text: str, *, as_json: bool) -> None:
    """A result on stdout: its JSON for programs, or text for people."""
    write(json.dumps(record, indent=2, ensure_ascii=False) if as_json else text)


def write(text: str) -> None:
    """A result on stdout. A reader who has gone away is no error."""
    try:
        typer.echo(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_stdout()
        raise typer.Exit(PIPE_CLOSED) from None


def table(rows: Sequence[Sequence[str]], headers: Sequence[str] = ()) -> str:
    """Columns as people read them, without lines to draw."""
    from edgekd.formats import columns  # noqa: PLC0415 - `edgekd --help` draws no table

    return columns(headers, rows)


def exported(record: dict[str, Any]) -> str:
    """The files of an export with their sizes, how far the students agree with the teacher, and what INT8 cost."""
    from edgekd.units import write_share, write_size  # noqa: PLC0415 - beside tabulate

    files = [[entry["path"], write_size(entry["bytes"])] for entry in record["files"].values()]
    agreement = record["agreement"] or {}
    shares = [[f"agreement, {name}", write_share(value)] for name, value in agreement.items() if value is not None]
    parts = [table(files + shares)]
    for proof in record.get("proof", {}).values():
        parts.append(table([_proved(row) for row in proof], _PROOF))
    quantization = record.get("quantization") or {}
    steps = [
        [s["name"], _share(s["agreement"]), f"{s['sqnr_db']:.1f} dB", "kept" if s["kept"] else "left out"]
        for s in quantization.get("steps", [])
    ]
    if len(steps) > 1:
        parts.append(table(steps, ("tried", "agrees with float", "signal to noise", "")))
    return "\n\n".join(parts)


_PROOF = ("", "size", "agrees with float", "with teacher", "p50", "nodes in float")


def _proved(row: dict[str, Any]) -> list[str]:
    """A row of the proof: what it is, size, agreement, latency, what computes in float."""
    from edgekd.units import write_size, write_time  # noqa: PLC0415 - beside tabulate

    left = ", ".join(f"{count} {name}" for name, count in row["float_nodes"].items()) or "none"
    time_told = write_time(row["p50_ms"]) if row["p50_ms"] is not None else "-"
    shares = [_share(row[key]) for key in ("agreement_float", "agreement_teacher")]
    return [
        row["label"],
        write_size(row["bytes"]),
        *shares,
        time_told,
        left if row["agreement_float"] is not None else "all",
    ]


def _share(value: float | None) -> str:
    from edgekd.units import write_share  # noqa: PLC0415 - beside tabulate

    return "-" if value is None else write_share(value)


def joined(record: dict[str, Any]) -> str:
    """How headers are joined, and what the samples say of it."""
    if record["joined"] == "mean":
        return "headers are joined by their mean"
    shares = ", ".join(f"{share:.0%}" for share in record["shares"])
    goal = "their labels" if record["samples"]["labels"] else "the teachers' mean"
    loss = "{mean:.4f} to {attention:.4f}".format(**record["loss"])
    return f"headers are joined by attention, counting {shares}; loss of the samples to {goal}: {loss}"


# ------------------------------------------------------------------------------------------------------- progress


@contextmanager
def distilling(*notes: str) -> Iterator[Callable[[Progress], None]]:
    """A watcher for `distill`: a bar with losses on a terminal, a plain line now and then elsewhere.

    Args:
        notes: lines told when training has begun, not before: a run that is refused answers with one line.
    """
    if not sys.stderr.isatty():
        yield _plainly(sys.stderr, list(notes))
        return
    from rich.console import Console  # noqa: PLC0415 - only where a bar is drawn
    from rich.progress import BarColumn, TextColumn  # noqa: PLC0415
    from rich.progress import Progress as Bar  # noqa: PLC0415

    waiting = list(notes)
    columns = (BarColumn(16), TextColumn("{task.description}"))
    with Bar(*columns, console=Console(stderr=True), transient=True, refresh_per_second=2) as bar:
        task = bar.add_task("starting", total=1.0)

        def watch(progress: Progress) -> None:
            while waiting:
                bar.console.print(waiting.pop(0), highlight=False, markup=False, soft_wrap=True)
            if progress.message:
                bar.console.print(progress.message, highlight=False, markup=False, soft_wrap=True)
            bar.update(task, completed=progress.fraction, description=_line(progress))

        yield watch


def _plainly(stream: TextIO, waiting: list[str]) -> Callable[[Progress], None]:
    told = time.monotonic()

    def watch(progress: Progress) -> None:
        nonlocal told
        while waiting:
            stream.write(waiting.pop(0) + "\n")
        if progress.message:
            stream.write(progress.message + "\n")
        if time.monotonic() - told >= PLAIN_SECONDS:
            told = time.monotonic()
            stream.write(_line(progress) + "\n")
            stream.flush()

    return watch


def _line(progress: Progress) -> str:
    left = timedelta(seconds=round(progress.seconds_left))
    own = {name: value for name, value in progress.losses.items() if not name[-1].isdigit()}  # not those of rivals
    losses = "  ".join(f"{name} {value:.3g}" for name, value in own.items())
    return f"{progress.fraction:4.0%}  {left} left  {progress.images_per_second:,.0f} images/s  {losses}"


@contextmanager
def measuring() -> Iterator[Callable[[BenchProgress], None]]:
    """A watcher for `bench`: a changing line on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415 - only where a line changes

    with Console(stderr=True).status("measuring") as status:
        yield lambda progress: status.update(f"measuring {progress.label}, {progress.done + 1} of {progress.total}")
