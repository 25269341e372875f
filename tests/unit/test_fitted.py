"""Batches for large images: smaller, unless somebody asked for them, and fixed once they are found."""

from typing import Any

import pytest

from edgekd.config import DistillSettings
from edgekd.settings import fitted, resolve_settings


def batches(settings: DistillSettings) -> tuple[int, int, int]:
    recipe = settings.recipe
    return recipe.generator_batch, recipe.student_batch, recipe.children


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((28, 28), (128, 256, 96)),
        ((32, 32), (128, 256, 96)),
        ((64, 64), (32, 64, 24)),
        ((40, 48), (64, 136, 48)),
        ((224, 224), (16, 32, 8)),
    ],
)
def test_they_hold_as_many_pixels_as_those_for_small_images(
    size: tuple[int, int], expected: tuple[int, int, int]
) -> None:
    found, whole = fitted(resolve_settings({}), *size), resolve_settings({})
    assert batches(found) == expected
    sizes = dict(zip(("generator_batch", "student_batch", "children"), batches(whole), strict=True))
    assert found.recipe.model_copy(update=sizes) == whole.recipe


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"recipe": {"generator_batch": 128}}, (128, 32, 8)),
        ({"recipe": {"student_batch": 8}}, (16, 8, 8)),
        ({"recipe": {"children": 40}}, (16, 32, 40)),
        ({"recipe": {"fit": False}}, (128, 256, 96)),
        ({"method": "dafl"}, (528, 512, 0)),
    ],
)
def test_what_was_asked_for_or_published_is_left_alone(told: dict[str, Any], expected: tuple[int, int, int]) -> None:
    assert batches(fitted(resolve_settings(told), 96, 128)) == expected


def test_what_was_found_stays_when_it_is_stored_and_fitted_again() -> None:
    once = fitted(resolve_settings({}), 64, 64)
    stored = DistillSettings.model_validate(once.model_dump(mode="json"))
    assert fitted(stored, 64, 64) == once
