"""A browser: the page that is served to it, and where there is one, a model in it."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from parts import PARTS

from edgekd.bench import bench, web
from edgekd.bench.inputs import InputSpec
from edgekd.bench.local import Request
from edgekd.bench.where import runner_at
from edgekd.devices import Place, Protocol, Runtime, Target
from edgekd.errors import CannotLoad, NotMeasurable

SHORT = Protocol(processes=1, warmup_runs=2, warmup_seconds=0, runs=10, seconds=0.01)


def request(path: Path, **changes) -> Request:
    spec = InputSpec("image", (1, 1, 8, 8), "float32", 0.0, 1.0)
    return Request(path, [spec], Runtime(), SHORT, **changes)


@pytest.fixture
def scripts(tmp_path) -> Path:
    """What stands in for onnxruntime-web's files."""
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / "ort.wasm.min.mjs").write_text("export const a = 1;")
    (tmp_path / "secret.txt").write_text("secret")
    return tmp_path / "dist"


def got(url: str, data: bytes | None = None):
    with urllib.request.urlopen(url, data) as answer:
        return answer.read(), answer.headers


def test_the_page_is_isolated_and_nothing_else_is_served(make_classifier, scripts):
    asked = request(make_classifier())
    with web._served(web._files(asked), scripts) as server:
        root = f"http://127.0.0.1:{server.server_port}/{server.secret}/"
        page, headers = got(root)
        assert page.startswith(b"<!doctype html>")
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        assert got(root + "ort/ort.wasm.min.mjs")[1]["Content-Type"] == "text/javascript"
        assert got(root + "model")[0] == asked.model.read_bytes()
        assert np.frombuffer(got(root + "input/0")[0], np.float32).shape == (64,)
        assert json.loads(got(root + "request")[0])["web_provider"] == "wasm"
        outside = ("ort/../secret.txt", "ort/%2e%2e/secret.txt", "input/1", "../model", "ort/")
        for name in (*(root + one for one in outside), f"http://127.0.0.1:{server.server_port}/model"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                got(name)
        got(root + "answer", b'{"load_ns": 1}')
        assert server.answered.wait(60)
        assert server.answer == {"load_ns": 1}
        got(root + "answer", b"[]")
        assert "no JSON object" in server.answer["error"]


def program(folder: Path, line: str) -> str:
    path = folder / "browser"
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
    return str(path)


def test_a_browser_that_never_answers_is_ended_with_all_it_started(make_classifier, scripts, tmp_path):
    pid = tmp_path / "pid"
    silent = program(tmp_path, f"sleep 600 & echo $! > {pid}; wait")
    place = Place(kind="web", host=silent, folder=str(scripts), timeout=1.0)
    with runner_at(place) as runner, pytest.raises(CannotLoad, match="no answer within 1 s, the browser was killed"):
        runner(request(make_classifier()))
    sleeper = Path(f"/proc/{pid.read_text().strip()}/stat")
    for _ in range(500):
        if not sleeper.exists() or ") Z" in sleeper.read_text():
            return
        time.sleep(0.01)
    pytest.fail("what the browser started still runs")


def test_a_browser_that_ends_at_once(make_classifier, scripts, tmp_path):
    place = Place(kind="web", host=program(tmp_path, "exit 7"), folder=str(scripts))
    with runner_at(place) as runner, pytest.raises(NotMeasurable, match="ended with status 7 before it answered"):
        runner(request(make_classifier()))


def test_what_is_missing_is_named(make_classifier, scripts, tmp_path, monkeypatch):
    silent = program(tmp_path, "exit 0")
    for place, said in (
        (
            Place(kind="web", host="no-such-browser", folder=str(scripts)),
            "no no-such-browser here; .*apt install chromium",
        ),
        (Place(kind="web", host=silent, folder=str(tmp_path / "none")), "no onnxruntime-web in .*npm install"),
    ):
        with runner_at(place) as runner, pytest.raises(NotMeasurable, match=said):
            runner(request(make_classifier()))
    with runner_at(Place(kind="web", host=silent, folder=str(scripts))) as runner:
        with pytest.raises(NotMeasurable, match="a browser does not tell a profile"):
            runner(request(make_classifier(), task="profile"))
        with pytest.raises(NotMeasurable, match="onnxruntime-web has no MoonExecutionProvider; it has CPUExecution"):
            runner(replace(request(make_classifier()), runtime=Runtime(provider="MoonExecutionProvider")))
    monkeypatch.setenv("PATH", "")
    with runner_at(Place(kind="web")) as runner, pytest.raises(NotMeasurable, match="no Chromium here"):
        runner(request(make_classifier()))


def test_external_data_is_refused(make_classifier, scripts, tmp_path):
    onnx.save(
        onnx.load(make_classifier()), tmp_path / "b.onnx", save_as_external_data=True, location="b.d", size_threshold=0
    )
    place = Place(kind="web", host=program(tmp_path, "exit 0"), folder=str(scripts))
    with runner_at(place) as runner, pytest.raises(CannotLoad, match="external data"):
        runner(request(tmp_path / "b.onnx"))


@pytest.fixture
def real() -> Place:
    """Chromium and onnxruntime-web, where they are installed."""
    folder = str(PARTS / "node_modules")
    try:
        with web.browser(Place(kind="web", folder=folder)):
            return Place(kind="web", folder=folder)
    except NotMeasurable as error:
        pytest.skip(str(error))


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_a_model_runs_in_a_real_browser_and_answers_as_it_does_here(real, make_classifier, threads):
    path, runtime = make_classifier(filters=64), Runtime(intra_op_threads=threads)
    target = Target(schema=1, name="web", title="Web", runtime=runtime, bench=SHORT, runner=real)
    with runner_at(real) as runner:
        record = bench({"m": path}, target, runner=runner, examined=["placement"])
    entry = record["models"]["m"]
    assert record["not_measured"] is None
    assert entry["latency_ms"]["samples"] >= 10
    assert entry["memory_bytes"] is None
    assert entry["difference"]["relative"] < 1e-5
    assert record["environment"]["threads_possible"] is True
    assert record["environment"]["onnxruntime"].startswith("web 1.")


@pytest.mark.slow
def test_a_bad_model_in_a_real_browser(real, tmp_path):
    (tmp_path / "no.onnx").write_bytes(b"\x08\x07no model")
    before = threading.active_count()
    with runner_at(real) as runner, pytest.raises(CannotLoad, match="onnxruntime-web cannot load or run it: "):
        runner(request(tmp_path / "no.onnx"))
    assert threading.active_count() == before
