"""Sequences of token ids before anyone says of what: what is asked of a teacher of text when there are no sentences.

Nothing is known but how many ids there are. Half of the sequences take any id alike, half the low ones more often, for
tokenizers tend to count by frequency; each ends early and is filled up, mostly with id 0, which most tokenizers pad
with. What was answered is bred: two sequences that came near a wanted class are cut at one place and put together. It
is no language, and teaches what single words and short runs of them do. A sequence is `[T, 1, 1]` of ids as shares of
the last one, as all that a supply hands out lies between 0 and 1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from edgekd.synthesis.evolution import fittest

CANDIDATES = 8
"""Sequences of which the nearest to the wanted class becomes a parent: of more, all soon are of the same few words."""
PADDED, CHANGED = 0.75, 0.2
"""The share of sequences that 0 fills up, and of ids at most that a child has anew."""


def draw(count: int, length: int, ids: int) -> Tensor:
    """`count` sequences `[count, T, 1, 1]`, shares of the last id, by torch's global random state."""
    anywhere, common = torch.randint(ids, (count, length)), (ids ** torch.rand(count, length)).long() - 1
    found = torch.where(torch.rand(count, 1) < 0.5, anywhere, common)
    filling = torch.where(torch.rand(count, 1) < PADDED, 0, torch.randint(ids, (count, 1)))
    ends = (length * torch.rand(count, 1)).long()
    return _as_shares(torch.where(torch.arange(length) <= ends, found, filling), ids)


def children(codes_at: Callable[[Tensor], Tensor], scores: Tensor, count: int, ids: int) -> Tensor:
    """`count` new sequences out of asked ones, all options wanted equally often; as `evolution.children`.

    Args:
        codes_at: of the N sequences asked so far, the ids, int32 `[n, T, 1, 1]`, at places `[n]`.
        scores: `[N, O]`, the log-probability of each option in the answers.
        count: how many.
        ids: how many token ids there are.

    Returns:
        Shares of the last id `[count, T, 1, 1]`: the beginning of one parent and the end of the other, with some ids
        drawn anew.
    """
    wanted = torch.randint(scores.shape[1], (count,))
    first, second = (codes_at(fittest(scores, wanted, CANDIDATES)).flatten(1).long() for _ in range(2))
    length = first.shape[1]
    joined = torch.where(torch.arange(length) < (length * torch.rand(count, 1)).long(), first, second)
    anew = torch.rand(count, length) < CHANGED * torch.rand(count, 1) ** 2
    return _as_shares(torch.where(anew, torch.randint(ids, (count, length)), joined), ids)


def _as_shares(found: Tensor, ids: int) -> Tensor:
    return (found.clamp(0, ids - 1) / (ids - 1))[:, :, None, None]
