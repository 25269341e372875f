"""Rows of features before anyone says of what."""

from __future__ import annotations

import pytest
import torch

from edgekd.synthesis import rows


@pytest.mark.parametrize("features", [1, 2, 7, 64])
def test_rows_are_between_the_ends_of_each_feature(features: int) -> None:
    torch.manual_seed(0)
    found = rows.draw(101, features)
    assert found.shape == (101, features, 1, 1)
    assert found.isfinite().all()
    assert (found.amin(), found.amax()) >= (0.0, 0.0)
    assert found.amax() <= 1
    assert len(found.unique(dim=0)) > 20


@pytest.mark.parametrize("family", rows.FAMILIES, ids=lambda one: one.__name__)
def test_every_family_reaches_both_halves_of_a_feature(family) -> None:
    torch.manual_seed(0)
    found = family(400, 8)
    assert found.shape == (400, 8)
    assert 0.1 < (found > 0.5).float().mean() < 0.9


def test_families_differ_in_how_neighbours_and_others_hang_together() -> None:
    torch.manual_seed(0)

    def related(values: torch.Tensor) -> float:
        return float(((values[:, 1:] - values[:, :-1]) ** 2).mean() / values.var())

    assert related(rows.ordered(1000, 64)) < 0.7 * related(rows.independent(1000, 64))
    caused = torch.corrcoef(rows.caused(16, 64).T)
    assert caused.abs().mean() > 1.3 * torch.corrcoef(rows.independent(16, 64).T).abs().mean()
    assert (rows.sparse(1000, 64) == 0).float().mean() > 0.2


def test_children_come_of_the_rows_nearest_to_a_wanted_class() -> None:
    """Class 0 is dark and class 1 bright; children of both are as dark and as bright."""
    torch.manual_seed(0)
    codes = torch.cat([torch.full((50, 4, 1, 1), 25), torch.full((50, 4, 1, 1), 230)]).to(torch.uint8)
    scores = torch.log_softmax(torch.cat([torch.tensor([[4.0, 0.0]] * 50), torch.tensor([[0.0, 4.0]] * 50)]), dim=1)
    found = rows.children(lambda places: codes[places], scores, 400).flatten(1)
    assert found.shape == (400, 4)
    means = found.mean(dim=1)
    assert 0.35 < (means > 0.5).float().mean() < 0.65
    assert ((means - 0.5).abs() > 0.2).float().mean() > 0.9
    assert (found >= 0).all()
    assert (found <= 1).all()
