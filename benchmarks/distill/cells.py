"""Tables that a benchmark fills cell by cell: a cell is an expensive run, kept in a JSON file as soon as it is made.

What is there is not measured again while everything that decides it is the same, so that a long benchmark may be
stopped, and done in parts. Runs have one thread each and their time is counted in CPU time: several go on abreast, and
what else the machine does makes them later but not worse.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import threading
import time
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from abreast import abreast

from edgekd import __version__
from edgekd.run_folder import write_json

Found = dict[str, Any]
Case = TypeVar("Case")


@dataclass(frozen=True)
class Cell:
    """One run.

    Attributes:
        place: keys of the result under which the runs lie that differ in nothing but the seed.
        seed: of this one.
        told: what decides such runs, but for edgekd's code; those of other settings are dropped.
        minutes: of CPU time that it takes.
    """

    place: tuple[str, ...]
    seed: int
    told: dict[str, Any]
    minutes: float


class Table(Protocol):
    """What a benchmark says of its cells."""

    path: Path
    schema: str

    @abstractmethod
    def measure(self, cell: Cell, folder: Path) -> Found:
        """Make one run, in an empty folder that is deleted afterwards."""

    @abstractmethod
    def describe(self, cell: Cell, result: Found) -> None:
        """Write into the result, which has `told` and `seeds` at the cell's place, what readers want: goals, means."""


def fill(table: Table, cells: Iterable[Cell], at_once: int, minutes: float = float("inf")) -> None:
    """Measure what is not known yet, so many runs at a time; begin none that would end later than in `minutes`."""
    end, writing = time.monotonic() + 60 * minutes, threading.Lock()

    def one(cell: Cell) -> None:
        if str(cell.seed) in _runs(_result(table), cell)["seeds"] or time.monotonic() + 60 * cell.minutes > end:
            return
        with tempfile.TemporaryDirectory() as folder:
            found = table.measure(cell, Path(folder))
        with writing:
            _enter(table, cell, found)
        print(*cell.place[1:], cell.seed, json.dumps(found), file=sys.stderr, flush=True)

    abreast((partial(one, cell) for cell in cells), at_once)


def _result(table: Table) -> Found:
    found: Found = json.loads(table.path.read_text()) if table.path.exists() else {}
    return found if found.get("schema") == table.schema else {"schema": table.schema}


def _runs(result: Found, cell: Cell) -> Found:
    """The runs of a cell's place as far as they still hold, made a part of the result."""
    *way, last = cell.place
    for key in way:
        result = result.setdefault(key, {})
    if result.get(last, {}).get("told") != cell.told:
        result[last] = {"told": cell.told, "seeds": {}}
    runs: Found = result[last]
    return runs


def _enter(table: Table, cell: Cell, found: Found) -> None:
    result = _result(table)
    result["host"] = {"machine": platform.machine(), "cores": os.cpu_count(), "edgekd": __version__}
    runs = _runs(result, cell)
    runs["seeds"] = dict(sorted((runs["seeds"] | {str(cell.seed): found}).items()))
    table.describe(cell, result)
    write_json(table.path, result)


def clocks(given: argparse.Namespace, own: Mapping[Case, float]) -> dict[Case, tuple[list[Any], float]]:
    """By case what `edgekd distill` is told of its time, and the CPU minutes to expect: of rounds, none."""
    minutes = {name: given.minutes or one for name, one in own.items()}
    if given.steps:
        return dict.fromkeys(own, (["--steps", given.steps], 0.0))
    return {name: (["--minutes", one, "--clock", "cpu"], one) for name, one in minutes.items()}


def options(description: str | None, **choices: Iterable[str]) -> argparse.ArgumentParser:
    """What all of them are told, and an option for each of `choices`: all there is, if nothing is said."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, there in choices.items():
        parser.add_argument(f"--{name}", nargs="+", choices=list(there), default=list(there))
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0")
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="how many runs at a time")
    parser.add_argument("--minutes", type=float, help="of CPU time of each run, instead of its own")
    parser.add_argument("--for", dest="most", type=float, default=float("inf"), help="minutes to go on for")
    return parser
