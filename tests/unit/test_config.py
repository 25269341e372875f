"""Settings: what is wrong is reported all at once, and nothing unknown is let through."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgekd.config import DistillSettings, Recipe, validated
from edgekd.devices import CalibrationRecipe, Target, load_recipe, load_target
from edgekd.errors import BadSetting
from edgekd.objectives import METHODS

RECIPE = METHODS["edgekd"].recipe.model_dump()


def test_everything_wrong_is_said_at_once_in_one_line() -> None:
    values = {"schema": 2, "name": "Big Name", "runtime": {"intra_op_threads": 0, "turbo": True}}
    with pytest.raises(BadSetting) as raised:
        validated(Target, values, "mine.toml")
    said = str(raised.value)
    assert said.startswith("mine.toml: ")
    assert "\n" not in said
    for part in ("schema", "name", "title", "runtime.intra_op_threads", "runtime.turbo"):
        assert f"{part}: " in said


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"minutes": 1, "steps": 1}, "give either minutes or steps"),
        ({}, "give either minutes or steps"),
        ({"steps": 1, "input_range": (1, 0)}, "LOW below HIGH"),
        ({"steps": 1, "seed": -1}, "seed"),
        ({"steps": 1, "layout": "CHWN"}, "layout"),
        ({"minutes": float("nan")}, "minutes"),
        ({"steps": 1, "unheard": 1}, "unheard"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(BadSetting, match=said):
        validated(DistillSettings, {"recipe": RECIPE, **values}, "settings")


def test_settings_survive_being_written_down() -> None:
    settings = DistillSettings(recipe=Recipe(**RECIPE), steps=3, input_shape=(1, 2, 3), mean=(0.5,))
    assert DistillSettings.model_validate(settings.model_dump(mode="json")) == settings


def test_a_bank_must_feed_the_student() -> None:
    with pytest.raises(BadSetting, match="bank must hold at least student_batch"):
        validated(Recipe, {**RECIPE, "bank": RECIPE["student_batch"] - 1, "share_batch": False}, "recipe")


@pytest.mark.parametrize("method", ["minmax", "entropy"])
def test_a_percentile_belongs_to_its_method_only(method: str) -> None:
    values = {"schema": 1, "name": "a", "title": "t", "method": method, "percentile": 99.9}
    with pytest.raises(BadSetting, match="percentile is set for"):
        validated(CalibrationRecipe, values, "a.toml")


def test_a_file_of_ones_own_is_named_after_itself_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "phone.toml"
    path.write_text('schema = 1\ntitle = "My phone"\n')
    assert load_target(str(path)).name == "phone"
    path.write_text('schema = 1\ntitle = "My phone"\nspeed = 3\n')
    with pytest.raises(BadSetting, match=r"phone\.toml: speed: "):
        load_target(str(path))
    with pytest.raises(BadSetting, match=r"phone\.toml: "):
        load_recipe(str(path))
