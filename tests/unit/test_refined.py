"""Images that are refined by what the generator is taught: generated ones, and bred ones in their place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_children import part
from test_distill import interrupted, settings, weights
from torch.nn import functional

from edgekd.config import DistillSettings
from edgekd.distill import distill
from edgekd.errors import BadSetting
from edgekd.run_folder import RunFolder
from edgekd.settings import resolve_settings
from edgekd.synthesis.refinement import STEP

KINDS = ("refined", "refined_children")


def refining(generated: int = 0, children: int = 0, **changes: Any) -> DistillSettings:
    chosen = {"refined": generated, "refined_children": children}
    return settings(recipe=chosen | changes.pop("recipe", {}), **changes)


def updates(run: RunFolder) -> set[float]:
    """How often the generator was taught."""
    return {float(state["step"]) for state in part(run, "generator_optimizer")["state"].values()}


def test_generated_images_are_kept_some_steps_from_where_they_were(teacher_file: Path, tmp_path: Path) -> None:
    plain, refined = RunFolder(tmp_path / "plain"), RunFolder(tmp_path / "refined")
    distill(teacher_file, refining(steps=1), plain)
    distill(teacher_file, refining(3, steps=1), refined)
    assert updates(plain) == updates(refined) == {1}
    before, after = (part(run, "bank")["codes"].float() for run in (plain, refined))
    assert before.shape == after.shape == (31, 1, 12, 12)
    moved = (after - before).abs()
    assert moved.max() == round(3 * STEP * 255)
    assert moved.mean() > STEP * 255


def test_every_second_round_bred_images_take_their_place_and_the_generator_rests(
    teacher_file: Path, tmp_path: Path
) -> None:
    plain, bred = RunFolder(tmp_path / "plain"), RunFolder(tmp_path / "bred")
    distill(teacher_file, refining(steps=5), plain)
    distill(teacher_file, refining(children=2, steps=5), bred)
    assert updates(plain) == {5}
    assert updates(bred) == {3}
    assert part(bred, "bank")["written"] == part(plain, "bank")["written"] == 5 * 31
    assert part(bred, "prior")["written"] == part(plain, "prior")["written"] == 64


@pytest.mark.parametrize("kind", KINDS)
def test_they_go_down_the_generator_s_loss(teacher_file: Path, tmp_path: Path, kind: str) -> None:
    """One step and eight, from the same images: nothing random is drawn between."""
    sure = {"statistics": 0.0, "entropy": 0.0, "adversary": 0.0, "student_steps": 1}
    losses = []
    for steps in (1, 8):
        run = RunFolder(tmp_path / str(steps))
        distill(teacher_file, refining(steps=2, recipe={kind: steps} | sure), run)
        logits = part(run, "bank")["targets"][-31:]
        losses.append(float(functional.cross_entropy(logits, logits.argmax(dim=1))))
    assert losses[1] < 0.8 * losses[0]


def test_without_procedural_images_the_generator_goes_on(teacher_file: Path, run: RunFolder) -> None:
    distill(teacher_file, refining(children=2, steps=4, recipe={"prior": 0, "prior_share": 0.0}), run)
    assert updates(run) == {4}


def test_interrupted_and_resumed_it_ends_in_the_same_bits(
    teacher_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "broken")
    distill(teacher_file, refining(1, 2, steps=4), whole)
    interrupted(teacher_file, broken, 2, monkeypatch, refining(1, 2, steps=4))
    distill(teacher_file, refining(1, 2, steps=4), broken, resume=True)
    assert weights(whole) == weights(broken)


@pytest.mark.parametrize("method", ["student-guided", "nayer-style"])
@pytest.mark.parametrize("kind", KINDS)
def test_methods_whose_generator_sees_no_teacher_or_is_told_classes_refuse_it(
    teacher_file: Path, run: RunFolder, method: str, kind: str
) -> None:
    with pytest.raises(BadSetting, match=f"recipe: {kind}: this method has none"):
        distill(teacher_file, resolve_settings({"method": method, "steps": 1, "recipe": {kind: 2}}), run)
    assert not run.path.exists()
