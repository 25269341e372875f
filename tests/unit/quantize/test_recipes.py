from __future__ import annotations

import pytest

from edgekd import shipped
from edgekd.devices import load_recipe
from edgekd.errors import BadSetting, UnknownName


def test_the_recipes_ship_and_say_what_they_are_for():
    assert shipped.names("calibration") == ["entropy", "minmax", "moving-average", "mse", "percentile"]
    for name in shipped.names("calibration"):
        assert load_recipe(name).method == name
        text = (shipped.folder("calibration") / f"{name}.toml").read_text()
        assert all(f"# {word}" in text for word in ("When:", "Why not:", "Source:"))


def test_a_misspelt_recipe_is_answered_with_the_nearest():
    with pytest.raises(UnknownName, match=r"unknown calibration recipe 'percentil'.*did you mean percentile"):
        load_recipe("percentil")


@pytest.mark.parametrize(
    ("lines", "match"),
    [
        ('method = "mse"', "method"),
        ('method = "minmax"\npercentile = 99.9', "percentile is set for"),
        ('method = "minmax"\nbins = 2048', "bins is set for"),
        ('method = "entropy"', "bins is set for"),
        ('method = "percentile"\nbins = 2048', "percentile is set for"),
        ('method = "minmax"\nsamples = 4\nminimum = 8', "samples must not be below minimum"),
        ('method = "minmax"\nsampels = 4', "sampels: Extra inputs"),
    ],
)
def test_a_wrong_recipe_of_the_users_own_is_refused(tmp_path, lines, match):
    path = tmp_path / "own.toml"
    path.write_text(f'schema = 1\ntitle = "own"\n{lines}\n')
    with pytest.raises(BadSetting, match=match):
        load_recipe(str(path))
