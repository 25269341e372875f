"""What was asked of the teachers of a run, and what they answered: counted, kept on disk, and never paid for twice.

One SQLite file in the run folder. A question is counted before it is sent, and its answer is committed before anybody
uses it, so that a run may be killed at any moment: at most the one batch on its way is asked for again. Nothing is
held in memory but the batch at hand. It knows nothing of torch, and nothing of how a teacher is reached.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekd.codes import from_codes
from edgekd.errors import BadRun, EdgekdError, OutOfQueries, Refused
from edgekd.teachers.source import Codes, Floats, Source, checked

_TABLES = """
CREATE TABLE IF NOT EXISTS spent (teacher TEXT PRIMARY KEY, samples INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS answers (question BLOB PRIMARY KEY, logits BLOB NOT NULL) WITHOUT ROWID;
"""
Flags = NDArray[np.bool_]
_AT_ONCE = 500  # SQLite's oldest limit on the parameters of one statement is 999


class Ledger:
    """The questions of one run, to all of its teachers.

    Args:
        path: of the file; made when the first question is asked, together with nothing else.
        limit: how many samples may be asked about in all, or None.
    """

    def __init__(self, path: Path, limit: int | None = None) -> None:
        self.path, self.limit = Path(path), limit
        self._round_began, self._dearest_round = 0, 0

    @property
    def asked(self) -> int:
        """Samples asked about so far, over all teachers and all resumptions."""
        if not self.path.is_file():
            return 0
        with self._reported():
            return int(self._file.execute("SELECT COALESCE(SUM(samples), 0) FROM spent").fetchone()[0])

    def answers(self, source: Source, codes: Codes) -> Floats:
        """Logits of images as 8-bit codes `[N, C, H, W]`; only what was never asked before is asked.

        Raises:
            OutOfQueries: it would be more than the limit; nothing was asked.
            Refused: the source answers no more for now; what it refused is not counted.
            EdgekdError: the source fails, or the disk is full.
        """
        questions = [_question(source, one) for one in codes]
        sizes = source.spec.answer_shape
        known = {question: answer.reshape(sizes) for question, answer in self._known(questions).items()}
        places = {question: place for place, question in enumerate(questions) if question not in known}
        self.affordable(len(places))
        fresh = list(places)
        for start in range(0, len(fresh), source.batch):
            part = fresh[start : start + source.batch]
            self.spend(source, len(part))
            chosen = codes[[places[question] for question in part]]
            images = from_codes(chosen, source.spec.low, source.spec.high)
            try:
                answered = source.ask(images, partial(self.spend, source))
            except OutOfQueries:  # the attempt before this one may have been paid for
                raise
            except Refused:
                self.spend(source, -len(part))  # the last attempt was not worked on
                raise
            answered = checked(answered, len(part), sizes, source.spec.name)
            self._keep(part, answered)
            known.update(zip(part, answered, strict=True))
        return np.stack([known[question] for question in questions])

    def spend(self, source: Source, samples: int) -> None:
        """Count samples that are about to be sent.

        Raises:
            OutOfQueries: they would be more than the limit; they are not counted.
        """
        self.affordable(samples)
        row = (source.spec.sha256, samples)
        with self._reported():
            self._file.execute(
                "INSERT INTO spent VALUES (?, ?) ON CONFLICT DO UPDATE SET samples = samples + excluded.samples", row
            )

    @property
    def left(self) -> int | None:
        """Samples that may still be asked about; None without a limit."""
        return None if self.limit is None else max(0, self.limit - self.asked)

    def new(self, source: Source, codes: Codes) -> Flags:
        """Which of N images, as 8-bit codes `[N, C, H, W]`, would have to be asked about: bool `[N]`.

        Of equal ones the first.
        """
        questions = [_question(source, one) for one in codes]
        first = {question: place for place, question in reversed(list(enumerate(questions)))}
        for question in self._known(questions):
            del first[question]
        found = np.zeros(len(questions), bool)
        found[list(first.values())] = True
        return found

    def affordable(self, samples: int) -> None:
        """Raise `OutOfQueries` if so many samples more would be over the limit."""
        if self.limit is not None and samples and self.asked + samples > self.limit:
            raise OutOfQueries(self.asked, self.limit)

    def affords_a_round(self) -> bool:
        """Whether the limit leaves room for another round as dear as the dearest so far. Call it before each."""
        if self.limit is None:
            return True
        asked = self.asked
        self._dearest_round = max(self._dearest_round, asked - self._round_began)
        self._round_began = asked
        return asked + self._dearest_round <= self.limit

    def begin_rounds(self) -> None:
        """What was asked so far belongs to no round."""
        self._round_began = self.asked

    def close(self) -> None:
        """Close the file, if it was opened."""
        if "_file" in vars(self):
            self._file.close()
            del self._file

    # --------------------------------------------------------------------------------------------- the file

    @cached_property
    def _file(self) -> sqlite3.Connection:
        file = sqlite3.connect(self.path, isolation_level=None)
        # With a write-ahead log a commit outlives the process without waiting for the disk.
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("PRAGMA synchronous = NORMAL")
        file.executescript(_TABLES)
        return file

    def _known(self, questions: Sequence[bytes]) -> dict[bytes, Floats]:
        found: dict[bytes, Floats] = {}
        with self._reported():
            for start in range(0, len(questions), _AT_ONCE):
                part = questions[start : start + _AT_ONCE]
                marks = ",".join("?" * len(part))
                rows = self._file.execute(f"SELECT question, logits FROM answers WHERE question IN ({marks})", part)  # noqa: S608 - marks are question marks
                found.update((question, np.frombuffer(logits, np.float32)) for question, logits in rows)
        return found

    def _keep(self, questions: Sequence[bytes], answers: Floats) -> None:
        rows = ((question, answer.tobytes()) for question, answer in zip(questions, answers, strict=True))
        with self._reported():
            self._file.execute("BEGIN")
            self._file.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?)", rows)
            self._file.execute("COMMIT")

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            cure = {"full": "free some space", "locked": "another process is using this run"}
            hint = next((what for word, what in cure.items() if word in str(error)), "")
            raise EdgekdError(f"cannot be written: {error}", where=self.path, hint=hint) from error
        except sqlite3.DatabaseError as error:
            hint = "the answers in it are lost; start afresh with --overwrite"
            raise BadRun(f"the ledger is damaged ({error})", where=self.path, hint=hint) from error


def _question(source: Source, codes: Codes) -> bytes:
    """What stands for one image asked of one teacher: its very bytes, keyed with what identifies the teacher."""
    key = source.spec.sha256.encode()[:64]
    return blake2b(np.ascontiguousarray(codes).data, digest_size=16, key=key).digest()
