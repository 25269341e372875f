"""Every question is counted, kept, and paid for once, whatever happens in between."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgekd.errors import BadRun, EdgekdError, OutOfQueries
from edgekd.teachers.ledger import Ledger
from edgekd.teachers.pixels import Stated
from edgekd.teachers.source import Again, Floats, outside


class Counting:
    """Answers every image with its first four pixels, and remembers what it was asked."""

    batch, probed = 3, 0

    def __init__(self, identity: str = "a" * 64) -> None:
        known = {"classes": 4, "ending": "logits"}
        self.spec = outside("t", identity, "i", (None, 1, 2, 2), "o", Stated(input_range=(0, 255)), known, "t")
        self.calls: list[int] = []
        self.fails_at: int | None = None

    def close(self) -> None:
        pass

    def ask(self, images: Floats, again: Again) -> Floats:
        if self.fails_at == len(self.calls):
            raise EdgekdError("gone")
        self.calls.append(len(images))
        return images.reshape(len(images), 4)


def codes(*values: int) -> np.ndarray:
    return np.stack([np.full((1, 2, 2), value, np.uint8) for value in values])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def test_answers_come_in_order_and_no_sample_is_asked_twice(path: Path) -> None:
    ledger, source = Ledger(path), Counting()
    first = ledger.answers(source, codes(5, 6, 5, 7, 8))
    np.testing.assert_array_equal(first[:, 0], [5, 6, 5, 7, 8])
    assert (source.calls, ledger.asked) == ([3, 1], 4)
    again = ledger.answers(source, codes(8, 5, 9))
    np.testing.assert_array_equal(again[:, 0], [8, 5, 9])
    assert (source.calls, ledger.asked) == ([3, 1, 1], 5)
    ledger.close()


def test_a_ledger_taken_up_again_knows_everything(path: Path) -> None:
    ledger = Ledger(path)
    expected = ledger.answers(Counting(), codes(*range(200)))
    ledger.close()
    later, source = Ledger(path), Counting()
    np.testing.assert_array_equal(later.answers(source, codes(*range(200))), expected)
    assert (source.calls, later.asked) == ([], 200)
    later.close()


def test_another_teacher_is_asked_for_itself(path: Path) -> None:
    ledger = Ledger(path)
    for identity in ("a" * 64, "b" * 64):
        ledger.answers(Counting(identity), codes(1))
    assert ledger.asked == 2
    ledger.close()


def test_an_unused_ledger_leaves_no_file(path: Path) -> None:
    ledger = Ledger(path, 10)
    assert (ledger.asked, ledger.affords_a_round()) == (0, True)
    ledger.close()
    assert not path.exists()


def test_nothing_is_asked_beyond_the_limit(path: Path) -> None:
    ledger, source = Ledger(path, 5), Counting()
    ledger.answers(source, codes(1, 2, 3))
    with pytest.raises(OutOfQueries, match="--max-queries: 3 of 5 queries are used"):
        ledger.answers(source, codes(1, 4, 5, 6))
    assert (source.calls, ledger.asked) == ([3], 3)
    ledger.answers(source, codes(1, 4, 5))
    assert ledger.asked == 5
    np.testing.assert_array_equal(ledger.answers(source, codes(5, 4))[:, 0], [5, 4])
    ledger.close()


def test_a_round_is_begun_only_if_the_dearest_so_far_could_be_paid_again(path: Path) -> None:
    ledger, source = Ledger(path, 10), Counting()
    ledger.answers(source, codes(1, 2, 3))
    ledger.begin_rounds()
    begun = 0
    while ledger.affords_a_round():
        ledger.answers(source, codes(10 + 2 * begun, 11 + 2 * begun))
        begun += 1
    assert (begun, ledger.asked) == (3, 9)
    ledger.close()


def test_what_was_answered_before_a_failure_is_kept(path: Path) -> None:
    ledger, source = Ledger(path), Counting()
    source.fails_at = 1
    with pytest.raises(EdgekdError, match="gone"):
        ledger.answers(source, codes(1, 2, 3, 4))
    source.fails_at = None
    ledger.answers(source, codes(1, 2, 3, 4))
    assert source.calls == [3, 1]
    assert ledger.asked == 5  # the one that failed may have been paid for
    ledger.close()


def test_what_has_to_be_sent_again_is_counted_again(path: Path) -> None:
    class Repeating(Counting):
        def ask(self, images: Floats, again: Again) -> Floats:
            again(len(images))
            return super().ask(images, again)

    ledger = Ledger(path, 5)
    ledger.answers(Repeating(), codes(1, 2))
    assert ledger.asked == 4
    with pytest.raises(OutOfQueries):
        ledger.answers(Repeating(), codes(3))
    assert ledger.asked == 5
    ledger.close()


def test_a_killed_process_has_lost_nothing_that_was_answered(path: Path) -> None:
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_ledger import *
ledger = Ledger(Path({str(path)!r}))
for value in range(250):
    ledger.answers(Counting(), codes(value))
    print(value, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        seen = [int(process.stdout.readline()) for _ in range(20)]
        os.kill(process.pid, signal.SIGKILL)
    ledger, source = Ledger(path), Counting()
    ledger.answers(source, codes(*seen))
    assert source.calls == []
    assert ledger.asked >= 20
    ledger.close()


def test_a_damaged_ledger_is_one_line(path: Path) -> None:
    path.write_bytes(b"no database, " * 100)
    with pytest.raises(BadRun, match=r"ledger\.sqlite: the ledger is damaged"):
        Ledger(path).answers(Counting(), codes(1))


def test_a_full_disk_is_one_line_and_asks_nothing(path: Path) -> None:
    ledger, source = Ledger(path), Counting()
    ledger.answers(source, codes(1))
    ledger._file.execute("PRAGMA max_page_count = 1")
    with pytest.raises(EdgekdError, match=r"ledger\.sqlite: cannot be written: database or disk is full"):
        ledger.answers(source, codes(*range(2, 250)))
    ledger.close()
    with sqlite3.connect(path) as file:
        (spent,) = file.execute("SELECT samples FROM spent").fetchone()
    file.close()
    assert sum(source.calls) <= spent
