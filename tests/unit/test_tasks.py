"""Which task a model has, and what its logits choose."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.errors import BadModel, BadSetting
from edgekd.inference import agreement
from edgekd.tasks import KINDS, TASKS, choices, settled

RECOGNISED = [
    (4, "logits", None, ("classes", "default")),
    (4, "softmax", None, ("classes", "graph")),
    (4, "log_softmax", None, ("classes", "graph")),
    (4, "sigmoid", None, ("multilabel", "graph")),
    (1, "logits", None, ("binary", "graph")),
    (1, "sigmoid", None, ("binary", "graph")),
    (4, "logits", "multilabel", ("multilabel", "graph")),
    (4, "logits", "nonsense", ("classes", "default")),
    (4, "softmax", "multilabel", ("classes", "graph")),
]


@pytest.mark.parametrize(("columns", "ending", "noted", "expected"), RECOGNISED)
def test_a_task_is_recognised_where_the_graph_or_a_note_tells(columns, ending, noted, expected):
    assert settled(None, columns, ending, noted, "t") == expected


@pytest.mark.parametrize("ending", ["logits", "softmax", "log_softmax"])
def test_answers_of_pixels_are_segmentation_and_nothing_else(ending):
    assert settled(None, 2, ending, None, "t", grid=True) == ("segmentation", "graph")
    assert settled("segmentation", 2, ending, None, "t", grid=True) == ("segmentation", "flag")
    with pytest.raises(BadSetting, match=r"--task classes: t answers 2 columns per pixel.*; allowed: segmentation"):
        settled("classes", 2, ending, None, "t", grid=True)
    with pytest.raises(BadSetting, match=r"--task segmentation: t answers 2 columns.*; allowed: classes"):
        settled("segmentation", 2, ending, None, "t")


@pytest.mark.parametrize(
    ("columns", "ending", "said"),
    [
        (1, "softmax", "t: it answers 1 column per pixel behind a softmax, which tells nothing"),
        (3, "sigmoid", "t: it answers 3 columns per pixel that do not exclude each other; .* --task segmentation"),
    ],
)
def test_pixels_need_classes_that_exclude_each_other(columns, ending, said):
    with pytest.raises(BadModel, match=said):
        settled(None, columns, ending, None, "t", grid=True)


@pytest.mark.parametrize("ending", ["logits", "sigmoid"])
def test_one_column_per_pixel_is_a_mask_and_nothing_else(ending):
    assert settled(None, 1, ending, None, "t", grid=True) == ("mask", "graph")
    assert settled("mask", 1, ending, None, "t", grid=True) == ("mask", "flag")
    with pytest.raises(BadSetting, match=r"--task segmentation: t answers 1 column per pixel; allowed: mask"):
        settled("segmentation", 1, ending, None, "t", grid=True)
    with pytest.raises(BadSetting, match=r"--task mask: t answers 1 column; allowed: binary"):
        settled("mask", 1, ending, None, "t")


def test_the_largest_of_sigmoids_per_pixel_can_be_told_to_count():
    assert settled("segmentation", 3, "sigmoid", None, "t", grid=True) == ("segmentation", "flag")


def test_what_the_user_says_wins_where_it_fits():
    assert settled("multilabel", 4, "logits", None, "t") == ("multilabel", "flag")
    assert settled("classes", 4, "sigmoid", None, "t") == ("classes", "flag")
    assert settled("classes", 4, "logits", "multilabel", "t") == ("classes", "flag")


@pytest.mark.parametrize(
    ("told", "columns", "ending", "said"),
    [
        ("binary", 4, "logits", "--task binary: t answers 4 columns; allowed: classes, multilabel"),
        ("classes", 1, "sigmoid", "--task classes: t answers 1 column; allowed: binary"),
        ("multilabel", 1, "logits", "--task multilabel: t answers 1 column; allowed: binary"),
        ("multilabel", 4, "softmax", "--task multilabel: t answers 4 columns behind a softmax; allowed: classes"),
    ],
)
def test_what_the_user_says_must_fit(told, columns, ending, said):
    with pytest.raises(BadSetting) as raised:
        settled(told, columns, ending, None, "t")
    assert str(raised.value) == said


def test_a_softmax_over_one_column_tells_nothing():
    with pytest.raises(BadModel, match="t: it answers 1 column behind a softmax, which tells nothing"):
        settled(None, 1, "softmax", None, "t")


def test_choices_are_the_largest_class_or_the_labels_above_zero():
    logits = np.array([[3.0, -1.0, 2.0], [-3.0, 0.0, 0.5]], np.float32)
    np.testing.assert_array_equal(choices(logits, "classes"), [[0], [2]])
    np.testing.assert_array_equal(choices(logits, "multilabel"), [[1, 0, 1], [0, 0, 1]])
    np.testing.assert_array_equal(choices(logits[:, :1], "binary"), [[1], [0]])
    pixels = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    expected = [[int(np.argmax(image[:, y, x])) for y in range(4) for x in range(5)] for image in pixels]
    np.testing.assert_array_equal(choices(pixels, "segmentation"), expected)
    np.testing.assert_array_equal(choices(pixels[:, :1], "mask"), pixels[:, 0].reshape(2, 20) > 0)


def test_agreement_counts_images_of_classes_and_labels_of_images():
    first = np.array([[3, -1, 2], [-3, 1, 0.5]], np.float32)
    second = np.array([[1, 2, 3], [-1, 2, -1]], np.float32)
    assert agreement(first, second) == 0.5
    assert agreement(first, second, "multilabel") == 4 / 6
    assert agreement(first[:, :1], second[:, :1], "binary") == 1.0
    pixels = [logits.T.reshape(1, 3, 1, 2) for logits in (first, second)]
    assert agreement(*pixels, "segmentation") == 0.5


@pytest.mark.parametrize("task", TASKS)
def test_certain_logits_give_their_choices_the_probability_asked_for(task):
    columns, grid = 1 if task in ("binary", "mask") else 3, (2, 4) if KINDS[task].grid else ()
    chosen = choices(np.random.default_rng(0).normal(size=(5, columns, *grid)).astype(np.float32), task)
    logits = KINDS[task].certain(chosen, columns, 0.9).reshape(5, columns, *grid)
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(choices(logits, task), chosen)
    if KINDS[task].exclusive:
        likely = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(likely.max(axis=1), 0.9, rtol=1e-5)
    else:
        np.testing.assert_allclose(1 / (1 + np.exp(-np.abs(logits))), 0.9, rtol=1e-5)
