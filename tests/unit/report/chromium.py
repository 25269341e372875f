"""A headless Chromium at the end of a pipe: what a page logs, what it asks for, what it looks like."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = next((name for name in ("chromium", "chromium-browser", "google-chrome") if shutil.which(name)), None)
_QUIET = ("--headless", "--no-sandbox", "--no-first-run", "--disable-gpu", "--disable-background-networking")


class Browser:
    """Speaks the DevTools protocol: JSON messages, each ended by a zero byte."""

    def __init__(self, reading: int, writing: int) -> None:
        self.reading, self.writing = os.fdopen(reading, "rb", buffering=0), os.fdopen(writing, "wb", buffering=0)
        self.buffer, self.number, self.events = b"", 0, list[dict[str, Any]]()
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Log", "Runtime", "Network"):
            self.ask(f"{domain}.enable")

    session: str | None = None

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.writing.write(json.dumps(message).encode() + b"\0")
        while True:
            told = self._next()
            if told.get("id") == self.number:
                assert "error" not in told, told["error"]
                return dict(told["result"])
            self.events.append(told)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            part = self.reading.read(65536)
            assert part, "Chromium has gone away"
            self.buffer += part
        message, _, self.buffer = self.buffer.partition(b"\0")
        return dict(json.loads(message))

    def wait_for(self, method: str) -> dict[str, Any]:
        while True:
            for event in self.events:
                if event["method"] == method:
                    self.events.remove(event)
                    return event
            self.events.append(self._next())

    def look(self, url: str, *, width: int = 1000, dark: bool = False) -> None:
        """Open a page on a screen of a width, and wait until it has loaded."""
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.ask("Emulation.setEmulatedMedia", features=features)
        mobile = width < 500
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=mobile)
        self.events.clear()
        self.ask("Page.navigate", url=url)
        self.wait_for("Page.loadEventFired")

    def value(self, expression: str) -> Any:
        """What a line of JavaScript gives; a promise is waited for."""
        told = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def said(self) -> list[str]:
        """Errors and warnings of the page so far."""
        told = [e["params"] for e in self.events if e["method"] in ("Log.entryAdded", "Runtime.consoleAPICalled")]
        thrown = [
            e["params"]["exceptionDetails"]["text"] for e in self.events if e["method"] == "Runtime.exceptionThrown"
        ]
        return [json.dumps(one) for one in told] + thrown

    def requested(self) -> list[str]:
        """Addresses that the page asked for, but for what it holds in itself."""
        sent = [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [url for url in sent if not url.startswith("data:")]

    def screenshot(self, path: Path) -> None:
        shot = self.ask("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser with a profile of its own, ended with the block."""
    assert PROGRAM
    to_browser, from_browser = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # The protocol's pipe is file descriptors 3 and 4 of the browser.
        wiring = f"exec {PROGRAM} {' '.join(_QUIET)} --user-data-dir={profile} --remote-debugging-pipe"
        wiring += f" 3<&{to_browser[0]} 4>&{from_browser[1]}"
        ends = (to_browser[0], from_browser[1])
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(["bash", "-c", wiring], pass_fds=ends, stdin=quiet, stdout=quiet, stderr=quiet)
        for end in ends:
            os.close(end)
        found = None
        try:
            found = Browser(from_browser[0], to_browser[1])
            yield found
        finally:
            process.terminate()
            process.wait(20)
            if found:
                found.reading.close()
                found.writing.close()
