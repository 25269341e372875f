"""A teacher behind HTTP: what is believed, what is tried again, what is refused, and what is never told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("httpx")

from inference_server import CLASSES, Server, answering, dropped, saying, scores, serving, slow, status, truncated

from edgekd.config import Reach
from edgekd.errors import BadModel, BadSetting, CannotLoad, EdgekdError
from edgekd.teachers import endpoint
from edgekd.teachers.endpoint import EndpointSource
from edgekd.teachers.pixels import Stated

QUICK = {"patience": 1.0, "timeout": 5.0}


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "PAUSE", 0.005)
    monkeypatch.setattr(endpoint, "FIRST_PATIENCE", 0.2)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def images(count: int = 5) -> np.ndarray:
    return (np.random.default_rng(1).integers(0, 256, (count, 1, 12, 12)) / 255).astype(np.float32)


class Asked:
    """A source that was opened, and the samples it reported to have sent again."""

    def __init__(self, server: Server, stated: Stated | None = None, **reach: Any) -> None:
        self.source = EndpointSource(server.url, stated or Stated(), Reach(**QUICK | reach), {})
        self.again: list[int] = []

    def __call__(self, count: int = 5) -> np.ndarray:
        try:
            return self.source.ask(images(count), self.again.append)
        finally:
            self.source.close()


# ------------------------------------------------------------------------------------------------------ what it does


@pytest.mark.parametrize("binary", [True, False])
def test_logits_come_back_as_the_server_computed_them(server: Server, binary: bool) -> None:
    server.extensions, server.takes_binary = (["binary_tensor_data"], True) if binary else ([], False)
    asked = Asked(server)
    spec = asked.source.spec
    assert (spec.classes, spec.height, spec.layout, spec.ending, spec.name) == (4, 12, "NCHW", "logits", server.url)
    np.testing.assert_allclose(asked(), scores(images()), rtol=1e-5, atol=1e-5)
    assert set(server.wires) == {"binary" if binary else "json"}
    assert server.asked == 4 + 5
    assert (asked.source.probed, asked.again) == (4, [])


def test_binary_tensors_are_found_out_where_the_server_does_not_list_them(server: Server) -> None:
    server.extensions = []
    Asked(server)()
    assert server.wires == ["binary", "binary"]


def test_probabilities_come_back_as_centred_logits(server: Server) -> None:
    def softmax(given: np.ndarray) -> np.ndarray:
        exponents = np.exp(scores(given) - scores(given).max(axis=1, keepdims=True))
        return (exponents / exponents.sum(axis=1, keepdims=True)).astype(np.float32)

    server.answer = softmax
    asked = Asked(server)
    assert asked.source.spec.ending == "softmax"
    logits = scores(images())
    likely = softmax(images()) > 1e-5
    found = asked()
    assert np.abs(found.mean(axis=1)).max() < 1e-5
    gaps = (found - logits)[likely]
    for row in range(5):
        inside = (found - logits)[row][likely[row]]
        assert np.ptp(inside) < 1e-2, gaps


def test_labels_of_a_server_are_recognised_or_told(server: Server) -> None:
    server.answer = lambda given: 1 / (1 + np.exp(-scores(given)[:, :1] / 4))
    server.outputs[0]["shape"] = [-1, 1]
    asked = Asked(server)
    spec = asked.source.spec
    assert (spec.task, spec.classes, spec.ending, spec.sources["task"]) == ("binary", 1, "sigmoid", "graph")
    np.testing.assert_allclose(asked(), scores(images())[:, :1] / 4, rtol=1e-2, atol=1e-3)
    server.answer, server.outputs[0]["shape"] = scores, [-1, 4]
    told = Asked(server, Stated(task="multilabel")).source
    told.close()
    spec = told.spec
    assert (spec.task, spec.classes, spec.ending, spec.sources["task"]) == ("multilabel", 4, "logits", "flag")
    with pytest.raises(BadSetting, match=r"--task binary: .* answers 4 columns; allowed: classes, multilabel"):
        Asked(server, Stated(task="binary"))


@pytest.mark.parametrize("binary", [True, False])
def test_a_server_of_bytes_is_sent_bytes(server: Server, binary: bool) -> None:
    server.extensions, server.takes_binary = (["binary_tensor_data"], True) if binary else ([], False)
    server.input = {"name": "image", "datatype": "UINT8", "shape": [-1, 12, 12, 1]}
    server.answer = lambda given: scores(given / 255)
    asked = Asked(server)
    spec = asked.source.spec
    assert (spec.low, spec.high, spec.layout, spec.dtype) == (0, 255, "NHWC", "uint8")
    found = asked.source.ask(images() * 255 - np.float32(1e-4), asked.again.append)  # rounded, not cut off
    asked.source.close()
    assert set(server.wires) == {"binary" if binary else "json"}
    np.testing.assert_allclose(found, scores(images()), rtol=1e-4, atol=1e-4)
    with pytest.raises(BadSetting, match=r"--input-range: its input is uint8; allowed: 0,255"):
        Asked(server, Stated(input_range=(0, 1)))


def test_a_fixed_batch_is_filled_up_and_a_row_of_features_is_an_image(server: Server) -> None:
    server.input = {"name": "row", "datatype": "FP32", "shape": [3, 144]}
    rows = Asked(server)
    np.testing.assert_allclose(rows(2), scores(images(2)), rtol=1e-5, atol=1e-5)
    assert (rows.source.spec.layout, rows.source.spec.channels, rows.source.batch) == ("NF", 144, 3)
    asked = Asked(server, Stated(input_shape=(1, 12, 12)))
    assert asked.source.batch == 3
    np.testing.assert_allclose(asked(2), scores(images(2)), rtol=1e-5, atol=1e-5)


def test_a_run_that_goes_on_asks_for_nothing_it_knows(server: Server) -> None:
    source = EndpointSource(server.url, Stated(), Reach(**QUICK), {"classes": 4, "ending": "softmax"})
    source.close()
    assert (server.requests, source.probed, source.spec.ending, source.spec.classes) == (0, 0, "softmax", 4)


def test_another_version_is_another_teacher(server: Server) -> None:
    first = Asked(server).source
    server.version = "2"
    second = Asked(server).source
    first.close(), second.close()
    assert first.spec.sha256 != second.spec.sha256


# --------------------------------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("faults", "again"),
    [
        ([status(503), status(429), status(503)], []),
        ([status(503, **{"Retry-After": "0"})], []),
        ([status(502), status(504)], [5, 5]),
        ([truncated], [5]),
        ([dropped, dropped], [5, 5]),
    ],
    ids=["busy", "busy, and says for how long", "lost behind a gateway", "truncated", "dropped"],
)
def test_what_may_pass_is_tried_again_and_counted_if_it_may_have_been_paid(server, faults, again) -> None:
    asked = Asked(server)
    server.faults = faults
    np.testing.assert_allclose(asked(), scores(images()), rtol=1e-5, atol=1e-5)
    assert asked.again == again


def test_a_server_that_asks_to_wait_is_waited_for(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(endpoint.time, "sleep", pauses.append)
    asked = Asked(server, patience=60.0)
    server.faults = [status(429, **{"Retry-After": "7"})]
    asked()
    assert pauses == [7.0]


def test_a_slow_server_is_given_up_after_the_timeout(server: Server) -> None:
    asked = Asked(server, timeout=0.2, patience=0.0)
    server.faults = [slow(1.0)]
    with pytest.raises(EdgekdError, match=r"no answer: the connection broke \(.*timed out.*\), tried 1 times"):
        asked()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (status(500), r'HTTP 500: \{"error": "on purpose"\}'),
        (status(503), r"no answer: HTTP 503, tried \d+ times; the run can be resumed"),
        (status(429, **{"Retry-After": "3600"}), r"tried 1 times, and it asks to wait 3600 s"),
        (status(302, Location="http://127.0.0.1:9/"), "the server sends elsewhere"),
        (answering(lambda s: s * np.nan), "its answers to 5 of 5 images are not finite"),
        (answering(lambda s: s[:, :3]), r"it answers float32 of shape \[5, 3\] to 5 images; allowed: .*\[5, 4\]"),
        (answering(lambda s: s[:3]), r"of shape \[3, 4\] to 5 images"),
        (saying(b'{"outputs": []}'), "an answer without the output 'logits'"),
        (saying(b'{"outputs": [{"name": "logits", "shape": [5, 4], "datatype": "FP32", "data": [1]}]}'), "damaged"),
        (saying(b'{"outputs": [{"name": "logits", "shape": [-1], "datatype": "BYTES", "data": []}]}'), "damaged"),
        (saying(b"<html>"), "a damaged answer"),
        (saying(b"[1]"), "a damaged answer"),
    ],
    ids=[
        *("500", "always busy", "busy for an hour", "redirect", "NaN", "classes", "count"),
        *("no output", "data", "datatype", "no JSON", "no object"),
    ],
)
def test_an_answer_that_cannot_be_used_is_one_line(server: Server, fault, said: str) -> None:
    asked = Asked(server, patience=0.3)
    server.faults = [fault] * 1000
    with pytest.raises(EdgekdError, match=said) as raised:
        asked()
    assert raised.value.exit_code == (2 if "elsewhere" in said else 4)
    assert "\n" not in str(raised.value)


def test_an_endless_answer_is_cut_off(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(server)
    monkeypatch.setattr(endpoint, "ANSWER_BYTES", 2**20)
    server.faults = [saying(b" " * (2**20 + 1))]
    with pytest.raises(EdgekdError, match="an answer of more than 1 MiB"):
        asked()


def test_probabilities_that_stop_being_some_are_refused(server: Server) -> None:
    server.answer = lambda given: np.full((len(given), CLASSES), 0.25, np.float32)
    asked = Asked(server)
    server.answer = scores
    with pytest.raises(EdgekdError, match="numbers that are no probabilities, which it did before"):
        asked()


# -------------------------------------------------------------------------------------------------- what is no teacher


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        ({"ready": False}, CannotLoad, "the model is not ready"),
        ({"token": "x"}, BadModel, r"the server refuses access \(HTTP 401\); name the variable"),
        (
            {"input": {"name": "i", "datatype": "BYTES", "shape": [-1, 1]}},
            BadModel,
            "input 'i' is BYTES; allowed: FP32",
        ),
        ({"outputs": [{"name": "l", "datatype": "INT64", "shape": [-1]}]}, BadModel, "its outputs are l INT64"),
        ({"outputs": [{"name": "l", "datatype": "FP32", "shape": [-1, 4, 4]}]}, BadModel, "'l' has 3 axes"),
        ({"outputs": [{"name": "l"}]}, BadModel, "no sound list of outputs"),
        ({"input": {"name": "i", "datatype": "FP32", "shape": [-1, 3, -1, -1]}}, BadModel, "leaves the height free"),
        ({"answer": lambda x: scores(x)[:, :1]}, EdgekdError, r"it answers float32 of shape \[4, 1\]"),
    ],
    ids=["not ready", "401", "input", "labels", "map", "damaged", "free", "one class"],
)
def test_what_is_no_teacher_is_refused_in_one_line(server: Server, change, kind, said: str) -> None:
    for name, value in change.items():
        setattr(server, name, value)
    with pytest.raises(kind, match=said) as raised:
        Asked(server)
    assert "\n" not in str(raised.value)


def test_no_such_model_and_no_such_server(server: Server) -> None:
    with pytest.raises(BadModel, match=r"no such model \(HTTP 404\)"):
        EndpointSource(server.url + "s", Stated(), Reach(**QUICK), {})
    with pytest.raises(
        CannotLoad, match=r"http://127\.0\.0\.1:9/v2/models/m: cannot be reached: no connection"
    ) as raised:
        EndpointSource("http://127.0.0.1:9/v2/models/m", Stated(), Reach(**QUICK), {})
    assert raised.value.exit_code == 3


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://host/v2/models/m", r"unknown scheme ftp://; allowed: http://"),
        ("http://host/models/m", r"http://host/models/m: not the URL of a model; allowed: http\(s\)://HOST"),
        ("http://host:99999/v2/models/m", "not the URL of a model"),
        ("http://me:hunter2@host/v2/models/m", r"http://host/v2/models/m: a URL with a user"),
        ("https://host/v2/models/m?key=hunter2", r"https://host/v2/models/m: a URL with a user, a query"),
    ],
)
def test_a_url_that_is_none_of_a_model_is_refused_without_repeating_secrets(url: str, said: str) -> None:
    with pytest.raises(BadSetting, match=said) as raised:
        EndpointSource(url, Stated(), Reach(), {})
    assert "hunter2" not in str(raised.value)


# -------------------------------------------------------------------------------------------------------- credentials


def test_secrets_come_from_the_environment_and_go_into_headers(server: Server, monkeypatch) -> None:
    server.token = "s3cret-token"
    monkeypatch.setenv("EDGE_TOKEN", "s3cret-token")
    monkeypatch.setenv("EDGE_KEY", "k3y")
    asked = Asked(server, token_env="EDGE_TOKEN", headers={"X-Api-Key": "EDGE_KEY"})
    asked()
    assert server.seen["Authorization"] == "Bearer s3cret-token"
    assert server.seen["X-Api-Key"] == "k3y"
    assert "s3cret" not in repr(asked.source.spec)


def test_a_server_that_repeats_a_secret_does_not_get_it_shown(server: Server, monkeypatch) -> None:
    monkeypatch.setenv("EDGE_TOKEN", "s3cret-token")
    asked = Asked(server, token_env="EDGE_TOKEN")
    server.faults = [lambda handler, _: handler.json(500, {"got": handler.headers["Authorization"]}) is None]
    with pytest.raises(EdgekdError, match=r'HTTP 500: \{"got": "Bearer \*\*\*"\}'):
        asked()


@pytest.mark.parametrize(
    ("reach", "value", "said"),
    [
        ({"token_env": "EDGE_NONE"}, "", "--token-env: the environment variable EDGE_NONE is not set"),
        ({"headers": {"X-Key": "EDGE_NONE"}}, "", "--header: the environment variable EDGE_NONE is not set"),
        ({"headers": {"X Key": "EDGE_NONE"}}, "v", "X Key from EDGE_NONE is no HTTP header"),
        ({"token_env": "EDGE_NONE"}, "two\nlines", "Authorization from EDGE_NONE is no HTTP header"),
    ],
)
def test_a_secret_that_is_not_there_is_told_before_anything_is_sent(server, monkeypatch, reach, value, said) -> None:
    monkeypatch.setenv("EDGE_NONE", value)
    with pytest.raises(BadSetting, match=said):
        Asked(server, **reach)
    assert server.seen == {}
