"""Procedural images with pixels such as the teacher's normalization tells."""

from __future__ import annotations

import pytest
import torch

from edgekd.synthesis import priors
from edgekd.synthesis.mixture import MOMENTS, mixture

MNIST, CIFAR10 = ([0.1307], [0.3081]), ([0.491, 0.482, 0.446], [0.247, 0.243, 0.261])


def moments(images: torch.Tensor) -> list[float]:
    return [float(images.mean()), float((images**2).mean())]


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 40, 40)])
def test_the_moments_told_of_the_families_are_theirs(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    for number, name in enumerate(MOMENTS):
        for inverted in (0, 1):
            only = torch.zeros(len(priors.FAMILIES), 2)
            only[number, inverted] = 1
            found = moments(priors.draw(1500, shape, only))
            assert found == pytest.approx(MOMENTS[name][inverted], abs=0.02), (name, inverted)
    assert [family.__name__ for family in priors.FAMILIES] == list(MOMENTS)


def test_bright_ink_on_a_dark_ground_is_strokes_and_silhouettes() -> None:
    shares = mixture(*MNIST, 0.0, 1.0)
    assert shares is not None
    names = list(MOMENTS)
    assert shares.sum() == pytest.approx(1)
    assert shares[names.index("strokes"), 0] > shares[names.index("silhouettes"), 0] > 0.1
    assert shares[:, 1].sum() < 0.05


def test_drawn_images_come_nearer_to_what_is_told() -> None:
    torch.manual_seed(0)
    for mean, std in (MNIST, CIFAR10):
        shares = mixture(mean, std, 0.0, 1.0)
        own = [moments(priors.draw(2000, (len(mean), 28, 28), kind))[0] for kind in (None, shares)]
        told = sum(mean) / len(mean)
        assert abs(own[1] - told) < abs(own[0] - told)


def test_the_unit_of_the_input_changes_nothing() -> None:
    (mean,), (std,) = MNIST
    bytes_, signed = mixture([255 * mean], [255 * std], 0.0, 255.0), mixture([2 * mean - 1], [2 * std], -1.0, 1.0)
    for other in (bytes_, signed):
        assert other is not None
        torch.testing.assert_close(other, mixture([mean], [std], 0.0, 1.0))


@pytest.mark.parametrize(
    ("mean", "std"),
    [(None, None), ([0.0], [1.0]), ([0.5], [0.5])],
    ids=["unknown", "no normalization", "a convention"],
)
def test_what_tells_nothing_changes_nothing(mean: list[float] | None, std: list[float] | None) -> None:
    assert mixture(mean, std, 0.0, 1.0) is None


def test_shares_are_those_that_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Families of one value each, developed by nothing but inversion, are counted."""

    def flat(value: float):
        return lambda count, shape: torch.full((count, *shape), value)

    monkeypatch.setattr(priors, "FAMILIES", tuple(flat(value) for value in (0.1, 0.2, 0.3, 0.4)))
    monkeypatch.setattr(
        priors, "_developed", lambda images, inverted: torch.where(inverted, 1 - images, images).round(decimals=2)
    )
    shares = torch.tensor([[0.4, 0.1], [0.0, 0.2], [0.3, 0.0], [0.0, 0.0]])
    values, counts = priors.draw(20_000, (1, 1, 1), shares).flatten().unique(return_counts=True)
    found = dict(zip([round(float(v), 2) for v in values], (counts / 20_000).tolist(), strict=True))
    assert found.keys() == {0.1, 0.9, 0.8, 0.3}
    assert found == pytest.approx({0.1: 0.4, 0.9: 0.1, 0.8: 0.2, 0.3: 0.3}, abs=0.02)
