"""Breeding: parents are those nearest to the wanted class, children are new images, rare classes get their share."""

import torch

from edgekd.synthesis import evolution, priors
from edgekd.teachers.codes import to_codes


def test_thefittest_of_many_candidates_is_near_the_best():
    torch.manual_seed(0)
    scores = torch.arange(100.0).unsqueeze(1).repeat(1, 3)
    chosen = evolution.fittest(scores, torch.randint(3, (500,)))
    assert chosen.float().mean() > 95  # the expected best of 64 out of 0..99


def test_children_are_images_of_their_own():
    torch.manual_seed(0)
    codes = to_codes(priors.draw(64, (3, 20, 24)), 0.0, 1.0)
    bred = evolution.children(codes.__getitem__, torch.randn(64, 5).log_softmax(dim=1), 40)
    assert bred.shape == (40, 3, 20, 24)
    assert bred.min() >= 0.0
    assert bred.max() <= 1.0
    parents = codes.float() / 255
    nearest = torch.cdist(bred.flatten(1), parents.flatten(1)).amin(dim=1)
    assert nearest.min() > 0.1


def test_breeding_fills_classes_that_chance_hardly_finds():
    """A teacher that calls bright images class 1, all others class 0; few of the drawn images are that bright."""

    def ask(images: torch.Tensor) -> torch.Tensor:
        bright = 40 * (images.mean(dim=(1, 2, 3)) - 0.55)
        return torch.stack([-bright, bright], dim=1)

    torch.manual_seed(0)
    images = priors.draw(512, (1, 16, 16))
    logits = ask(images)
    first = logits.argmax(dim=1).float().mean()
    for _ in range(6):
        bred = evolution.children(to_codes(images, 0.0, 1.0).__getitem__, logits.log_softmax(dim=1), 128)
        images, logits = torch.cat([images, bred]), torch.cat([logits, ask(bred)])
    assert first < 0.2
    assert logits[-256:].argmax(dim=1).float().mean() > 2 * first
