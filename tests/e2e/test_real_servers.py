"""A URL as a teacher, behind the servers people run, whole and broken."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from commands import Edgekd, runner
from real_servers import PINS, RealServer, between, busy, running, truncated

from edgekd.config import Reach
from edgekd.errors import EdgekdError
from edgekd.teachers.endpoint import EndpointSource
from edgekd.teachers.ledger import Ledger
from edgekd.teachers.pixels import Stated

pytestmark = pytest.mark.slow
TINY = {"generator_batch": 32, "student_batch": 32, "student_steps": 2, "bank": 256, "prior": 64, "latent": 8}
TINY |= {"children": 0}
SET = [word for key, value in TINY.items() for word in ("--set", f"{key}={value}")]
ASK = [*SET, "--set", "generator_width=8", "--gradient", "estimate", "--directions", "1", "--threads", "1"]
PROBES, ROUND, REQUEST = 4, 64, 32
SETTLED = 2.0
"""Seconds in which a server that has a request in its hands surely counts it."""


@pytest.fixture(scope="module", params=sorted(PINS))
def live(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    with running(request.param, tmp_path_factory.mktemp(request.param)) as server:
        yield server


@pytest.fixture
def server(live: RealServer, monkeypatch: pytest.MonkeyPatch) -> RealServer:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    live.fault("")
    return live


@pytest.fixture
def edgekd(tmp_path: Path) -> Edgekd:
    return runner(sys.executable, tmp_path)


def images(count: int) -> np.ndarray:
    return (np.random.default_rng(1).integers(0, 256, (count, 1, 12, 12)) / 255).astype(np.float32)


def expected(given: np.ndarray) -> np.ndarray:
    weights = np.random.default_rng(0).normal(size=(144, 4))
    return ((given.reshape(len(given), -1).astype(np.float64) - 0.5) @ weights).astype(np.float32)


def opened(url: str, **reach: float) -> EndpointSource:
    return EndpointSource(url, Stated(), Reach(**{"patience": 10.0} | reach), {})


def settled(server: RealServer) -> int:
    """What the server was asked, when it has done all that reached it."""
    asked = -1
    while asked != (now := server.asked):
        asked = now
        time.sleep(SETTLED)
    return asked


def test_it_is_understood_in_json_and_in_binary(server: RealServer) -> None:
    source = opened(server.url)
    assert source._binary is (server.kind == "kserve")  # MLServer takes JSON only, which the first request finds out
    for binary in {source._binary, False}:
        source._binary = binary
        np.testing.assert_allclose(source.ask(images(50), lambda _: None), expected(images(50)), rtol=1e-4, atol=1e-4)
    source.close()


def test_a_run_asks_what_its_ledger_says(server: RealServer, edgekd: Edgekd, tmp_path: Path) -> None:
    before = server.asked
    done = edgekd("distill", server.url, "--out", "run", "--steps", 3, *ASK, "--json")
    asked = json.loads(done.stdout)["queries"]["asked"]
    assert server.asked - before == asked
    assert asked == pytest.approx(PROBES + 64 + 3 * ROUND, abs=2)
    assert "access scores" in done.stderr
    edgekd("export", "run")
    assert edgekd("gate", "run", "--max-size", "10MB").returncode == 0


def test_a_server_and_a_run_that_are_killed_pay_nothing_twice(server: RealServer, edgekd: Edgekd, tmp_path) -> None:
    """SIGKILL for both, in the middle of the run; the ledger is all that is left, and it is enough."""
    distil = ["distill", server.url, "--steps", "8", *ASK]
    before = server.asked
    edgekd(*distil, "--out", "whole")
    whole = server.asked - before
    command = [sys.executable, "-m", "edgekd", *distil, "--out", "parts"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE) as process:
        while server.asked - before - whole < PROBES + 64 + ROUND:
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.01)
        process.kill()
        server.kill()
        process.communicate()
    refused = edgekd(*distil, "--out", "parts", "--resume", check=False)
    assert refused.returncode == 3
    assert "cannot be reached" in refused.stderr
    server.start()
    done = edgekd(*distil, "--out", "parts", "--resume", "--json")
    # What was on its way when both were killed was asked for twice: one request at most.
    assert 0 <= server.asked - before - 2 * whole <= REQUEST
    assert 0 <= json.loads(done.stdout)["queries"]["asked"] - whole <= REQUEST
    for name in ("student.safetensors", "generator.safetensors"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_limit_is_a_limit_however_often_a_run_is_killed(server: RealServer, edgekd: Edgekd, tmp_path: Path) -> None:
    """Each question is chosen; killed three times and resumed, all that may be asked is asked and not one more.

    A question is counted before it is sent, so that each kill may lose one request, of which the server knows nothing.
    How much may be in one is said: the first ones would be larger than those of a round.
    """
    limit, before, lost = 600, server.asked, 0
    sizes = [*SET, "--set", "asked=32", "--set", "prior=512", "--set", "generator_width=8", "--threads", "1"]
    sizes += ["--batch", str(REQUEST)]
    distil = ["distill", server.url, "--steps", "24", "--max-queries", str(limit), "--out", "run", *sizes]
    for part in (1, 2, 3):
        command = [sys.executable, "-m", "edgekd", *distil, *["--resume"] * (part > 1)]
        with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE) as process:
            while server.asked - before < part * limit / 4:
                assert process.poll() is None, process.stderr and process.stderr.read()
                time.sleep(0.01)
            process.kill()
            process.communicate()
        known, lost = lost, Ledger(tmp_path / "run/ledger.sqlite").asked - (settled(server) - before)
        assert 0 <= lost - known <= REQUEST
    record = json.loads(edgekd(*distil, "--resume", "--json").stdout)
    assert (record["state"], record["settings"]["method"]) == ("finished", "student-guided")
    assert record["queries"]["asked"] == limit
    assert server.asked - before == limit - lost


def test_what_breaks_on_the_way_is_asked_again(server: RealServer) -> None:
    again: list[int] = []
    with between(server, []) as url:
        source = opened(url)
    breaks = [busy, truncated, busy, truncated]
    with between(server, breaks) as url:
        source._url = url
        np.testing.assert_allclose(source.ask(images(9), again.append), expected(images(9)), rtol=1e-4, atol=1e-4)
        source.close()
    assert (again, breaks) == ([9, 9], [])


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("nan", "its answers to 9 of 9 images are not finite"),
        ("shape", r"of shape \[9, 3\] to 9 images"),
        ("error", "HTTP 500: "),
        ("slow", "timed out"),
    ],
)
def test_what_the_model_does_wrong_is_one_line(server: RealServer, fault: str, said: str) -> None:
    source = opened(server.url, timeout=1.0, patience=0.0)
    server.fault(fault)
    with pytest.raises(EdgekdError, match=said) as raised:
        source.ask(images(9), lambda _: None)
    source.close()
    assert "\n" not in str(raised.value)
