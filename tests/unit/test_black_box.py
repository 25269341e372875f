"""A teacher that only answers, and bills: which method it gets, what it is asked, and that a question counts once."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_distill import SMALL, interrupted, settings, weights

from edgekd.config import DistillSettings, Reach
from edgekd.distill import distill
from edgekd.errors import BadData, BadModel, BadRun, BadSetting, Refused
from edgekd.proxies import read_proxies
from edgekd.run_folder import RunFolder
from edgekd.settings import resolve_settings, suited
from edgekd.synthesis.neighbours import smoothed
from edgekd.teachers import Signal

GUIDED = {"asked": 16, "bred": 0.5, "doubted": 1.0, "prior": 256}
PROBES, BATCH = 4, SMALL["generator_batch"]
EXACT, ANSWERS = frozenset({Signal.GRADIENT, Signal.LABELS}), frozenset({Signal.LABELS})


def guided(**changes: Any) -> DistillSettings:
    return settings(recipe=GUIDED | changes.pop("recipe", {}), **changes)


# ------------------------------------------------------------------------------------------------------- the method


def test_what_nobody_chose_is_chosen_by_what_all_teachers_offer() -> None:
    free = resolve_settings({"recipe": {"entropy": 3.0}})
    assert suited(free, [EXACT, EXACT]).method == "edgekd"
    assert suited(free, [EXACT, ANSWERS]).method == "student-guided"
    for offered in (EXACT, ANSWERS):
        assert suited(free, [offered]).recipe.entropy == 3.0
    assert suited(free, [ANSWERS]).recipe.statistics == 0
    told = resolve_settings({"method": "dafl"})
    assert suited(told, [ANSWERS]) == told


def test_bare_labels_are_learned_at_temperature_one_unless_another_is_told() -> None:
    both = frozenset({Signal.LABELS, Signal.SCORES})
    free = resolve_settings({})
    assert [suited(free, [offered]).recipe.temperature for offered in (ANSWERS, both, EXACT)] == [1.0, 4.0, 8.0]
    assert suited(free, [ANSWERS, both]).recipe.temperature == 4.0
    assert suited(resolve_settings({"method": "student-guided"}), [ANSWERS]).recipe.temperature == 1.0
    assert suited(resolve_settings({"recipe": {"temperature": 3.0}}), [ANSWERS]).recipe.temperature == 3.0
    assert suited(resolve_settings({"method": "dafl", "recipe": {"temperature": 3.0}}), [ANSWERS]).method == "dafl"


def test_where_there_is_a_gradient_nothing_changes_for_those_who_choose_nothing(teacher_file, tmp_path) -> None:
    free, chosen = RunFolder(tmp_path / "free"), RunFolder(tmp_path / "chosen")
    distill(teacher_file, settings(), free)
    distill(teacher_file, settings(method="edgekd"), chosen)
    assert free.record()["settings"]["method"] == "edgekd"
    assert free.record()["settings"] == chosen.record()["settings"]
    assert weights(free) == weights(chosen)
    assert not free.ledger_file.exists()
    assert "queries" not in free.metrics_file.read_text()


def test_what_was_told_of_the_recipe_and_does_not_go_with_the_method_is_refused(teacher_file, run) -> None:
    with pytest.raises(BadSetting, match="recipe: statistics: this method has none"):
        distill(teacher_file, guided(access="labels", recipe={"statistics": 1.0}), run)
    assert not run.path.exists()


@pytest.mark.parametrize("method", ["edgekd", "nayer-style", "cdfkd-mfs"])
def test_other_methods_choose_no_questions(teacher_file, run, method) -> None:
    chosen = resolve_settings({"method": method, "steps": 1, "recipe": {"asked": 16}})
    several = [teacher_file, teacher_file] if method == "cdfkd-mfs" else [teacher_file]
    with pytest.raises(BadSetting, match="recipe: asked: this method has none"):
        distill(several, chosen, run)
    assert not run.path.exists()


@pytest.mark.parametrize("access", ["scores", "labels"])
def test_a_teacher_that_only_answers_teaches_without_a_word_about_methods(teacher_file, run, access) -> None:
    distill(teacher_file, guided(access=access), run)
    record = run.record()
    assert (record["state"], record["settings"]["method"]) == ("finished", "student-guided")
    assert record["queries"]["asked"] <= 256 + 6 * 16
    assert len(run.held_out().codes) > 0


def test_a_method_that_was_chosen_is_not_exchanged(teacher_file, run) -> None:
    with pytest.raises(BadModel, match="method edgekd needs gradient"):
        distill(teacher_file, settings(method="edgekd", access="labels"), run)


def test_rivals_learn_beside_the_student_and_one_of_all_is_the_result(teacher_file, tmp_path, monkeypatch) -> None:
    whole, parts, alone = (RunFolder(tmp_path / name) for name in ("whole", "parts", "alone"))
    chosen = guided(access="scores", recipe={"rivals": 1, "rivalry": 1.0})
    distill(teacher_file, chosen, whole)
    interrupted(teacher_file, parts, 3, monkeypatch, chosen)
    distill(teacher_file, chosen, parts, resume=True)
    assert weights(parts) == weights(whole)
    distill(teacher_file, guided(access="scores"), alone)
    assert whole.student_weights.stat().st_size == alone.student_weights.stat().st_size
    line = json.loads(whole.metrics_file.read_text().splitlines()[-1])
    assert {"rivalry", "soft_labels", "soft_labels_1"} <= set(line)


# ---------------------------------------------------------------------------------------------------------- queries


@pytest.mark.parametrize("limit", [100, 137, 201])
def test_all_that_may_be_asked_is_asked_and_not_one_more(server, run, limit) -> None:
    distill(server.url, guided(max_queries=limit, steps=12), run)
    record = run.record()
    assert record["state"] == "finished"
    assert record["queries"] == {"asked": limit, "limit": limit}
    assert server.asked == limit


@pytest.mark.slow
@pytest.mark.parametrize("lost", [False, True])
def test_interrupted_and_resumed_it_ends_with_just_these_queries_and_the_same_bits(
    server, tmp_path, monkeypatch, lost
) -> None:
    """With the checkpoint, or with nothing left but the ledger."""
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    chosen = guided(max_queries=160, steps=12)
    distill(server.url, chosen, whole)
    assert server.asked == 160
    server.asked = 0
    interrupted(server.url, parts, 5, monkeypatch, chosen)
    assert PROBES < server.asked < 160
    if lost:
        parts.checkpoint_file.unlink()
    distill(server.url, chosen, parts, resume=True)
    assert server.asked == parts.record()["queries"]["asked"] == 160
    assert weights(parts) == weights(whole)


def test_procedural_images_come_first_and_leave_the_generator_half(server, run) -> None:
    seen: list[Any] = []
    distill(server.url, guided(max_queries=100, steps=1), run, watch=seen.append)
    told = [progress.message for progress in seen if progress.message]
    assert "asking the teacher about 50 procedural images, or as many as there is time for" in told
    assert run.record()["queries"]["asked"] == PROBES + 50 + 16


def test_where_nothing_may_be_asked_there_is_nothing_to_learn_from_yet(server, tmp_path) -> None:
    run = RunFolder(tmp_path / "run")
    distill(server.url, guided(max_queries=PROBES, steps=12), run)
    assert (run.record()["state"], run.record()["queries"]["asked"]) == ("interrupted", PROBES)
    distill(server.url, guided(max_queries=160, steps=12), run, resume=True)
    assert (run.record()["state"], run.record()["queries"]["asked"]) == ("finished", 160)


def test_what_the_student_is_sure_of_is_not_asked(server, run) -> None:
    distill(server.url, guided(max_queries=400, recipe={"doubted": 0.01, "prior": 64}), run)
    assert run.record()["queries"]["asked"] == server.asked == PROBES + 64


def test_without_a_limit_a_round_asks_what_the_recipe_says(server, run) -> None:
    distill(server.url, guided(recipe={"prior": 64}), run)
    assert server.asked == PROBES + 64 + 6 * 16


def test_the_log_tells_how_many_queries_there_were(server, run, monkeypatch) -> None:
    monkeypatch.setattr("edgekd.journal.LOG_SECONDS", 0.0)
    distill(server.url, guided(max_queries=150, steps=8), run)
    lines = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    assert all(0 <= line["agreement"] <= 1 for line in lines)
    counts = [line["queries"] for line in lines]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1] == 150


def test_of_images_the_same_to_the_last_bit_one_is_counted(server, run, monkeypatch) -> None:
    """Procedural images may be plain, and so the same: their answer is known."""
    import torch

    monkeypatch.setattr("edgekd.synthesis.priors.draw", lambda count, shape, _: torch.full((count, *shape), 0.5))
    distill(server.url, guided(max_queries=150, steps=24), run)
    assert server.asked == run.record()["queries"]["asked"] == 150


# --------------------------------------------------------------------------------------------------------- a refusal


@pytest.mark.slow
def test_a_quota_ends_a_run_that_goes_on_when_there_is_more(server, tmp_path) -> None:
    import inference_server

    whole, run = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "run")
    chosen, quick = guided(max_queries=160, steps=12), Reach(patience=0.05)
    distill(server.url, chosen, whole)
    server.asked, fine = 0, [lambda *_: False] * 4
    server.faults = [*fine, *[inference_server.status(429)] * 1000]
    with pytest.raises(Refused, match=r"no answer: HTTP 429, .*the run can be resumed"):
        distill(server.url, chosen, run, reach=quick)
    record = run.record()
    assert (record["state"], "HTTP 429" in record["stopped"]) == ("interrupted", True)
    assert record["queries"]["asked"] == server.asked < 160
    server.faults = []
    distill(server.url, chosen, run, resume=True, reach=quick)
    assert server.asked == run.record()["queries"]["asked"] == 160
    assert weights(run) == weights(whole)


SET = [
    word
    for key, value in (SMALL | GUIDED | {"generator_steps": 1}).items()
    for word in ("--set", f"{key}={str(value).lower()}")
]


def asking(server: Any, *more: object) -> tuple[object, ...]:
    return ("distill", server.url, "--steps", 8, "--max-queries", 120, "--out", "run", "--threads", 1, *SET, *more)


@pytest.mark.parametrize(
    ("status", "headers", "said"),
    [
        (429, {}, r"HTTP 429, tried \d+ times; the run can be resumed; --patience SECONDS waits longer"),
        (429, {"Retry-After": "3600"}, r"HTTP 429, tried 1 times, and it asks to wait 3600 s; the run can be resumed"),
        (402, {}, r"the quota is used up \(HTTP 402\): .*on purpose.*; the run can be resumed"),
    ],
)
def test_a_refusal_is_exit_4_and_one_command_that_goes_on(server, call, tmp_path, status, headers, said) -> None:
    import inference_server

    server.faults = [*[lambda *_: False] * 4, *[inference_server.status(status, **headers)] * 1000]
    stopped = call(*asking(server, "--patience", 0.05, "--json"))
    assert (stopped.code, stopped.out) == (4, "")
    assert re.search(said, stopped.err), stopped.err
    begun = RunFolder(tmp_path / "run").record()["queries"]["asked"]
    assert begun == server.asked < 120
    (line,) = (line for line in stopped.err.splitlines() if "go on with: edgekd " in line)
    server.faults = []
    resumed = call(*shlex.split(line.partition("go on with: edgekd ")[2]))
    assert resumed.code == 0, resumed.err
    assert server.asked == RunFolder(tmp_path / "run").record()["queries"]["asked"] == 120


@pytest.mark.slow
def test_a_run_killed_while_it_waits_for_an_answer_ends_with_just_its_queries(server, call, tmp_path) -> None:
    """SIGKILL, by the server, with a request on its way that was counted on both sides and never answered."""
    killed: list[int] = []

    def kill(handler: Any, images: np.ndarray) -> bool:
        handler.server.asked += len(images)
        killed.append(len(images))
        process.kill()
        handler.close_connection = True
        return True

    server.faults = [*[lambda *_: False] * 5, kill]
    command = [sys.executable, "-m", "edgekd", *map(str, asking(server))]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE) as process:
        _, told = process.communicate()
    assert process.returncode == -signal.SIGKILL, told
    assert killed
    assert server.asked < 120
    resumed = call("distill", server.url, "--out", "run", "--resume")
    assert resumed.code == 0, resumed.err
    assert server.asked == RunFolder(tmp_path / "run").record()["queries"]["asked"] == 120


# ------------------------------------------------------------------------------------------------- images of one's own


def npz(path: Path, count: int = 20, side: int = 12) -> Path:
    images = np.random.default_rng(7).integers(0, 256, (count, side, side), np.uint8)
    np.savez(path, images=images)
    return path


def test_images_of_one_s_own_are_asked_about_first_and_stay(server, run, tmp_path, monkeypatch) -> None:
    seen: list[np.ndarray] = []
    answer = server.answer
    server.answer = lambda images: seen.append(images) or answer(images)
    distill(server.url, guided(max_queries=100, samples=str(npz(tmp_path / "own.npz"))), run)
    own = np.load(tmp_path / "own.npz")["images"]
    asked = np.round(np.concatenate(seen)[PROBES : PROBES + 20, 0] * 255).astype(np.uint8)
    assert {image.tobytes() for image in asked} == {image.tobytes() for image in own}
    assert run.record()["samples"]["count"] == 20


def test_resumed_with_other_images_it_is_refused(server, tmp_path, monkeypatch) -> None:
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    chosen = guided(max_queries=160, steps=12, samples=str(npz(tmp_path / "own.npz")))
    distill(server.url, chosen, whole)
    interrupted(server.url, parts, 5, monkeypatch, chosen)
    npz(tmp_path / "own.npz", 21)
    with pytest.raises(BadRun, match="other images than it began with"):
        distill(server.url, chosen, parts, resume=True)
    npz(tmp_path / "own.npz")
    distill(server.url, chosen, parts, resume=True)
    assert weights(parts) == weights(whole)


def test_a_folder_of_images_is_scaled_to_the_teacher_s_size(tmp_path) -> None:
    from PIL import Image

    (tmp_path / "in" / "deeper").mkdir(parents=True)
    Image.new("RGB", (30, 50), (255, 255, 255)).save(tmp_path / "in" / "a.png")
    Image.new("L", (9, 9), 51).save(tmp_path / "in" / "deeper" / "b.jpg", quality=100)
    (tmp_path / "in" / "notes.txt").write_text("not an image")
    found = read_proxies(tmp_path / "in", (1, 12, 12), 0.0, 1.0)
    assert found.shape == (2, 1, 12, 12)
    assert sorted(found.mean(axis=(1, 2, 3)).round().tolist()) == [51, 255]
    assert read_proxies(tmp_path / "in", (3, 8, 6), 0.0, 1.0).shape == (2, 3, 8, 6)


def test_floats_of_an_npz_are_rounded_to_codes_in_the_teacher_s_range(tmp_path) -> None:
    images = np.linspace(-1, 1, 2 * 4 * 4, dtype=np.float32).reshape(2, 4, 4, 1)
    np.savez(tmp_path / "f.npz", images=images)
    found = read_proxies(tmp_path / "f.npz", (1, 4, 4), -1.0, 1.0)
    assert (found.min(), found.max(), found.shape) == (0, 255, (2, 1, 4, 4))


def bad(path: Path, kind: str) -> Path:
    if kind == "folder":
        path.mkdir()
    elif kind == "broken":
        path.mkdir()
        (path / "a.png").write_bytes(b"\x89PNG, or so it says")
    elif kind == "size":
        npz(path, side=8)
    elif kind == "range":
        np.savez(path, images=np.full((2, 12, 12), 3, np.float32))
    return path


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("empty", "folder", "it holds no images; allowed: a folder of images"),
        ("odd", "broken", "a.png: not readable as an image"),
        ("small.npz", "size", r"images have shape \[N, 1, 8, 8\]; allowed: \[N, 1, 12, 12\]"),
        ("far.npz", "range", "values from 3 to 3; allowed: the teacher's 0 to 1, or uint8"),
        ("gone.npz", "", "no such file"),
        ("gone", "", "no folder, and no .npz"),
    ],
)
def test_images_that_cannot_be_used_are_refused_before_anything_is_written(
    teacher_file, run, tmp_path, name, kind, said
) -> None:
    with pytest.raises(BadData, match=said):
        distill(teacher_file, guided(access="scores", samples=str(bad(tmp_path / name, kind))), run)
    assert not run.path.exists()


def test_a_recipe_without_procedural_images_has_no_place_for_them(teacher_file, run, tmp_path) -> None:
    chosen = settings(samples=str(npz(tmp_path / "own.npz")), recipe={"prior": 0, "prior_share": 0.0})
    with pytest.raises(BadSetting, match=r"--samples: the recipe has no place"):
        distill(teacher_file, chosen, run)


# -------------------------------------------------------------------------------------------------------- bare labels


def test_a_bare_label_is_smoothed_by_what_its_neighbours_were_called() -> None:
    import torch

    sure = torch.tensor([[0.9, 0.1], [0.1, 0.9]]).log()
    known = torch.stack([torch.zeros(1, 8, 8)] * 5 + [torch.ones(1, 8, 8)] * 5)
    theirs = sure[[0, 0, 0, 1, 1] + [1] * 5]
    images = torch.stack([torch.full((1, 8, 8), 0.1), torch.full((1, 8, 8), 0.9)])
    found = smoothed(sure, images, known, theirs, 0.5).softmax(dim=1)
    expected = torch.tensor([[0.5 * 0.9 + 0.5 * 0.58, 0.5 * 0.1 + 0.5 * 0.42], [0.1, 0.9]])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("access", "expected"), [("labels", 0.3), ("scores", 0.0)])
def test_scores_are_left_as_they_are(teacher_file, run, monkeypatch, access, expected) -> None:
    shares: list[float] = []
    monkeypatch.setattr("edgekd.training.smoothed", lambda t, i, k, o, share: shares.append(share) or t)
    distill(teacher_file, guided(access=access, recipe={"smoothing": 0.3}), run)
    assert set(shares) == ({expected} if expected else set())


@pytest.mark.parametrize(
    ("access", "often", "expected"), [("labels", 0, 0.07), ("labels", 10**6, None), ("scores", 0, None)]
)
def test_only_images_of_bare_labels_that_were_learned_often_are_moved(
    teacher_file, run, monkeypatch, access, often, expected
) -> None:
    shares: list[float] = []
    monkeypatch.setattr("edgekd.training.OFTEN", often)
    monkeypatch.setattr("edgekd.training.jittered", lambda images, share, _: shares.append(share) or images)
    distill(teacher_file, guided(access=access), run)
    assert set(shares) == ({expected} if expected else set())
    assert run.record()["settings"]["recipe"]["jitter"] == (0.07 if access == "labels" else 0.0)
