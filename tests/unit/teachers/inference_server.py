"""A small server of the Open Inference Protocol v2, with its binary extension, that can be told to misbehave.

The real ones are tested against in `test_real_servers.py`; this one breaks on command, and counts what it is asked.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from edgekd.teachers.open_inference import BINARY, HEADER

CLASSES, SIDE = 4, 12
NAME = "picker"


def scores(images: np.ndarray) -> np.ndarray:
    """Logits `[N, 4]` of `[N, 1, 12, 12]`: linear, always the same."""
    weights = np.random.default_rng(0).normal(size=(SIDE * SIDE, CLASSES))
    return ((images.reshape(len(images), -1) - 0.5) @ weights).astype(np.float32)


Fault = Callable[["Handler", np.ndarray], bool]
"""Misbehaves in its own way and returns True, or returns False to have the request answered."""


class Server(ThreadingHTTPServer):
    """Attributes: `asked`, samples it worked on; `requests`, inference requests it saw; `faults`, one per request to
    come; `seen`, the headers of the last request; `wires`, "binary" or "json" of every answer."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked, self.requests, self.faults, self.wires = 0, 0, list[Fault](), list[str]()
        self.seen: dict[str, str] = {}
        self.token, self.ready, self.takes_binary, self.extensions = "", True, True, [BINARY]
        self.answer: Callable[[np.ndarray], np.ndarray] = scores
        self.input: dict[str, Any] = {"name": "image", "datatype": "FP32", "shape": [-1, 1, SIDE, SIDE]}
        self.outputs: list[dict[str, Any]] = [{"name": "logits", "datatype": "FP32", "shape": [-1, CLASSES]}]
        self.version = "1"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v2/models/{NAME}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no news."""


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def reply(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def json(self, status: int, record: object) -> None:
        self.reply(status, json.dumps(record).encode())

    def do_GET(self) -> None:
        server, self.server.seen = self.server, dict(self.headers)
        if server.token and self.headers.get("Authorization") != f"Bearer {server.token}":
            return self.json(401, {"error": f"not {self.headers.get('Authorization')}"})
        if self.path == "/v2":
            return self.json(200, {"name": "test", "version": "1", "extensions": server.extensions})
        if self.path == f"/v2/models/{NAME}/ready":
            return self.json(200 if server.ready else 503, {"name": NAME, "ready": server.ready})
        if self.path == f"/v2/models/{NAME}":
            about = {"name": NAME, "versions": [server.version], "platform": "test"}
            return self.json(200, about | {"inputs": [server.input], "outputs": server.outputs})
        return self.json(404, {"error": f"no model at {self.path}"})

    def do_POST(self) -> None:
        server, self.server.seen = self.server, dict(self.headers)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server.requests += 1
        if HEADER in self.headers and not server.takes_binary:
            return self.json(400, {"error": "this is no JSON"})
        images, binary = self.images(body)
        if server.faults and server.faults.pop(0)(self, images):
            return None
        server.asked += len(images)
        return self.infer(server.answer(images), binary)

    def images(self, body: bytes) -> tuple[np.ndarray, bool]:
        length = int(self.headers.get(HEADER, len(body)))
        entry = json.loads(body[:length])["inputs"][0]
        kind = {"FP32": "<f4", "FP16": "<f2", "UINT8": "|u1"}[entry["datatype"]]
        flat = np.array(entry["data"], kind) if "data" in entry else np.frombuffer(body[length:], kind)
        return flat.reshape(entry["shape"]).astype(np.float64), "data" not in entry

    def infer(self, answer: np.ndarray, binary: bool) -> None:
        self.server.wires.append("binary" if binary else "json")
        entry: dict[str, Any] = {"name": "logits", "shape": list(answer.shape), "datatype": "FP32"}
        if not binary:
            return self.json(200, {"model_name": NAME, "outputs": [entry | {"data": answer.ravel().tolist()}]})
        raw = answer.astype("<f4").tobytes()
        head = json.dumps({"outputs": [entry | {"parameters": {"binary_data_size": len(raw)}}]}).encode()
        return self.reply(200, head + raw, **{HEADER: str(len(head))})


@contextmanager
def serving() -> Iterator[Server]:
    """A server on loopback, until the end of the block."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


# ------------------------------------------------------------------------------------------------------------ faults


def status(code: int, **headers: str) -> Fault:
    def fault(handler: Handler, _: np.ndarray) -> bool:
        handler.reply(code, b'{"error": "on purpose"}', **headers)
        return True

    return fault


def truncated(handler: Handler, images: np.ndarray) -> bool:
    """Worked on, and cut off on the way back."""
    handler.server.asked += len(images)
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"outputs": [')
    handler.close_connection = True
    return True


def dropped(handler: Handler, _: np.ndarray) -> bool:
    handler.close_connection = True
    return True


def slow(seconds: float) -> Fault:
    def fault(handler: Handler, _: np.ndarray) -> bool:
        time.sleep(seconds)
        return False

    return fault


def answering(change: Callable[[np.ndarray], np.ndarray]) -> Fault:
    """An answer of another kind, well-formed."""

    def fault(handler: Handler, images: np.ndarray) -> bool:
        handler.infer(change(scores(images)), HEADER in handler.headers)
        return True

    return fault


def saying(body: bytes) -> Fault:
    def fault(handler: Handler, _: np.ndarray) -> bool:
        handler.reply(200, body)
        return True

    return fault
