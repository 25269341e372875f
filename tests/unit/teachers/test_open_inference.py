"""The wire format: what was encoded is decoded, and whatever else comes is an error that edgekd raises on purpose."""

from __future__ import annotations

import json
import random
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from edgekd.errors import EdgekdError
from edgekd.teachers.open_inference import HEADER, Tensor, read_metadata, request, scores

IMAGE = Tensor("image", "FP32", (None, 1, 2, 2))
METADATA = {
    "name": "m",
    "versions": ["1"],
    "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 2, 2]}],
    "outputs": [
        {"name": "o", "datatype": "FP32", "shape": [-1, 3]},
        {"name": "label", "datatype": "INT64", "shape": [-1]},
    ],
}


def test_a_request_is_what_the_specification_says() -> None:
    images = np.arange(8, dtype=np.float32).reshape(2, 1, 2, 2)
    headers, body = request(IMAGE, "o", images, 7, binary=False)
    assert headers == {"Content-Type": "application/json"}
    entry = {"name": "image", "shape": [2, 1, 2, 2], "datatype": "FP32", "data": [float(i) for i in range(8)]}
    assert json.loads(body) == {"id": "7", "inputs": [entry], "outputs": [{"name": "o"}]}
    headers, body = request(IMAGE, "o", images, 8, binary=True)
    length = int(headers[HEADER])
    head = json.loads(body[:length])
    assert head["inputs"][0]["parameters"] == {"binary_data_size": 32}
    assert head["outputs"] == [{"name": "o", "parameters": {"binary_data": True}}]
    np.testing.assert_array_equal(np.frombuffer(body[length:], "<f4"), np.arange(8))


@pytest.mark.parametrize("kind", ["FP16", "FP32", "FP64"])
def test_answers_are_read_from_behind_other_outputs(kind: str) -> None:
    values = np.arange(6).reshape(2, 3).astype({"FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}[kind])
    outputs = [
        {"name": "label", "datatype": "INT64", "shape": [2], "parameters": {"binary_data_size": 16}},
        {"name": "inline", "datatype": "FP32", "shape": [1], "data": [1]},
        {"name": "o", "datatype": kind, "shape": [2, 3], "parameters": {"binary_data_size": values.nbytes}},
    ]
    head = json.dumps({"outputs": outputs}).encode()
    found = scores(head + bytes(16) + values.tobytes(), str(len(head)), "o", "t")
    np.testing.assert_array_equal(found, values)
    assert found.dtype == np.float32


def test_nested_data_is_read_too() -> None:
    body = json.dumps({"outputs": [{"name": "o", "datatype": "FP32", "shape": [2, 2], "data": [[1, 2], [3, 4]]}]})
    np.testing.assert_array_equal(scores(body.encode(), None, "o", "t"), [[1, 2], [3, 4]])


def test_metadata_finds_the_scores_beside_the_labels() -> None:
    model = read_metadata(METADATA, "t")
    assert (model.image.dims, model.scores.name) == ((None, 1, 2, 2), "o")


HOSTILE: list[Any] = [None, -1, 2**70, 1e400, "x", [], {}, [[]], True, "9" * 5000, [None], {"shape": -3}]


def mutated(record: Any, chance: random.Random) -> Any:
    """The record with one value somewhere replaced by something that has no business there."""
    if isinstance(record, dict) and record and chance.random() < 0.9:
        key = chance.choice(list(record))
        return {**record, key: mutated(record[key], chance)}
    if isinstance(record, list) and record and chance.random() < 0.9:
        place = chance.randrange(len(record))
        return [*record[:place], mutated(record[place], chance), *record[place + 1 :]]
    return chance.choice(HOSTILE)


def test_no_answer_however_wrong_is_a_traceback() -> None:
    chance = random.Random(0)
    values = np.arange(6, dtype="<f4").reshape(2, 3)
    binary = {"name": "o", "datatype": "FP32", "shape": [2, 3], "parameters": {"binary_data_size": 24}}
    inline = {"name": "o", "datatype": "FP32", "shape": [2, 3], "data": values.ravel().tolist()}
    for _ in range(3000):
        answer = mutated({"outputs": [chance.choice((binary, inline))]}, chance)
        head = json.dumps(answer).encode()
        body = bytearray(head + values.tobytes())
        for _ in range(chance.randrange(3)):
            body[chance.randrange(len(body))] = chance.randrange(256)
        header = chance.choice((str(len(head)), str(len(head)), None, "-1", "x", "9" * 30))
        with suppress(EdgekdError):
            assert scores(bytes(body), header, "o", "t").dtype == np.float32
        with suppress(EdgekdError):
            assert read_metadata(mutated(METADATA, chance), "t").image.name


def test_nesting_without_end_is_an_error_too() -> None:
    with pytest.raises(EdgekdError, match="a damaged answer"):
        scores(b"[" * 200_000, None, "o", "t")
