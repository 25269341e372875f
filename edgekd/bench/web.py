"""Measure in a browser: onnxruntime-web in headless Chromium, served on loopback with the headers that threads need.

Each request is a fresh browser with a profile of its own. The page fetches the model and its inputs from here and posts
its answer; nothing else is served, and nothing leaves the machine.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from edgekd import onnx_file
from edgekd.bench import child, local
from edgekd.bench.local import Answer, Request, Runner
from edgekd.devices import Place
from edgekd.errors import CannotLoad, NotMeasurable
from edgekd.run_folder import scratch

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
PROVIDERS = {
    "CPUExecutionProvider": ("wasm", "ort.wasm.min.mjs"),
    "WebGpuExecutionProvider": ("webgpu", "ort.webgpu.min.mjs"),
}
"""Of ONNX Runtime: what onnxruntime-web calls it, and the script that holds it."""

_PAGE = Path(__file__).with_name("web_page.html")
_TYPES = {".mjs": "text/javascript", ".wasm": "application/wasm", ".html": "text/html; charset=utf-8"}
_QUIET = (
    *("--headless", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync"),
    *("--disable-component-update", "--disable-extensions", "--disable-background-timer-throttling"),
)


class _Server(ThreadingHTTPServer):
    """What one page may fetch, and the answer it posts."""

    daemon_threads = True

    def __init__(self, files: Mapping[str, bytes], scripts: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.secret = secrets.token_urlsafe(16)
        self.files, self.scripts = files, scripts
        self.answer: dict[str, Any] | None = None
        self.answered = threading.Event()


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        name = self._name()
        if name is None:
            return self._send(404, b"", "")
        if name in self.server.files:
            return self._send(200, self.server.files[name], ".html" if name == "" else "")
        if name.startswith("ort/") and (path := self.server.scripts / Path(name).name).is_file():
            return self._send(200, path.read_bytes(), path.suffix)
        return self._send(404, b"", "")

    def do_POST(self) -> None:
        if self._name() != "answer":
            return self._send(404, b"", "")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            found = json.loads(body)
        except ValueError:
            found = None
        self.server.answer = found if isinstance(found, dict) else {"error": "the page's answer is no JSON object"}
        self._send(204, b"", "")
        self.server.answered.set()
        return None

    def _name(self) -> str | None:
        """What is asked for under the secret, which no other page of this machine knows."""
        prefix = f"/{self.server.secret}/"
        return self.path.removeprefix(prefix) if self.path.startswith(prefix) else None

    def _send(self, status: int, body: bytes, suffix: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", _TYPES.get(suffix, "application/octet-stream"))
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: what goes wrong is said once, by the exception."""


@contextmanager
def browser(place: Place) -> Iterator[Runner]:
    """Measure in a browser.

    Raises:
        NotMeasurable: there is no Chromium, or no onnxruntime-web; says what to install.
    """
    program = place.host or next((name for name in BROWSERS if shutil.which(name)), "")
    if not program or shutil.which(program) is None:
        raise NotMeasurable(f"no {program or 'Chromium'} here; install it: apt install chromium")
    scripts = _scripts(place)

    def ask(request: Request) -> Answer:
        return _asked(request, program, place, scripts)

    yield ask


def _scripts(place: Place) -> Path:
    """Where onnxruntime-web's files are: in `runner.folder`, or in node_modules here or above."""
    here = Path.cwd()
    found = [Path(place.folder)] if place.folder else [up / "node_modules" for up in (here, *here.parents)]
    for folder in found:
        for dist in (folder, folder / "dist", folder / "onnxruntime-web" / "dist"):
            if (dist / "ort.wasm.min.mjs").is_file():
                return dist
    hint = "install it: npm install --ignore-scripts onnxruntime-web"
    raise NotMeasurable(f"no onnxruntime-web in {place.folder or 'node_modules'}; {hint}")


def _asked(request: Request, program: str, place: Place, scripts: Path) -> Answer:
    if request.task not in ("measure", "answer"):
        raise NotMeasurable(f"a browser does not tell a {request.task}")
    if request.runtime.provider not in PROVIDERS:
        allowed = ", ".join(PROVIDERS)
        raise NotMeasurable(f"onnxruntime-web has no {request.runtime.provider}; it has {allowed}")
    if len(onnx_file.parts(request.model)) > 1:
        raise CannotLoad("a browser is handed one file, and this one has external data", where=request.model)
    with _served(_files(request), scripts) as server, scratch() as profile:
        url = f"http://127.0.0.1:{server.server_port}/{server.secret}/"
        unboxed = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        command = [program, *_QUIET, *unboxed, f"--user-data-dir={profile}", *place.options, url]
        answer = _waited(command, server, place.timeout or request.deadline_seconds(), request.model)
    if "error" in answer:
        raise CannotLoad(f"onnxruntime-web cannot load or run it: {answer['error']}", where=request.model)
    return _completed(answer) if request.task == "measure" else answer


def _files(request: Request) -> dict[str, bytes]:
    provider, script = PROVIDERS[request.runtime.provider]
    said = json.loads(request.as_json()) | {"web_provider": provider, "script": script, "blocks": child.BLOCKS}
    feed = child.feed_of(said)
    inputs = {f"input/{k}": feed[spec.name].tobytes() for k, spec in enumerate(request.inputs)}
    model = {"model": request.model.read_bytes(), "request": json.dumps(said).encode(), "": _PAGE.read_bytes()}
    return inputs | model


@contextmanager
def _served(files: Mapping[str, bytes], scripts: Path) -> Iterator[_Server]:
    with _Server(files, scripts) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def _waited(command: list[str], server: _Server, timeout: float, model: Path) -> dict[str, Any]:
    """The page's answer. The browser is ended with all its processes, whatever happens."""
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(  # noqa: S603 - a browser, on our own page
        command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
    )
    try:
        for _ in range(int(10 * timeout)):
            if server.answered.wait(0.1):
                break
            if process.poll() is not None:
                raise NotMeasurable(f"{command[0]} ended with status {process.returncode} before it answered")
    finally:
        local.end(process)
    if server.answer is None:
        raise CannotLoad(f"no answer within {timeout:g} s, the browser was killed", where=model)
    return server.answer


def _completed(told: dict[str, Any]) -> dict[str, Any]:
    """Its own words about the machine; memory is not told by a page."""
    page = told.pop("browser")
    environment = child.fingerprint() | {"onnxruntime": f"web {page['onnxruntime_web']}", "browser": page["agent"]}
    environment["threads_possible"] = page["isolated"]
    return told | {"environment": environment, "baseline_bytes": None, "peak_bytes": None}
