"""Where training takes place. The "meta" device stands in for a GPU: it has no values, and does not mix with a CPU."""

from contextlib import nullcontext

import pytest
import torch
from test_distill import SHORT_ROUNDS, interrupted, settings

from edgekd import machine
from edgekd.distill import distill
from edgekd.errors import CannotLoad
from edgekd.networks import Standardized, build_student
from edgekd.networks.generators import Generator
from edgekd.networks.headers import Headers
from edgekd.networks.joined import Parts, contiguous
from edgekd.networks.latents import GaussianLatents, NoisyLatents
from edgekd.objectives import METHODS
from edgekd.teachers.graph import GraphTeacher
from edgekd.teachers.last_layer import with_representation
from edgekd.teachers.lesson import lesson_of
from edgekd.teachers.spec import read_spec
from edgekd.training import Training

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")


@without_gpu
def test_a_gpu_that_is_not_there_is_refused_and_auto_does_without(teacher_file, run):
    assert machine.chosen_device("auto") == torch.device("cpu")
    with pytest.raises(CannotLoad, match="no CUDA GPU"):
        distill(teacher_file, settings(device="cuda"), run)
    assert not run.path.exists()


@without_gpu
def test_the_command_says_so_in_one_line(call, teacher_file):
    done = call("distill", teacher_file, "--device", "cuda")
    assert (done.code, done.out) == (3, "")
    assert done.err.count("\n") == 1
    assert "no CUDA GPU" in done.err


def test_the_device_is_recorded_and_may_change_on_resume(teacher_file, run, monkeypatch):
    interrupted(teacher_file, run, 3, monkeypatch)
    assert (run.record()["host"]["device"], run.record()["settings"]["device"]) == ("cpu", "auto")
    distill(teacher_file, settings(device="cpu"), run, resume=True)
    assert (run.record()["state"], run.record()["settings"]["device"]) == ("finished", "cpu")


# What chooses its questions by doubt has to wait for what the student says of each.
@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if not method.recipe.asked])
def test_all_of_a_round_lies_on_one_device_and_no_step_waits_for_it(method, teacher_file, monkeypatch):
    """Networks, banks, procedural images, random numbers. What asks for a value, and so waits, fails: there is none."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    chosen = METHODS[method]
    recipe = chosen.recipe.model_copy(update=SHORT_ROUNDS | {"keep": "every"})
    if not recipe.share_batch and recipe.prior:
        recipe = recipe.model_copy(update={"prior": 64})
    spec = read_spec(teacher_file)
    parts = Parts(contiguous(8, chosen.students)) if chosen.students else None
    teacher = GraphTeacher(with_representation(spec, None) if parts else spec)
    teacher.to("meta")
    with torch.device("meta"):
        headers = Headers(chosen.headers, 2) if chosen.headers else None
        network = build_student("cnn-small", 0.25, (1, 12, 12), 4, headers=headers, parts=parts)
        student, teachers = Standardized(network, [0.5], [0.2]), [teacher] * (2 if headers else 1)
        kind = (NoisyLatents, (8, 4, 10)) if recipe.noisy else (GaussianLatents, (8, 10))
        latents = kind[0](*kind[1])
        ends = {"low": 0.0, "high": 1.0, "output": recipe.output}
        generator = Generator(latents, (1, 12, 12), 4, mean=[0.5], std=[0.2], **ends)
        objective = chosen.objective(recipe, lesson_of(teachers, student.header, *student.cut))
        training = Training(teachers, student, generator, objective, recipe)
        assert training.device.type == "meta"
        if recipe.prior:
            assert training.ask_about_prior()
        for step in range(2):
            training.begin_round(0.5 + step / 10)
            images, logits, _ = training.generator_round(lambda: False)
            terms = training.student_step(*((images, logits) if recipe.share_batch else training.diet()))
            assert {value.device.type for value in (images, logits, *terms.values())} == {"meta"}
    kept = (training.bank, training.prior, training.held_out)
    assert {part.device.type for bank in kept for part in (bank.codes, bank.targets)} == {"meta"}
