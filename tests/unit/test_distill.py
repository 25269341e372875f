"""The loop on a small real teacher: what it writes, how it resumes, what it refuses."""

import itertools
import json
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxsim
import pytest
from tiny_teacher import classifier

from edgekd.config import DistillSettings
from edgekd.devices import load_recipe, load_target
from edgekd.distill import distill, resolve_settings
from edgekd.errors import BadModel, BadRun, BadSetting, EdgekdError, UnknownName
from edgekd.export import export
from edgekd.inference import agreement, logits
from edgekd.run_folder import RunFolder
from edgekd.settings import DEFAULT_MINUTES, suited
from edgekd.teachers import Signal
from edgekd.training import Training

SMALL = {
    **{"generator_batch": 32, "student_batch": 32, "student_steps": 2, "bank": 256, "prior": 64, "prior_share": 0.25},
    **{"latent": 8, "generator_width": 8, "children": 0},
}


def settings(**changes: object) -> DistillSettings:
    recipe = SMALL | changes.pop("recipe", {})  # type: ignore[operator]
    return resolve_settings({"steps": 6, "threads": 1, "recipe": recipe} | changes)


def exported(teacher: Path, **changes: object) -> tuple[RunFolder, dict[str, Any]]:
    """A run beside its teacher that learned for a while and was exported to INT8 too, and the record of that."""
    run = RunFolder(teacher.parent / "run")
    distill(teacher, settings(steps=60, recipe={"statistics": 0.0}, **changes), run)
    recipe = load_recipe("minmax").model_copy(update={"samples": 64})
    return run, export(run, int8=True, target=load_target("cpu"), recipe=recipe)


def test_a_run_leaves_everything_the_next_stages_read(teacher_file, run):
    seen = []
    distill(teacher_file, settings(recipe={"adversary": 1.0}), run, watch=seen.append)
    record = run.record()
    assert record["state"] == "finished"
    assert record["progress"]["step"] == 6
    assert record["teacher"]["classes"] == 4
    assert record["student"]["parameters"] > 0
    assert [line["step"] for line in map(json.loads, run.metrics_file.read_text().splitlines())][-1] == 6
    assert seen[-1].fraction == 1.0
    assert set(seen[-1].losses) == {"one_hot", "entropy", "statistics", "adversary", "soft_labels"}
    assert (run.samples / "final.png").read_bytes().startswith(b"\x89PNG")
    assert run.student_weights.is_file()
    assert run.generator_weights.is_file()


def test_held_out_answers_are_onnx_runtime_s_own(teacher_file, run):
    distill(teacher_file, settings(), run)
    held_out = run.held_out()
    assert len(held_out.codes) == 6  # one of 32 at each of six steps
    expected = logits(teacher_file, held_out.images())
    np.testing.assert_allclose(held_out.logits, expected, rtol=1e-4, atol=1e-4)
    assert agreement(held_out.logits, expected) == 1.0


def test_procedural_images_are_left_for_calibration(teacher_file, run):
    import torch

    distill(teacher_file, settings(), run)
    prior = torch.load(run.checkpoint_file, weights_only=True)["parts"]["prior"]["codes"].numpy()
    left = run.procedural(prior.shape[1:])
    assert {image.tobytes() for image in left} == {image.tobytes() for image in prior}


def test_procedural_images_follow_the_normalization_where_the_recipe_says_so(teacher_file, tmp_path):
    dark = {"mean": (0.13,), "std": (0.31,)}

    def brightness(mixed):
        run = RunFolder(tmp_path / f"mixed-{mixed}")
        distill(teacher_file, settings(steps=1, recipe={"prior": 256, "prior_mixed": mixed}, **dark), run)
        return run.procedural((1, 12, 12)).mean() / 255

    assert brightness(True) < 0.25
    assert brightness(False) > 0.3


def test_the_published_method_runs_without_a_bank(teacher_file, run):
    small = {"generator_batch": 16, "student_batch": 16, "latent": 8, "generator_width": 4}
    distill(teacher_file, resolve_settings({"method": "dafl", "steps": 2, "recipe": small}), run)
    assert run.record()["progress"]["images"] == 2 * 15


SHORT_ROUNDS = {"generator_steps": 3, "student_steps": 4, "latent": 8, "generator_width": 4, "bank": 64} | {
    **{"generator_batch": 10, "student_batch": 16, "generator_life": 2, "warm_up": 0.3},
}


def test_a_method_of_long_rounds_resumes_to_the_same_bits(teacher_file, tmp_path, monkeypatch):
    """NAYER's: a noisy layer, the best of a round's batches, a generator that is born again, images that move."""
    chosen = resolve_settings({"method": "nayer-style", "steps": 6, "threads": 1, "recipe": SHORT_ROUNDS})
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    distill(teacher_file, chosen, whole)
    assert whole.record()["progress"]["images"] == 4 * 4 * 16  # two of six rounds warm up
    assert len(whole.held_out().codes) == 6  # of the one batch that a round keeps
    interrupted(teacher_file, parts, 3, monkeypatch, chosen)
    distill(teacher_file, chosen, parts, resume=True)
    assert weights(parts) == weights(whole)


def test_the_best_of_a_round_s_batches_is_kept(teacher_file, run, monkeypatch):
    made, kept = [], []
    step, keep = Training.generator_step, Training.keep
    monkeypatch.setattr(Training, "generator_step", lambda self: made.append(step(self)) or made[-1])
    monkeypatch.setattr(Training, "keep", lambda self, *batch: kept.append(batch) or keep(self, *batch))
    distill(teacher_file, resolve_settings({"method": "nayer-style", "steps": 2, "recipe": SHORT_ROUNDS}), run)
    best = [min(made[i : i + 3], key=lambda batch: sum(batch[2].values())) for i in (0, 3)]
    assert [batch[0] is images for batch, (images, _) in zip(best, kept, strict=True)] == [True, True]


def test_time_that_is_up_ends_a_long_round(teacher_file, run):
    recipe = SHORT_ROUNDS | {"generator_steps": 10**9, "warm_up": 0.0}
    distill(teacher_file, resolve_settings({"method": "nayer-style", "minutes": 0.02, "recipe": recipe}), run)
    assert run.record()["state"] == "finished"


def test_wanted_classes_need_a_teacher_of_classes(tmp_path, run):
    onnx.save(classifier(columns=1, ending="Sigmoid"), tmp_path / "binary.onnx")
    with pytest.raises(BadSetting, match=r"the teacher's task is binary"):
        distill(tmp_path / "binary.onnx", settings(recipe={"noisy": True}), run)
    assert not run.path.exists()


ONE_CLASS = {"one_hot": 1.0, "entropy": 0.0, "statistics": 0.0, "adversary": 0.0, "generator_rate": 0.05}


@pytest.mark.slow
@pytest.mark.parametrize(("revivals", "then"), [(0, "expect a weaker student"), (1, "the generator begins anew")])
def test_a_collapse_is_told_and_cured_as_often_as_the_recipe_says(teacher_file, run, revivals, then):
    """Without anything that asks for all classes, the generator of one_hot alone ends in a few of them."""
    recipe = ONE_CLASS | {"generator_batch": 64, "generator_steps": 64, "revivals": revivals}
    seen = []
    distill(teacher_file, settings(recipe=recipe, steps=5), run, watch=seen.append)
    told = [progress.message for progress in seen if "collapsed" in (progress.message or "")]
    assert then in told[0]
    assert "few classes" in told[0]
    assert run.record()["progress"]["collapses"] == len(told)
    lines = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    assert {"diversity", "disagreement", "class_entropy"} <= set(lines[-1])


def weights(run: RunFolder) -> bytes:
    """What a run leaves behind for later stages, byte by byte."""
    files = (run.student_weights, run.generator_weights, run.held_out_file, run.procedural_file)
    return b"".join(file.read_bytes() for file in files if file.is_file())


def interrupted(
    teacher: Path, run: RunFolder, at: int, monkeypatch: pytest.MonkeyPatch, chosen: DistillSettings | None = None
) -> None:
    """Send Ctrl-C in the middle of round `at`, between the generator's step and the student's."""
    real = Training.keep

    def keep(self: Training, *arguments: object) -> object:
        if self.step == at - 1:
            signal.raise_signal(signal.SIGINT)
        return real(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "keep", keep)
        with pytest.raises(KeyboardInterrupt):
            distill(teacher, chosen or settings(), run)


def test_an_interrupted_run_resumes_to_the_same_bits(teacher_file, tmp_path, monkeypatch):
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    distill(teacher_file, settings(), whole)
    interrupted(teacher_file, parts, 3, monkeypatch)
    assert parts.record()["state"] == "interrupted"
    assert parts.record()["progress"]["step"] == 3
    distill(teacher_file, settings(), parts, resume=True)
    assert weights(parts) == weights(whole)
    assert parts.record()["started"] != whole.record()["started"]
    assert parts.record()["progress"]["step"] == 6


def test_the_shortest_run_still_makes_a_round(teacher_file, run):
    recipe = SMALL | {"prior": 4096}
    distill(teacher_file, resolve_settings({"minutes": 1e-6, "recipe": recipe}), run)
    assert run.record()["progress"]["step"] == 1
    assert len(run.held_out().codes) == 1


def test_minutes_may_be_those_of_the_cpu(teacher_file, run, monkeypatch):
    """The wall stands still here: only CPU time can end the run, and it is told of in the run's record."""
    monkeypatch.setattr("edgekd.distill.time.monotonic", lambda: 0.0)
    monkeypatch.setattr("edgekd.distill.time.process_time", itertools.count(step=0.1).__next__)
    distill(teacher_file, resolve_settings({"minutes": 0.1, "clock": "cpu", "recipe": SMALL}), run)
    record = run.record()
    assert (record["settings"]["clock"], record["progress"]["step"] > 1) == ("cpu", True)
    assert 6 < record["progress"]["seconds"] < 7


def test_another_seed_gives_another_student(teacher_file, tmp_path):
    first, second = RunFolder(tmp_path / "a"), RunFolder(tmp_path / "b")
    distill(teacher_file, settings(), first)
    distill(teacher_file, settings(seed=1), second)
    assert weights(first) != weights(second)


def test_an_existing_run_is_kept_unless_told_otherwise(teacher_file, run):
    distill(teacher_file, settings(), run)
    before = weights(run)
    with pytest.raises(BadRun, match="exists already"):
        distill(teacher_file, settings(seed=5), run)
    assert weights(run) == before
    distill(teacher_file, settings(seed=5), run, overwrite=True)
    assert weights(run) != before


def test_overwrite_never_removes_what_is_no_run(teacher_file, run):
    run.path.mkdir()
    (run.path / "thesis.txt").write_text("years of work")
    with pytest.raises(BadRun, match="not a run folder"):
        distill(teacher_file, settings(), run, overwrite=True)
    assert (run.path / "thesis.txt").read_text() == "years of work"


def test_resume_refuses_another_teacher(teacher_file, run, tmp_path, monkeypatch):
    interrupted(teacher_file, run, 2, monkeypatch)
    onnx.save(classifier(seed=9), tmp_path / "other.onnx")
    with pytest.raises(BadRun, match="another teacher"):
        distill(tmp_path / "other.onnx", settings(), run, resume=True)


def test_resume_refuses_other_settings_and_names_them(teacher_file, run, monkeypatch):
    interrupted(teacher_file, run, 2, monkeypatch)
    with pytest.raises(BadRun, match="seed 0 -> 7"):
        distill(teacher_file, settings(seed=7), run, resume=True)


@pytest.mark.parametrize("content", [b"", b"garbage", b"Rubbish", b"tttt", b"PK\x03\x04 cut short"])
def test_resume_refuses_a_corrupted_checkpoint(teacher_file, run, monkeypatch, content):
    interrupted(teacher_file, run, 2, monkeypatch)
    run.checkpoint_file.write_bytes(content)
    with pytest.raises(BadRun, match=r"checkpoint\.pt: the checkpoint is damaged"):
        distill(teacher_file, settings(), run, resume=True)


def test_a_checkpoint_that_runs_code_is_refused(teacher_file, run, monkeypatch):
    import torch

    class Evil:
        def __reduce__(self):
            return (exec, ("raise SystemExit('code ran')",))

    interrupted(teacher_file, run, 2, monkeypatch)
    torch.save({"parts": Evil()}, run.checkpoint_file)
    with pytest.raises(BadRun, match="damaged"):
        distill(teacher_file, settings(), run, resume=True)


def test_lines_after_the_last_checkpoint_are_dropped_on_resume(teacher_file, run, monkeypatch):
    interrupted(teacher_file, run, 2, monkeypatch)
    with run.metrics_file.open("a") as file:
        file.write('{"step": 5}\n{"step": 6, "sec')
    distill(teacher_file, settings(), run, resume=True)
    steps = [json.loads(line)["step"] for line in run.metrics_file.read_text().splitlines()]
    assert steps == sorted(set(steps))


def test_a_full_disk_is_one_clear_error_and_keeps_the_last_checkpoint(teacher_file, run, monkeypatch):
    import errno

    interrupted(teacher_file, run, 2, monkeypatch)
    before = run.checkpoint_file.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(EdgekdError, match="No space left on device") as caught:
            distill(teacher_file, settings(), run, resume=True)
    assert caught.value.exit_code == 4
    assert run.checkpoint_file.read_bytes() == before
    assert not list(run.path.rglob(".*"))
    distill(teacher_file, settings(), run, resume=True)


def test_a_disk_that_fills_up_while_torch_writes(teacher_file, run, monkeypatch):
    """A limit on the size of files stands in for the disk: the failure comes from the kernel, not from a patch."""
    import resource

    interrupted(teacher_file, run, 2, monkeypatch)
    before, limits = run.checkpoint_file.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(EdgekdError, match=r"checkpoint\.pt: cannot be written"):
            distill(teacher_file, settings(), run, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert run.checkpoint_file.read_bytes() == before
    distill(teacher_file, settings(), run, resume=True)


def test_ctrl_c_while_the_teacher_is_asked_leaves_a_resumable_run(teacher_file, tmp_path, monkeypatch):
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    recipe = {"prior": 600}
    distill(teacher_file, settings(recipe=recipe), whole)
    real = Training.ask_about_prior

    def ask(self: Training, most: float) -> bool:
        signal.raise_signal(signal.SIGINT)
        return real(self, most)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "ask_about_prior", ask)
        with pytest.raises(KeyboardInterrupt):
            distill(teacher_file, settings(recipe=recipe), parts)
    distill(teacher_file, settings(recipe=recipe), parts, resume=True)
    assert weights(parts) == weights(whole)


def test_a_run_killed_before_its_first_checkpoint_starts_from_its_beginning(teacher_file, tmp_path, monkeypatch):
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    distill(teacher_file, settings(), whole)
    interrupted(teacher_file, parts, 3, monkeypatch)
    parts.checkpoint_file.rename(parts.path / ".checkpoint.pt.abcdefgh")
    distill(teacher_file, settings(), parts, resume=True)
    assert weights(parts) == weights(whole)
    assert not list(parts.path.rglob(".*"))


def own_student(shape, classes, width):
    import torch

    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(shape[1] * shape[2], 3))


def test_a_student_of_one_s_own_is_tried_before_anything_is_written(teacher_file, run, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "own", sys.modules[__name__])
    with pytest.raises(BadSetting, match=r"student: it answers \[2, 3\] to two images"):
        distill(teacher_file, settings(student="own:own_student"), run)
    assert not run.path.exists()


def test_resuming_runs_no_code_that_only_the_run_folder_names(teacher_file, run, monkeypatch):
    interrupted(teacher_file, run, 2, monkeypatch)
    record = run.record()
    run.record_file.write_text(json.dumps(record | {"settings": record["settings"] | {"student": "evil:code"}}))
    with pytest.raises(BadRun, match="say --student evil:code"):
        resolve_settings({}, run=run)


def test_a_recipe_without_any_weight_is_refused(teacher_file, run):
    nothing = {"one_hot": 0, "entropy": 0, "statistics": 0, "adversary": 0}
    with pytest.raises(BadSetting, match="every weight of the generator's loss is zero"):
        distill(teacher_file, settings(recipe=nothing), run)


def test_statistics_alone_need_a_teacher_that_has_them(run, tmp_path):
    onnx.save(classifier(batch_norm=False), tmp_path / "plain.onnx")
    alone = {"one_hot": 0, "entropy": 0, "statistics": 1, "adversary": 0}
    with pytest.raises(BadModel, match="needs statistics"):
        distill(tmp_path / "plain.onnx", settings(recipe=alone), run)


def test_overwrite_never_removes_the_teacher(teacher_file, run):
    distill(teacher_file, settings(), run)
    inside = shutil.copy(teacher_file, run.path / "teacher.onnx")
    with pytest.raises(BadRun, match="the teacher lies in the run"):
        distill(Path(inside), settings(), run, overwrite=True)
    assert Path(inside).is_file()


def test_losses_that_are_not_finite_stop_the_run(teacher_file, run):
    with pytest.raises(EdgekdError, match="no longer finite"):
        distill(teacher_file, settings(recipe={"student_rate": 1e30}), run)
    assert run.record()["state"] == "failed"


def test_a_refused_teacher_leaves_nothing(run, tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"not onnx")
    with pytest.raises(BadModel):
        distill(tmp_path / "bad.onnx", settings(), run)
    assert not run.path.exists()


def test_a_teacher_without_statistics_still_works(run, tmp_path):
    onnx.save(classifier(batch_norm=False), tmp_path / "plain.onnx")
    seen = []
    distill(tmp_path / "plain.onnx", settings(), run, watch=seen.append)
    assert any("no batch-norm statistics" in (progress.message or "") for progress in seen)
    assert "statistics" not in json.loads(run.metrics_file.read_text().splitlines()[-1])


def test_a_folded_batch_norm_leaves_a_prior(run, tmp_path):
    onnx.save(onnxsim.simplify(classifier(centred=True))[0], tmp_path / "folded.onnx")
    seen = []
    distill(tmp_path / "folded.onnx", settings(), run, watch=seen.append)
    assert any("scale-free prior" in (progress.message or "") for progress in seen)
    assert json.loads(run.metrics_file.read_text().splitlines()[-1])["statistics"] > 0
    assert "statistics_prior" in run.record()["signals"]


def test_checkpoints_that_take_long_are_written_less_often(teacher_file, tmp_path, monkeypatch):
    """By a clock of our own, on which every look takes a second and a checkpoint what we say."""
    now, counts = [0.0], []

    def look(takes: float = 1.0) -> float:
        now[0] += takes
        return now[0]

    for module in ("distill", "journal", "pace"):
        monkeypatch.setattr(f"edgekd.{module}.time", SimpleNamespace(monotonic=look))
    for takes in (1.0, 30.0):
        written = []
        monkeypatch.setattr("edgekd.distill._save", lambda *_, w=written, s=takes: w.append(look(s)))
        distill(teacher_file, settings(steps=12), RunFolder(tmp_path / f"{takes}"), checkpoint_seconds=4)
        counts.append(len(written))
    assert counts == [8, 3]  # the first and the last among them


def test_settings_come_from_flags_before_file_before_method(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text("seed = 3\nminutes = 1.5\n[recipe]\none_hot = 0.5\nentropy = 2.0\n")
    found = resolve_settings({"seed": 4, "recipe": {"one_hot": 0.25}}, file)
    assert (found.seed, found.minutes) == (4, 1.5)
    assert (found.recipe.one_hot, found.recipe.entropy, found.recipe.latent) == (0.25, 2.0, 100)
    assert resolve_settings({"steps": 7}, file).minutes is None
    assert resolve_settings({}).minutes == DEFAULT_MINUTES


def test_every_wrong_setting_is_reported_at_once(tmp_path):
    with pytest.raises(BadSetting, match=r"recipe\.bank.*recipe\.colour.*seed"):
        resolve_settings({"seed": -1, "recipe": {"bank": -2, "colour": 1}})
    with pytest.raises(UnknownName, match="did you mean dafl"):
        resolve_settings({"method": "dalf"})


def test_resumed_settings_are_those_of_the_run(teacher_file, run, monkeypatch):
    interrupted(teacher_file, run, 2, monkeypatch)
    assert resolve_settings({}, run=run) == suited(settings(), [frozenset({Signal.GRADIENT})])
    shutil.rmtree(run.path)
