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


def test_agreement_counts_images_of_classes_and_labels_of_images():
    first = np.array([[3, -1, 2], [-3, 1, 0.5]], np.float32)
    second = np.array([[1, 2, 3], [-1, 2, -1]], np.float32)
    assert agreement(first, second) == 0.5
    assert agreement(first, second, "multilabel") == 4 / 6
    assert agreement(first[:, :1], second[:, :1], "binary") == 1.0


@pytest.mark.parametrize("task", TASKS)
def test_certain_logits_give_their_choices_the_probability_asked_for(task):
    columns = 1 if task == "binary" else 3
    chosen = choices(np.random.default_rng(0).normal(size=(5, columns)).astype(np.float32), task)
    logits = KINDS[task].certain(chosen, columns, 0.9)
    assert logits.shape == (5, columns)
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(choices(logits, task), chosen)
    if task == "classes":
        likely = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(likely.max(axis=1), 0.9, rtol=1e-5)
    else:
        np.testing.assert_allclose(1 / (1 + np.exp(-np.abs(logits))), 0.9, rtol=1e-5)
