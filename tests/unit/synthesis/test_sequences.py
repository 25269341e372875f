"""Random sequences of token ids and their children: ids that there are, ends that are filled up, parents that fit."""

from __future__ import annotations

import pytest
import torch

from edgekd.synthesis import sequences

IDS, LENGTH = 1000, 24


def ids_of(shares: torch.Tensor) -> torch.Tensor:
    """The ids, which the shares tell exactly."""
    found = shares[:, :, 0, 0].double() * (IDS - 1)
    torch.testing.assert_close(found, found.round(), atol=1e-3, rtol=0)
    return found.round().long()


def test_sequences_are_of_ids_that_there_are_and_end_early() -> None:
    torch.manual_seed(0)
    drawn = ids_of(sequences.draw(4000, LENGTH, IDS))
    assert (drawn.min(), drawn.max()) == (0, IDS - 1)
    assert len(drawn.unique()) == IDS
    ends = (drawn == drawn[:, -1:]).flip(1).long().cumprod(dim=1).sum(dim=1)  # how many equal ids are at the end
    assert 0.35 < (ends > LENGTH / 2).float().mean() < 0.65
    assert 0.7 < (drawn[ends > 1][:, -1] == 0).float().mean() < 0.8
    first = drawn[:, 0]
    assert (first < 10).float().mean() > 0.1  # low ids are drawn more often than 10 of 1,000
    assert (first > IDS // 2).float().mean() > 0.2


def test_a_child_begins_as_one_parent_and_ends_as_another(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    asked = torch.arange(100).repeat_interleave(LENGTH).reshape(100, LENGTH, 1, 1).int()  # sequence i is all of id i
    scores = torch.stack([-torch.arange(100.0), torch.arange(100.0) - 100], dim=1)  # low ones are of 0, high ones of 1
    changed = ids_of(sequences.children(lambda places: asked[places], scores, 2000, IDS))
    assert 0.02 < (changed >= 100).float().mean() < 0.2  # some ids are drawn anew
    monkeypatch.setattr(sequences, "CHANGED", 0.0)
    bred = ids_of(sequences.children(lambda places: asked[places], scores, 2000, IDS))
    cuts = (bred[:, 1:] != bred[:, :-1]).sum(dim=1)
    assert set(cuts.tolist()) == {0, 1}
    assert ((bred < 50).all(dim=1) | (bred >= 50).all(dim=1)).float().mean() > 0.95  # both parents are of one class
    assert 0.45 < (bred < 50).float().mean() < 0.55  # and both classes are wanted alike
    assert ((bred < 30) | (bred >= 70)).float().mean() > 0.9  # the best of eight
