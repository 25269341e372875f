"""What a distillation is run with, put together from the command line, a file, the run that goes on, and the method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from edgekd.config import DistillSettings, Recipe, validated
from edgekd.errors import BadRun, BadSetting
from edgekd.networks import is_factory
from edgekd.objectives import find_method
from edgekd.run_folder import RunFolder
from edgekd.shipped import read_toml
from edgekd.teachers import Signal

DEFAULT_MINUTES = 3.9
AUTO, DEFAULT, WITHOUT_GRADIENT = "auto", "edgekd", "student-guided"
"""The method that nobody chose: the default one, or where a teacher has no gradient the one that needs none."""
LEAST = {"generator_batch": 16, "student_batch": 32, "children": 8}
"""Sizes that shrink for large images, and how far."""
PIXELS = 32 * 32
"""Images of more pixels than this are large: recipes are written for small ones."""


OF_LABELS = {"temperature": 1.0, "jitter": 0.07}
"""What a recipe of chosen questions has for bare labels: a temperature above 1 asks a student to tell by how much it is
sure, which a label does not know. What it does know holds, more or less, for the image moved by two pixels of 28."""
OF_ROWS = {"temperature": 1.0}
"""What recipes that are fitted have for rows of a table. Trees vote, and where none does their logarithm is a cliff
that no temperature but 1 leaves out of sight."""


def resolve_settings(
    flags: Mapping[str, Any], config_file: Path | None = None, run: RunFolder | None = None
) -> DistillSettings:
    """Settings from, first to last: the command line, a settings file or the run being resumed, the method's recipe.

    Args:
        flags: what the user set, by `DistillSettings` field; `recipe` may be a partial mapping. None means not set.
        config_file: a TOML file of the same keys.
        run: the run that is being resumed.

    Raises:
        BadSetting, UnknownName: lists all that is wrong.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    stored = run.record()["settings"] if run is not None else {}
    if is_factory(str(stored.get("student", ""))) and given.get("student") != stored["student"]:
        hint = f"if its code may run here, say --student {quote(stored['student'])}"
        raise BadRun(f"its student is code of one's own, {stored['student']}", where=run and run.path, hint=hint)
    written = read_toml(config_file) if config_file else {}
    merged = {**stored, **written, **given}
    if merged.get("added_to") is not None and "method" not in merged:
        merged["method"] = RunFolder(Path(merged["added_to"])).record()["settings"]["method"]
    method = find_method(DEFAULT if merged.setdefault("method", AUTO) == AUTO else str(merged["method"]))
    parts = [source.get("recipe", {}) for source in (stored, written, given)]
    if not all(isinstance(part, Mapping) for part in parts):
        raise BadSetting("recipe must be a table of weights and sizes", where=config_file)
    told = {key for part in parts[1:] for key in part}
    merged["fixed"] = tuple(sorted({*stored.get("fixed", ()), *told}))
    base = {} if stored else method.recipe.model_dump()
    if merged.get("added_to") is not None and not stored:
        merged |= _of_run(merged)
    if merged.get("students") is None:
        merged["students"] = method.students
    merged["recipe"] = {**base, **{key: value for part in parts for key, value in part.items()}}
    if "steps" in given and "minutes" not in given:
        merged["minutes"] = None
    if "minutes" in given and "steps" not in given:
        merged["steps"] = None
    if merged.get("minutes") is None and merged.get("steps") is None:
        merged["minutes"] = DEFAULT_MINUTES
    return validated(DistillSettings, merged, config_file or "settings")


def _of_run(merged: Mapping[str, Any]) -> dict[str, Any]:
    """What a run to which a student is added has settled for all of them.

    Raises:
        BadSetting: the user settles it again.
    """
    settled = ("students", "chunks", "representation", "student", "width")
    if said := [name for name in settled if merged.get(name) is not None]:
        what = "that is as the other students have it"
        raise BadSetting(what, where=", ".join(f"--{name}" for name in said), allowed="without, with --add-student")
    before = RunFolder(Path(merged["added_to"])).record()["settings"]
    return {name: before[name] for name in settled if name in before}


def suited(settings: DistillSettings, offered: Sequence[frozenset[Signal]], *, ids: bool = False) -> DistillSettings:
    """Settings with a method, where nobody chose one: the one that suits what all teachers offer, or for token ids,
    about which nothing is generated, the default.

    What was told of the recipe stays; the rest is that method's own, and where questions are chosen and only labels
    answer, `OF_LABELS`.

    Raises:
        BadSetting: what was told does not go with it.
    """
    if settings.method == AUTO:
        settings = _chosen(settings, exact=ids or all(Signal.GRADIENT in signals for signals in offered))
    bare = settings.recipe.asked and all(signals == {Signal.LABELS} for signals in offered)
    changes = {name: value for name, value in OF_LABELS.items() if bare and name not in settings.fixed}
    return settings.model_copy(update={"recipe": settings.recipe.model_copy(update=changes)})


def _chosen(settings: DistillSettings, *, exact: bool) -> DistillSettings:
    name = DEFAULT if exact else WITHOUT_GRADIENT
    told = {key: value for key, value in settings.recipe.model_dump().items() if key in settings.fixed}
    recipe = validated(Recipe, find_method(name).recipe.model_dump() | told, f"recipe of {name}")
    return settings.model_copy(update={"method": name, "recipe": recipe})


def following(settings: DistillSettings) -> DistillSettings:
    """The settings of a student that learns from the images of a finished run: nothing is generated for it.

    Raises:
        BadSetting: the recipe asks the teacher about every batch, and the number of questions is limited.
    """
    recipe = settings.recipe
    fresh = recipe.fresh or (recipe.share_batch and not recipe.bank)
    if settings.max_queries is not None and (fresh or recipe.shift or recipe.mirror):
        what = f"method {settings.method} asks the teacher about every batch of every student"
        raise BadSetting(what, where="--max-queries", allowed="with --method edgekd")
    changed = {"generator_steps": 0, "share_batch": False, "fresh": fresh, "generator_life": 0, "warm_up": 0.0}
    changed |= {"rivals": 0, "rivalry": 0.0, "children": 0}  # there is nothing to choose, and nobody to ask
    told = {"recipe": recipe.model_copy(update=changed), "max_queries": None, "samples": None}
    return settings.model_copy(update=told | {"fixed": tuple(sorted({*settings.fixed, *changed}))})


def fitted(settings: DistillSettings, height: int, width: int, *, ids: bool = False) -> DistillSettings:
    """Settings whose batches suit images of a size: the same number of pixels, if nobody asked for so many images.

    Batches for images of up to 32x32 are the recipe's; of larger ones, where the recipe fits its batches, so many fewer
    that they take about the same time and memory, in eights, down to `LEAST`. What comes out is fixed: it can be stored
    and come here again. Rows of a table, which are images of one pixel, get `OF_ROWS`; token ids what others have.
    """
    if ids:
        return settings
    recipe, share = settings.recipe, PIXELS / (height * width)
    others = {name: value for name, value in OF_ROWS.items() if recipe.fit and name not in settings.fixed}
    if height * width == 1:
        return settings.model_copy(update={"recipe": recipe.model_copy(update=others)})
    free = [name for name in LEAST if recipe.fit and share < 1 and name not in settings.fixed]
    fewer = {name: max(LEAST[name], int(share * getattr(recipe, name)) // 8 * 8) for name in free}
    smaller = {name: min(count, getattr(recipe, name)) for name, count in fewer.items()}
    fixed = tuple(sorted({*settings.fixed, *LEAST}))
    return settings.model_copy(update={"recipe": recipe.model_copy(update=smaller), "fixed": fixed})
