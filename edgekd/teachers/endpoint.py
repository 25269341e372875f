"""A teacher behind HTTP: a model of any server that speaks the Open Inference Protocol v2.

Answers are checked before they are believed. A server that is busy or away is tried again, with growing pauses, until
patience ends. Secrets come from the environment, go into headers, and are neither kept nor told.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import SplitResult, urlsplit, urlunsplit

import httpx
import numpy as np

from edgekd import __version__, inference
from edgekd.config import Reach
from edgekd.errors import BadModel, BadSetting, CannotLoad, EdgekdError, Refused
from edgekd.teachers import open_inference
from edgekd.teachers.pixels import Dtype, Stated, image_axes
from edgekd.teachers.source import Again, Floats, Sizes, as_logits, checked, outside, tried

REQUEST_BYTES = 8 * 2**20
"""Images in one request are as many as fit, as float32, but no more than `MOST`."""
MOST = 256
ANSWER_BYTES = 64 * 2**20
FIRST_PATIENCE = 2.0
"""Seconds a server may take to be there at the start: a mistyped host is to be told at once."""
PAUSE, LONGEST_PAUSE = 0.25, 15.0
BUSY = (429, 503)
"""The server says that it did not work on the request."""
_QUOTA, _RESUME = "HTTP 429", "the run can be resumed"
LOST = (502, 504)
"""A server in between says that the answer was lost."""
_PATH = re.compile(r"^((?:/[^/]+)*)/v2/models/([^/]+)(/versions/[^/]+)?/?$")


class EndpointSource:
    """A model at `http(s)://HOST[:PORT][/PREFIX]/v2/models/NAME[/versions/VERSION]`.

    Args:
        url: without user, password or query: they would be a secret in the open.
        stated: what the user says about the images.
        reach: credentials, timeout, patience, batch.
        known: the record of an earlier start, if any: then the model is not asked what it answers.

    Raises:
        BadSetting: the URL is none of a model, a variable is not set, or what was stated does not fit.
        BadModel: the server refuses, has no such model, or it is no image classifier.
        CannotLoad: the server cannot be reached, or the model is not ready.
    """

    def __init__(self, url: str, stated: Stated, reach: Reach, known: Mapping[str, Any]) -> None:
        self._url, root = checked_url(url)
        headers = _headers(reach)
        self._secrets = [value.removeprefix("Bearer ") for value in headers.values()]
        self._patience, self._number = reach.patience, 0
        timeout = httpx.Timeout(reach.timeout, connect=min(10.0, reach.timeout))
        agent = {"User-Agent": f"edgekd/{__version__}"}
        self._client = httpx.Client(timeout=timeout, headers=agent | headers, follow_redirects=False)
        try:
            self._learn(root, stated, reach, known)
        except BaseException:
            self.close()
            raise

    def _learn(self, root: str, stated: Stated, reach: Reach, known: Mapping[str, Any]) -> None:
        self._get(f"{self._url}/ready", "the model is not ready")
        model = open_inference.read_metadata(self._get(self._url), self._url)
        about = self._get(f"{root}/v2", optional=True)
        listed = about.get("extensions") if isinstance(about, dict) else None
        # None: not known yet. Some servers take binary tensors and do not say so; the first request will tell.
        self._binary: bool | None = True if open_inference.BINARY in (listed or []) else None
        self._model = model
        dims, self._row = image_axes(model.image.name, model.image.dims, stated, self._url)
        digest = hashlib.sha256(f"{self._url}\0{model.told}".encode()).hexdigest()
        names = model.image.name, dims, model.scores.name
        dtype: Dtype = "uint8" if model.image.datatype == "UINT8" else "float32"
        self.spec = outside(self._url, digest, *names, stated, known, self._url, dtype)
        size = 4 * self.spec.channels * self.spec.height * self.spec.width
        self.batch = self.spec.batch or min(reach.batch or MOST, max(1, REQUEST_BYTES // size))
        self.probed = 0
        if not known:
            declared = dataclasses.replace(self.spec, **_declared(model.scores.dims, self.spec.layout))
            ask = lambda images, sizes: self._scores(images, sizes, _never)  # noqa: E731
            self.spec, self.probed = tried(declared, ask, stated.task)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def ask(self, images: Floats, again: Again) -> Floats:
        """Logits of images `[N, C, H, W]`.

        Raises:
            Refused: too many requests (HTTP 429) until patience ended, or none without payment (402).
            EdgekdError: no answer within patience, or one that cannot be used.
        """
        return as_logits(self._scores(images, self.spec.answer_shape, again), self.spec.ending, self.spec.name)

    def _scores(self, images: Floats, sizes: Sizes | None, again: Again) -> Floats:
        count, batch = len(images), self.spec.batch
        if batch is not None and count > batch:
            parts = [self._scores(images[i : i + batch], sizes, again) for i in range(0, count, batch)]
            return np.concatenate(parts)
        if batch is not None:
            images = inference.padded(images, batch)
        fed = inference.fed(images, self.spec.layout)
        fed = fed.reshape(len(fed), -1) if self._row else fed
        sent = inference.typed(fed, self.spec.dtype)
        answer = self._infer(sent, lambda: again(count))
        return checked(answer, len(fed), sizes, self._url, self.spec.layout)[:count]

    # ------------------------------------------------------------------------------------------- requests

    def _infer(self, fed: inference.Fed, repeated: Callable[[], None]) -> Floats:
        """The scores of one request; binary first where it is not known whether the server takes it."""
        name = self._model.scores.name
        self._number += 1
        for binary in (True, False) if self._binary is None else (self._binary,):
            headers, body = open_inference.request(self._model.image, name, fed, self._number, binary)
            if self._binary is None:
                headers["Connection"] = "close"  # a server that chokes on the trial may drop it without a word
            answer = self._send("POST", f"{self._url}/infer", repeated, self._patience, headers, body)
            if answer.status_code != httpx.codes.OK and binary and self._binary is None:
                continue  # refused without being worked on: so this server reads JSON only
            self._accept(answer)
            self._binary = binary
            return open_inference.scores(answer.content, answer.headers.get(open_inference.HEADER), name, self._url)
        raise AssertionError("JSON is always tried")

    def _get(self, url: str, unready: str = "", *, optional: bool = False) -> Any:
        answer = self._send("GET", url, lambda: None, min(FIRST_PATIENCE, self._patience), {}, b"")
        if optional and answer.status_code != httpx.codes.OK:
            return None
        if unready and (answer.status_code in (400, *BUSY) or _says_not_ready(answer)):
            raise CannotLoad(unready, where=self._url, hint="try again when the server has loaded it")
        self._accept(answer)
        try:
            return json.loads(answer.content) if answer.content else None
        except (ValueError, RecursionError):
            if optional or unready:
                return None
            raise BadModel("it answers no JSON: not a server of the Open Inference Protocol", where=url) from None

    def _send(
        self, method: str, url: str, repeated: Callable[[], None], patience: float, headers: dict[str, str], body: bytes
    ) -> httpx.Response:
        """An answer, whatever its status but those that say "later"; tried again until patience ends.

        Raises:
            CannotLoad: a GET found no server. EdgekdError: a POST found none any more.
        """
        until, tries = time.monotonic() + patience, 0
        while True:
            tries += 1
            failure, wait, lost = "", 0.0, False
            try:
                answer = self._received(method, url, headers, body)
                if answer.status_code not in (*BUSY, *LOST):
                    return answer
                failure, wait = f"HTTP {answer.status_code}", _retry_after(answer)
                lost = answer.status_code in LOST
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = f"no connection ({_reason(error)})"
            except httpx.RequestError as error:
                failure, lost = f"the connection broke ({_reason(error)})", True
            pause = max(wait, random.SystemRandom().uniform(0, min(LONGEST_PAUSE, PAUSE * 2**tries)))
            if time.monotonic() + pause > until:
                self._give_up(method, failure, tries, wait)
                return answer
            time.sleep(pause)
            if lost:
                repeated()

    def _give_up(self, method: str, failure: str, tries: int, wait: float) -> None:
        told = f"{failure}, tried {tries} times"
        asked = f", and it asks to wait {wait:.0f} s" if wait else ""
        if method == "GET":
            if failure.startswith("HTTP"):
                return  # it is there, and its status says more
            raise CannotLoad(f"cannot be reached: {told}", where=self._url)
        kind = Refused if failure == _QUOTA else EdgekdError
        raise kind(f"no answer: {told}{asked}", where=self._url, hint=f"{_RESUME}; --patience SECONDS waits longer")

    def _received(self, method: str, url: str, headers: dict[str, str], body: bytes) -> httpx.Response:
        with self._client.stream(method, url, headers=headers, content=body) as answer:
            content = bytearray()
            for chunk in answer.iter_bytes():
                content += chunk
                if len(content) > ANSWER_BYTES:
                    raise EdgekdError(f"an answer of more than {ANSWER_BYTES // 2**20} MiB", where=self._url)
        kept = {name: value for name, value in answer.headers.items() if name != "content-encoding"}
        return httpx.Response(answer.status_code, headers=kept, content=bytes(content))

    def _accept(self, answer: httpx.Response) -> None:
        """Raise what a status other than 200 means."""
        status = answer.status_code
        if status == httpx.codes.OK:
            return
        said = self._without_secrets(answer.content)
        if status in (401, 403):
            hint = "name the variable that holds the token with --token-env"
            raise BadModel(f"the server refuses access (HTTP {status})", where=self._url, hint=hint)
        if status == httpx.codes.NOT_FOUND:
            raise BadModel(f"no such model (HTTP 404){said}", where=self._url)
        if status == httpx.codes.PAYMENT_REQUIRED:
            raise Refused(f"the quota is used up (HTTP {status}){said}", where=self._url, hint=_RESUME)
        if answer.is_redirect:
            raise BadModel(f"HTTP {status}: the server sends elsewhere", where=self._url, hint="say where to, directly")
        raise EdgekdError(f"HTTP {status}{said}", where=self._url)

    def _without_secrets(self, content: bytes) -> str:
        """The beginning of what a server says, fit to be shown."""
        text = " ".join(content[:2000].decode("utf-8", "replace").split())
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return f": {text[:200]}" if text else ""


def _declared(dims: Sequence[int | None], layout: str) -> dict[str, Any]:
    """The classes, and the grid if there is one, of an output; nothing where the server leaves a size free."""
    told = [size for size in dims[1:] if size is not None]
    if len(told) < len(dims) - 1:
        return {}
    classes, *grid = inference.by_class_shape(told, layout)
    return {"classes": classes, "grid": tuple(grid) or None}


def checked_url(url: str) -> tuple[str, str]:
    """A model's URL without what does not belong, and its server's.

    Raises:
        BadSetting: another scheme or path, or a secret in it. The message does not repeat what might be one.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        known = "http://, https://, python:, or an ONNX file"
        raise BadSetting(f"unknown scheme {parts.scheme}://", where=parts.scheme, allowed=known)
    safe = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    if "@" in parts.netloc or parts.query or parts.fragment:
        hint = "name a variable that holds the secret with --token-env or --header"
        raise BadSetting(
            "a URL with a user, a query or a fragment would be kept in the run's record", where=safe, hint=hint
        )
    found = _PATH.match(parts.path)
    if not found or not parts.hostname or not _is_port(parts):
        allowed = "http(s)://HOST[:PORT]/v2/models/NAME[/versions/VERSION]"
        raise BadSetting("not the URL of a model", where=safe, allowed=allowed)
    root = f"{parts.scheme}://{parts.netloc}{found[1]}"
    return f"{root}/v2/models/{found[2]}{found[3] or ''}", root


def _is_port(parts: SplitResult) -> bool:
    try:
        return parts.port != 0
    except ValueError:
        return False


def _headers(reach: Reach) -> dict[str, str]:
    named = {name: ("--header", variable, "") for name, variable in reach.headers.items()}
    if reach.token_env:
        named["Authorization"] = ("--token-env", reach.token_env, "Bearer ")
    headers = {}
    for name, (flag, variable, prefix) in named.items():
        value = os.environ.get(variable, "").strip()
        if not value:
            raise BadSetting(f"the environment variable {variable} is not set", where=flag)
        if not value.isascii() or not value.isprintable() or not re.fullmatch(r"[A-Za-z0-9-]+", name):
            raise BadSetting(f"{name} from {variable} is no HTTP header", where=flag)
        headers[name] = prefix + value
    return headers


def _says_not_ready(answer: httpx.Response) -> bool:
    """Some servers answer 200 and say `"ready": false`."""
    try:
        told = json.loads(answer.content)
    except (ValueError, RecursionError):
        return False
    return isinstance(told, dict) and told.get("ready") is False


def _retry_after(answer: httpx.Response) -> float:
    """Seconds the server asks to wait: `Retry-After` as a number or a date (RFC 9110, 10.2.3); 0 without one."""
    told = answer.headers.get("Retry-After", "").strip()
    if told.isdigit():
        return float(told)
    try:
        return max(0.0, (parsedate_to_datetime(told) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return 0.0


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _never(_: int) -> None:
    """Before there is a ledger nothing can be entered."""
