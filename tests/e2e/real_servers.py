"""The servers people run, started on loopback: MLServer, and KServe's Python server.

Each has an environment of its own beside this one, made once: their pins and torch's are none of each other's business.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SERVED = Path(__file__).parent / "served"
PINS = {"mlserver": "mlserver==1.7.1", "kserve": "kserve==0.21.0"}


def environment(kind: str) -> Path:
    """The `bin` of an environment that has the server; made when it is not there, by one worker while others wait."""
    home = Path(sys.prefix) / "servers" / PINS[kind]
    ready = home / "ready"
    home.parent.mkdir(exist_ok=True)
    with home.with_name(f"{home.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists():
            venv.create(home, with_pip=False, clear=True)
            python = home / "bin" / "python"
            pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", PINS[kind]]
            subprocess.run(pip, check=True, capture_output=True, text=True)
            ready.touch()
    return home / "bin"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class RealServer:
    """One server process, and what its model was asked."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder, self.bin = kind, folder, environment(kind)
        self.port, self.process = free_port(), None
        self.url = f"http://127.0.0.1:{self.port}/v2/models/served"
        if kind == "mlserver":
            self._configure()

    def _configure(self) -> None:
        import_path = str(SERVED)
        sys.path.insert(0, import_path)
        import model

        sys.path.remove(import_path)
        ports = {"http_port": self.port, "grpc_port": free_port(), "metrics_port": free_port()}
        settings = {"host": "127.0.0.1", "parallel_workers": 0, "debug": False} | ports
        (self.folder / "settings.json").write_text(json.dumps(settings))
        about = {"name": "served", "implementation": "mlserver_runtime.Served", "parameters": {"version": "1"}}
        about |= {"platform": "numpy", "versions": ["1"], "inputs": [model.INPUT], "outputs": [model.OUTPUT]}
        (self.folder / "model-settings.json").write_text(json.dumps(about))

    def start(self) -> None:
        python = [str(self.bin / "python"), str(SERVED / "kserve_server.py"), str(self.port)]
        command = python if self.kind == "kserve" else [str(self.bin / "mlserver"), "start", str(self.folder)]
        own = {"SERVED": str(self.folder), "PYTHONPATH": str(SERVED), "OMP_NUM_THREADS": "1"}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, env=os.environ | own, stdout=log, stderr=log)
        for _ in range(600):
            with suppress(OSError, urllib.error.URLError):
                if urllib.request.urlopen(f"{self.url}/ready", timeout=5).status == 200:
                    return
            assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.1)
        raise AssertionError((self.folder / "log").read_text()[-2000:])

    def kill(self, how: int = signal.SIGKILL) -> None:
        assert self.process is not None
        self.process.send_signal(how)
        self.process.wait(20)

    @property
    def asked(self) -> int:
        """Samples the model worked on, over all of its lives."""
        file = self.folder / "asked"
        return sum(map(int, file.read_text().split())) if file.exists() else 0

    def fault(self, kind: str) -> None:
        """What the model does from now on: "", "slow", "error", "shape" or "nan"."""
        (self.folder / "fault").write_text(kind)


@contextmanager
def running(kind: str, folder: Path) -> Iterator[RealServer]:
    """A server until the end of the block, whatever became of its first process."""
    server = RealServer(kind, folder)
    server.start()
    try:
        yield server
    finally:
        assert server.process is not None
        if server.process.poll() is None:
            server.kill()


Break = Callable[["Between"], bool]


class Between(BaseHTTPRequestHandler):
    """Hands requests on to a real server and its answers back, and breaks those that it is told to."""

    protocol_version = "HTTP/1.1"
    upstream: str
    breaks: list[Break]

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.hand_on(None)

    def do_POST(self) -> None:
        self.hand_on(self.rfile.read(int(self.headers["Content-Length"])))

    def hand_on(self, body: bytes | None) -> None:
        self.refused = body is not None and bool(self.breaks) and self.breaks[0](self)
        if self.refused:
            self.breaks.pop(0)
            return
        kept = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "accept-encoding")}
        try:
            answer = urllib.request.urlopen(urllib.request.Request(self.upstream + self.path, body, kept), timeout=30)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            self.reply(answer.status, answer.read(), dict(answer.headers))

    def reply(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        cut = bool(self.breaks) and self.breaks[0] is truncated and self.command == "POST"
        if cut:
            self.breaks.pop(0)
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if cut else content)
        self.close_connection = cut


def busy(between: Between) -> bool:
    """503, and come back at once."""
    between.reply(503, b"{}", {"Retry-After": "0"})
    return True


def truncated(_: Between) -> bool:
    """The real answer, cut in half on its way back."""
    return False


@contextmanager
def between(server: RealServer, breaks: list[Break]) -> Iterator[str]:
    """The URL of the same model behind a proxy that breaks the next requests one by one."""
    kind = type("Own", (Between,), {"upstream": f"http://127.0.0.1:{server.port}", "breaks": breaks})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as proxy:
        proxy.daemon_threads = True
        thread = threading.Thread(target=proxy.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{proxy.server_address[1]}/v2/models/served"
        finally:
            proxy.shutdown()
            thread.join()
