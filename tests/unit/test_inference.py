"""Answers of ONNX Runtime, in batches of any size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgekd import inference
from edgekd.errors import BadData, CannotLoad

Make = Callable[..., Path]


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).random((count, 1, 8, 8), dtype=np.float32)


@pytest.mark.parametrize("count", [1, 3, 256, 257])
def test_batches_answer_as_single_images_do(make_classifier: Make, count: int) -> None:
    free, fixed = make_classifier("free.onnx"), make_classifier("fixed.onnx", dims=(4, 1, 8, 8))
    fed = images(count)
    single = np.concatenate([inference.logits(free, fed[i : i + 1]) for i in range(min(count, 5))])
    for path in (free, fixed):
        answers = inference.logits(path, fed)
        assert answers.shape == (count, 4)
        np.testing.assert_allclose(answers[: len(single)], single, rtol=1e-5, atol=1e-6)


def test_images_that_do_not_fit_are_refused(make_classifier: Make) -> None:
    with pytest.raises(BadData, match=r"shape \[1, 9, 8\] do not fit input 'image'; allowed: \[1, 8, 8\]"):
        inference.logits(make_classifier(), np.zeros((2, 1, 9, 8), np.float32))


def test_what_onnx_runtime_refuses_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"no model")
    with pytest.raises(CannotLoad, match="ONNX Runtime cannot load it") as raised:
        inference.open_session(tmp_path / "x.onnx")
    assert "\n" not in str(raised.value)


def test_agreement_is_the_share_of_equal_top_classes() -> None:
    first = np.array([[1, 0], [0, 1], [3, 2], [0, 5]], np.float32)
    second = np.array([[9, 0], [0, 1], [2, 3], [1, 2]], np.float32)
    assert inference.agreement(first, second) == 0.75


def test_large_inputs_come_in_small_parts() -> None:
    sizes = {28: [256, 44], 512: [64, 64, 64, 64, 44], 8192: [1] * 300}
    for side, expected in sizes.items():
        images = np.broadcast_to(np.float32(0), (300, 1, side, side))
        assert [len(part) for part in inference.in_parts(images)] == expected
    assert [len(part) for part in inference.in_parts(np.zeros((5, 1), np.float32), 2)] == [2, 2, 1]
    assert list(inference.in_parts(np.zeros((0, 3), np.float32))) == []
