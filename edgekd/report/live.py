"""The report while the run goes on: the same page, served on loopback, renewed when there is something new.

The page listens to server-sent events and fetches itself again; there is nothing to build and nothing to install. Only
this machine is answered, and only when it is asked for by a name of its own: a page elsewhere whose name was pointed
here gets nothing.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources

from edgekd.errors import BadSetting, EdgekdError
from edgekd.report.facts import Facts
from edgekd.report.page import POLICY, page
from edgekd.run_folder import RunFolder
from edgekd.tags import Node, document, tag

PAUSE = 3.0
"""Seconds between two renewals: each takes time from the training."""
HEARTBEAT = 10.0
FAREWELL = 1.0


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = False  # a port in use is somebody else's

    def __init__(self, run: RunFolder, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.run, self.version, self.told, self.closing, self.open = run, 0, 0.0, False, 0
        self.news = threading.Condition()

    def changed(self) -> None:
        """Tell the pages that are open, not too often."""
        with self.news:
            if time.monotonic() - self.told >= PAUSE:
                self.version, self.told = self.version + 1, time.monotonic()
                self.news.notify_all()

    def close(self) -> None:
        """Tell them for the last time, and let them fetch what they are told of."""
        with self.news:
            self.version, self.closing = self.version + 1, True
            self.news.notify_all()
        if self.open:
            time.sleep(FAREWELL)

    def next(self, seen: int) -> int:
        """The version that is newer than one that was seen, or the same after a while."""
        with self.news:
            self.news.wait_for(lambda: self.version != seen or self.closing, HEARTBEAT)
            return self.version


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        names = {f"{name}:{self.server.server_port}" for name in ("127.0.0.1", "localhost")}
        if self.headers.get("Host") not in names:
            self._send(403, b"asked for by another name", "text/plain")
        elif self.path == "/":
            self._page()
        elif self.path == "/events":
            self._events()
        else:
            self._send(404, b"nothing here", "text/plain")

    def _page(self) -> None:
        nonce = secrets.token_urlsafe(16)
        policy = f"{POLICY}; connect-src 'self'; script-src 'nonce-{nonce}'"
        script = resources.files("edgekd.report").joinpath("live.js").read_text(encoding="utf-8")
        head = [tag("script", script, nonce=nonce)]
        self._send(200, document(_now(self.server.run, head, policy)).encode(), "text/html; charset=utf-8")

    def _events(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        seen = self.server.version
        self.server.open += 1
        with suppress(OSError):  # the page was closed
            self.wfile.write(b": hello\n\n")
            while True:
                now, closing = self.server.next(seen), self.server.closing
                self.wfile.write(f"data: {now}\n\n".encode() if now != seen else b": still here\n\n")
                self.wfile.flush()
                if closing:
                    self.wfile.write(b"event: end\ndata: \n\n")
                    return
                seen = now

    def _send(self, status: int, body: bytes, kind: str) -> None:
        with suppress(OSError):  # the page was closed
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: progress is told elsewhere."""


def _now(run: RunFolder, head: list[Node], policy: str) -> Node:
    """The page of this moment; before the run has begun, a page that says so."""
    try:
        return page(Facts(run), head=head, policy=policy)
    except EdgekdError as error:
        told = tag("main", tag("h1", "Not begun yet"), tag("p", str(error)))
        meta = tag("meta", http_equiv="Content-Security-Policy", content=policy)
        icon = tag("link", rel="icon", href="data:,")
        return tag("html", tag("head", tag("meta", charset="utf-8"), meta, icon, head), tag("body", told), lang="en")


@contextmanager
def served(run: RunFolder, port: int = 0) -> Iterator[tuple[str, Callable[[], None]]]:
    """Serve a run's page on 127.0.0.1 for as long as the block lasts.

    Args:
        run: may not exist yet.
        port: to listen at; 0 takes any that is free.

    Yields:
        The address, and what to call when the run folder has changed: it is cheap, and may be called often.

    Raises:
        BadSetting: the port is in use, or may not be used.
    """
    try:
        server = _Server(run, port)
    except OSError as error:
        hint = "choose another --port, or leave it out"
        raise BadSetting(
            f"cannot listen at port {port}: {error.strerror or error}", where="--port", hint=hint
        ) from error
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", server.changed
    finally:
        server.close()
        server.shutdown()
        thread.join()
        server.server_close()
