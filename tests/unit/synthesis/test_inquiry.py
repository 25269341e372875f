"""Which images are worth a question: those that the student is not sure about."""

import torch

from edgekd.synthesis.inquiry import doubtful

SURE, UNSURE = [9.0, 0.0, 0.0], [0.1, 0.0, 0.0]


def test_confidence_is_the_largest_probability() -> None:
    logits = torch.tensor([SURE, UNSURE, SURE])
    assert doubtful(logits, "classes", 0.7).tolist() == [False, True, False]
    edge = torch.tensor([[0.0, 0.0]])
    assert not doubtful(edge, "classes", 0.5)
    assert doubtful(edge, "classes", 0.51)


def test_at_one_every_image_is_doubtful_however_sure_the_student_is() -> None:
    assert doubtful(torch.tensor([[200.0, 0.0]]), "classes", 1.0).tolist() == [True]


def test_of_labels_and_pixels_the_mean_decides() -> None:
    labels = torch.tensor([[9.0, 0.0], [9.0, -9.0]])  # half sure, sure
    assert doubtful(labels, "multilabel", 0.8).tolist() == [True, False]
    pixels = torch.zeros(2, 3, 4, 4)
    pixels[1, 0] = 9.0
    assert doubtful(pixels, "segmentation", 0.7).tolist() == [True, False]
