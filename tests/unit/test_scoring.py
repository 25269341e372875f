"""Shares, their interval and intersection over union, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.scoring import Tally, effective, wilson

LABELS = np.array([[0, 0, 0, 1], [1, 1, 2, 255]])
FOUND = np.array([[0, 0, 1, 1], [1, 0, 0, 3]])


def test_iou_is_that_of_a_confusion_matrix_made_by_hand():
    tally = Tally(FOUND, LABELS, 4, "segmentation")
    expected = [[2, 1, 0, 0], [1, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]  # the pixel of 255 is in no cell
    np.testing.assert_array_equal(tally.table, expected)
    assert (tally.n, tally.correct) == (7, 4)
    assert [entry["iou"] for entry in tally.per_class()] == [2 / 5, 2 / 4, 0.0, None]
    assert [entry["n"] for entry in tally.per_class()] == [3, 3, 1, 0]
    assert [entry["accuracy"] for entry in tally.per_class()] == [2 / 3, 2 / 3, 0.0, None]
    assert tally.summary() == {"accuracy": 4 / 7, "mean_iou": pytest.approx((0.4 + 0.5 + 0.0) / 3)}


def test_a_class_that_is_only_answered_counts_as_not_met():
    tally = Tally(np.array([[0, 1]]), np.array([[0, 0]]), 3, "segmentation")
    assert [entry["iou"] for entry in tally.per_class()] == [0.5, 0.0, None]
    assert tally.summary()["mean_iou"] == 0.25


def test_255_is_a_class_where_there_are_so_many():
    assert Tally(np.array([[255, 0]]), np.array([[255, 255]]), 256, "segmentation").n == 2
    assert Tally(np.array([[254, 0]]), np.array([[255, 255]]), 255, "segmentation").n == 0


def test_f1_of_two_classes_is_that_of_the_second():
    tally = Tally(np.array([[1], [1], [0], [0], [1]]), np.array([[1], [0], [1], [0], [1]]), 2, "classes")
    assert tally.summary() == {
        "accuracy": 3 / 5,
        "f1": pytest.approx(2 * 2 / (2 * 2 + 1 + 1)),
    }  # 2 found, 1 wrong, 1 missed
    label = Tally(np.array([[1], [1], [0], [0], [1]]), np.array([[1], [0], [1], [0], [1]]), 2, "binary")
    assert label.summary() == tally.summary()
    assert Tally(np.zeros((3, 1), int), np.zeros((3, 1), int), 2, "binary").summary() == {"accuracy": 1.0, "f1": 0.0}


def test_f1_of_more_classes_is_the_mean_of_those_that_are_anywhere():
    tally = Tally(np.array([[0], [0], [1], [3]]), np.array([[0], [1], [1], [0]]), 5, "classes")
    by_hand = [2 * 1 / (2 + 2), 2 * 1 / (1 + 2), 2 * 0 / (1 + 0)]  # of 0, of 1, of 3 which is only answered
    assert tally.summary()["f1"] == pytest.approx(sum(by_hand) / 3)


def test_f1_of_several_labels_is_their_mean():
    found, labels = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0]]), np.array([[1, 1, 0], [0, 1, 0], [0, 1, 0]])
    assert Tally(found, labels, 2, "multilabel").summary()["f1"] == pytest.approx(
        (2 * 1 / (2 + 1) + 2 * 2 / (2 + 3)) / 2
    )


def test_answers_that_repeat_within_an_image_count_once():
    right = np.random.default_rng(0).random((40, 1)) < 0.7
    counted = np.ones(40, np.int64)
    assert effective(right.sum(axis=1), counted) == pytest.approx(39)  # a variance of N - 1 degrees of freedom
    assert effective(right.repeat(1000, axis=1).sum(axis=1), 1000 * counted) == pytest.approx(39)


def test_independent_answers_count_each():
    right = np.random.default_rng(0).random((400, 50)) < 0.7
    assert effective(right.sum(axis=1), np.full(400, 50)) == pytest.approx(400 * 50, rel=0.2)


def test_answers_counted_within_some_images_alone_come_from_so_many():
    right, counted = np.array([5, 0, 0, 3]), np.array([5, 0, 0, 6])
    expected = effective(np.array([5, 3]), np.array([5, 6]))
    assert effective(right, counted) == expected
    assert effective(np.array([5]), np.array([9])) == 1.0
    assert effective(np.array([5, 5]), np.array([5, 5])) == 2.0


def test_the_interval_of_pixels_is_that_of_so_many_independent_ones():
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, (30, 100))
    found = np.where(random.random((30, 1)) < 0.5, labels, random.integers(0, 2, (30, 100)))
    tally = Tally(found, labels, 2, "segmentation")
    n = effective((found == labels).sum(axis=1), np.full(30, 100))
    assert 20 < n < 100
    assert tally.interval() == wilson(tally.correct / 3000 * n, n)
