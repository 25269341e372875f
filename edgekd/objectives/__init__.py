"""What generator and student minimise: one file per method, none importing another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from edgekd.config import Recipe
from edgekd.errors import UnknownName
from edgekd.objectives.dafl import Dafl
from edgekd.teachers import Answer, Signal


class Objective(Protocol):
    """The losses of one method; every term is a weighted scalar under the name it is logged by."""

    needs: frozenset[Signal]
    watches_student: bool

    def generator_terms(self, answers: Sequence[Answer], student: Tensor | None) -> dict[str, Tensor]: ...

    def student_terms(self, student: Tensor, teacher: Tensor) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class Method:
    """A name on the command line: the objective it builds, and the recipe it starts from."""

    objective: Callable[[Recipe], Objective]
    recipe: Recipe
    summary: str


METHODS: dict[str, Method] = {
    "edgekd": Method(
        Dafl,
        Recipe(
            **{
                "one_hot": 1.0,
                "activation": 0.0,
                "entropy": 5.0,
                "statistics": 1.0,
                "adversary": 0.5,
                "temperature": 4.0,
            },
            **{
                "generator_batch": 128,
                "student_batch": 256,
                "generator_steps": 1,
                "student_steps": 6,
                "share_batch": False,
            },
            **{"bank": 60_000, "prior": 12_000, "prior_share": 0.3, "latent": 100, "generator_width": 32},
            **{"generator_rate": 1e-3, "student_rate": 2e-3, "anneal": True},
        ),
        "DAFL's terms, batch-norm statistics, an adversary, a replay bank and procedural images",
    ),
    "dafl": Method(
        Dafl,
        Recipe(
            **{
                "one_hot": 1.0,
                "activation": 0.1,
                "entropy": 5.0,
                "statistics": 0.0,
                "adversary": 0.0,
                "temperature": 1.0,
            },
            **{
                "generator_batch": 512,
                "student_batch": 512,
                "generator_steps": 1,
                "student_steps": 1,
                "share_batch": True,
            },
            **{"bank": 0, "prior": 0, "prior_share": 0.0, "latent": 100, "generator_width": 64},
            **{"generator_rate": 0.2, "student_rate": 2e-3, "anneal": False},
        ),
        "as published for MNIST: one-hot, activation and information-entropy losses, one batch for both updates",
    ),
}


def find_method(name: str) -> Method:
    """A method by its name on the command line.

    Raises:
        UnknownName: there is none.
    """
    if name not in METHODS:
        raise UnknownName("method", name, METHODS)
    return METHODS[name]
