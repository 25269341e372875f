"""The live page: served on loopback alone, renewed when told, gone when the run ends."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from calling import Call
from chromium import PROGRAM, browser
from folders import METRICS, begun

from edgekd.errors import BadSetting
from edgekd.report import live
from edgekd.report.live import served
from edgekd.run_folder import RunFolder


def asked(address: str, path: str = "/", host: str | None = None) -> tuple[int, str, str]:
    """Status, policy or type, and body."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=20)
    connection.request("GET", path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    told = answer.status, answer.getheader("Content-Type") or "", answer.read().decode()
    connection.close()
    return told


@pytest.fixture
def run(tmp_path: Path, make_picker: Callable[..., Path]) -> RunFolder:
    return begun(tmp_path / "run", make_picker())


def test_it_is_the_report_of_this_moment(run: RunFolder) -> None:
    with served(run) as (address, _):
        assert urlsplit(address).hostname == "127.0.0.1"
        _, kind, page = asked(address)
        assert kind == "text/html; charset=utf-8"
        assert "No losses have been logged yet." in page
        run.metrics_file.write_text(json.dumps(METRICS[0]) + "\n")
        _, _, page = asked(address)
        assert "soft_labels over training time" in page
        assert page.count("<script") == 1
    with pytest.raises(OSError, match="refused"):
        asked(address)


def test_before_the_run_has_begun_it_says_so(tmp_path: Path) -> None:
    with served(RunFolder(tmp_path / "run")) as (address, _):
        status, _, page = asked(address)
    assert status == 200
    assert "Not begun yet" in page
    assert not (tmp_path / "run").exists()


def test_who_asks_by_another_name_gets_nothing(run: RunFolder) -> None:
    with served(run) as (address, _):
        port = urlsplit(address).port
        assert asked(address, host=f"evil.example:{port}")[0] == 403
        assert asked(address, "/events", host="evil.example")[0] == 403
        assert asked(address, host=f"localhost:{port}")[0] == 200
        assert asked(address, "/../run.json")[0] == 404


def test_pages_are_told_of_what_is_new_and_of_the_end(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "PAUSE", 0.0)
    told: list[str] = []
    with served(run) as (address, changed):
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=20)
        connection.request("GET", "/events")
        answer = connection.getresponse()
        assert answer.getheader("Content-Type") == "text/event-stream"
        assert answer.readline() == b": hello\n"
        reader = threading.Thread(target=lambda: told.extend(line.decode().strip() for line in answer))
        reader.start()
        deadline = time.monotonic() + 20
        while "data: 1" not in told and time.monotonic() < deadline:
            changed()
            time.sleep(0.05)
    reader.join(20)
    connection.close()
    assert [line for line in told if line.startswith("data: ")]
    assert "event: end" in told


def test_a_port_in_use_is_refused_before_anything_is_trained(call: Call, teacher_file: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BadSetting, match=f"cannot listen at port {port}"), served(RunFolder(tmp_path), port):
            pass
        refused = call("distill", teacher_file, "--out", tmp_path / "run", "--steps", 1, "--live", "--port", port)
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.startswith(f"edgekd: error: --port: cannot listen at port {port}")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.skipif(PROGRAM is None, reason="no Chromium here")
def test_a_browser_renews_the_page_by_itself(tmp_path: Path, make_picker: Callable[..., Path]) -> None:
    run = RunFolder(tmp_path / "run")
    with browser() as chromium, served(run) as (address, changed):
        chromium.look(address)
        assert chromium.value("document.querySelector('h1').textContent") == "Not begun yet"
        begun(run.path, make_picker())
        run.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in METRICS))
        deadline = time.monotonic() + 30
        while not chromium.value("document.querySelectorAll('svg.chart').length") and time.monotonic() < deadline:
            changed()
            time.sleep(0.1)
        assert chromium.value("document.querySelectorAll('svg.chart').length") == 5
        assert chromium.said() == []
        assert {urlsplit(url).netloc for url in chromium.requested()} == {urlsplit(address).netloc}


def test_a_distillation_serves_its_page_and_ends(call: Call, teacher_file: Path, tmp_path: Path) -> None:
    done = call(
        "distill", teacher_file, "--out", "run", "--steps", 2, "--set", "prior=64", "--set", "bank=256", "--live"
    )
    assert done.code == 0, done.err
    address = next(line.split()[2] for line in done.err.splitlines() if line.startswith("look at http://127.0.0.1:"))
    with pytest.raises(OSError, match="refused"):
        asked(address)
