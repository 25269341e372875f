"""Procedural images that are bred beside the generator, round by round, where the teacher may be asked at will."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_black_box import npz
from test_distill import interrupted, settings, weights
from torch import Tensor

from edgekd.config import DistillSettings
from edgekd.distill import distill
from edgekd.errors import BadSetting
from edgekd.run_folder import RunFolder
from edgekd.settings import following
from edgekd.synthesis.bank import Bank

BREEDING = {"prior": 64, "children": 16, "doubted": 1.0}


def breeding(**changes: Any) -> DistillSettings:
    return settings(recipe=BREEDING | changes.pop("recipe", {}), **changes)


def part(run: RunFolder, name: str) -> Any:
    return torch.load(run.checkpoint_file, weights_only=True)["parts"][name]


def test_they_take_the_place_of_the_oldest_and_the_generator_goes_on(teacher_file: Path, tmp_path: Path) -> None:
    plain, bred = RunFolder(tmp_path / "plain"), RunFolder(tmp_path / "bred")
    distill(teacher_file, breeding(steps=2, recipe={"children": 0}), plain)
    distill(teacher_file, breeding(steps=2), bred)
    assert part(bred, "prior")["written"] == part(plain, "prior")["written"] + 2 * 16 == 64 + 32
    assert part(bred, "bank")["written"] == part(plain, "bank")["written"]
    before, after = part(plain, "prior")["codes"], part(bred, "prior")["codes"]
    assert torch.equal(before[32:], after[32:])
    assert not torch.equal(before[:32], after[:32])


def test_images_of_one_s_own_stay(teacher_file: Path, tmp_path: Path) -> None:
    own = npz(tmp_path / "own.npz", 20)
    some, filled = RunFolder(tmp_path / "some"), RunFolder(tmp_path / "filled")
    distill(teacher_file, breeding(steps=6, samples=str(own)), some)
    images = {image.tobytes() for image in np.load(own)["images"]}
    assert part(some, "prior")["written"] == 64 + 6 * 16
    assert {codes.numpy().tobytes() for codes in part(some, "prior")["codes"][:20]} == images
    distill(teacher_file, breeding(steps=2, samples=str(own), recipe={"prior": 20}), filled)
    assert {codes.numpy().tobytes() for codes in part(filled, "prior")["codes"]} == images


def test_procedural_images_give_way_to_generated_ones(
    teacher_file: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[int, int]] = []
    draw = Bank.draw

    def noted(bank: Bank, count: int) -> tuple[Tensor, Tensor]:
        drawn.append((bank.capacity, count))
        return draw(bank, count)

    monkeypatch.setattr(Bank, "draw", noted)
    falling = {"prior_share": 0.5, "prior_fall": 1.0, "student_steps": 1}
    distill(teacher_file, breeding(steps=4, recipe=falling), run)
    assert [count for capacity, count in drawn if capacity == 64] == [32, 24, 16, 8]
    assert [count for capacity, count in drawn if capacity == 256] == [0, 8, 16, 24]
    steep = {"prior_share": 0.75, "prior_fall": 0.5, "student_steps": 1}
    drawn.clear()
    distill(teacher_file, breeding(steps=2, recipe=steep), run, overwrite=True)
    assert [count for capacity, count in drawn if capacity == 64] == [32, 24]


def test_what_the_student_is_sure_of_is_not_asked(teacher_file: Path, run: RunFolder) -> None:
    distill(teacher_file, breeding(steps=2, recipe={"doubted": 1e-9}), run)
    assert part(run, "prior")["written"] == 64


def test_without_procedural_images_there_are_none(teacher_file: Path, run: RunFolder) -> None:
    distill(teacher_file, breeding(steps=1, recipe={"prior": 0, "prior_share": 0.0}), run)
    assert part(run, "prior")["written"] == 0


def test_interrupted_and_resumed_it_ends_in_the_same_bits(
    teacher_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "broken")
    distill(teacher_file, breeding(steps=4), whole)
    interrupted(teacher_file, broken, 2, monkeypatch, breeding(steps=4))
    distill(teacher_file, breeding(steps=4), broken, resume=True)
    assert weights(whole) == weights(broken)


def test_a_student_that_follows_a_finished_run_asks_nothing() -> None:
    assert following(breeding()).recipe.children == 0


def test_where_every_question_is_chosen_they_are_refused(teacher_file: Path, run: RunFolder) -> None:
    chosen = settings(method="student-guided", recipe={"children": 16, "prior_share": 0.5})
    with pytest.raises(BadSetting, match="recipe: children: this method has none"):
        distill(teacher_file, chosen, run)
    assert not run.path.exists()
