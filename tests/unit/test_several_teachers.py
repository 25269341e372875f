"""Several teachers, a student with a header for each: what is written, how it resumes, in which order classes are."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from test_distill import SMALL, interrupted, settings, weights
from tiny_teacher import classifier

from edgekd import networks
from edgekd.config import DistillSettings, Reach
from edgekd.distill import distill
from edgekd.errors import BadData, BadModel, BadRun, BadSetting
from edgekd.inference import logits
from edgekd.run_folder import RunFolder
from edgekd.settings import resolve_settings
from edgekd.teachers.classes import class_names, order_of, read_order
from edgekd.training import Training


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    """Teachers of other weights and, the second, without batch normalization."""
    for name, model in (("a", classifier()), ("b", classifier(seed=1, batch_norm=False))):
        onnx.save(model, tmp_path / f"{name}.onnx")
    return [tmp_path / "a.onnx", tmp_path / "b.onnx"]


def mfs(**changes: object) -> DistillSettings:
    return settings(**({"method": "cdfkd-mfs"} | changes))


@pytest.mark.parametrize("kind", [None, "plain"])
def test_a_run_leaves_a_student_with_a_header_for_every_teacher(two, run, kind):
    seen = []
    distill(two, mfs(headers=kind), run, watch=seen.append)
    record = run.record()
    assert record["student"]["headers"] == {"kind": kind or "shared", "count": 2}
    assert record["progress"]["step"] == 6
    terms = {"heads", "features", "ensemble", "one_hot", "entropy", "adversary", "statistics"}
    assert set(seen[-1].losses) == terms
    student = networks.load_student(record, run.student_weights)
    assert record["student"]["parameters"] == networks.parameters(student)
    images = torch.rand(3, 1, 12, 12)
    torch.testing.assert_close(student(images), student.answer(images)[..., :4].mean(dim=1))


def test_held_out_answers_are_the_teachers_mean(two, run):
    distill(two, mfs(), run)
    held = run.held_out()
    expected = (logits(two[0], held.images()) + logits(two[1], held.images())) / 2
    np.testing.assert_allclose(held.logits, expected, rtol=1e-4, atol=1e-4)


def test_each_header_learns_from_its_own_teacher(two, run):
    """Two teachers that contradict each other: each header takes after its own and not after the other."""
    steps = {"steps": 60, "recipe": {"ensemble": 0.0, "features": 0.0}}
    distill(two, mfs(headers="plain", **steps), run)
    student, images = networks.load_student(run.record(), run.student_weights), run.held_out().images()
    with torch.no_grad():
        own = student.answer(torch.from_numpy(images))[..., :4].numpy()
    theirs = [logits(teacher, images) for teacher in two]
    near = [[np.abs(own[:, h] - theirs[k]).mean() for k in range(2)] for h in range(2)]
    assert near[0][0] < near[0][1]
    assert near[1][1] < near[1][0]


@pytest.mark.parametrize("method", ["cdfkd-mfs", "cdfkd"])
def test_an_interrupted_run_resumes_to_the_same_bits(two, tmp_path, monkeypatch, method):
    """With projections, which are learned as well, and with batches that are generated anew."""
    fresh = {"bank": 0, "prior": 0, "prior_share": 0.0, "statistics": 0.0} if method == "cdfkd" else {}
    chosen = settings(method=method, width=0.125, recipe=fresh)
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    distill(two, chosen, whole)
    interrupted(two, parts, 3, monkeypatch, chosen)
    distill(two, chosen, parts, resume=True)
    assert weights(parts) == weights(whole)
    objective = torch.load(whole.checkpoint_file, weights_only=True)["parts"]["objective"]
    assert bool(objective) == (method == "cdfkd-mfs")


def test_fresh_batches_are_generated_for_every_step(two, run, monkeypatch):
    seen = []
    step = Training.student_step
    monkeypatch.setattr(Training, "student_step", lambda self, *batch: seen.append(batch) or step(self, *batch))
    recipe = SMALL | {"bank": 0, "prior": 0, "prior_share": 0.0, "student_steps": 3}
    distill(two, settings(method="cdfkd", steps=2, recipe=recipe), run)
    assert [len(images) for images, _ in seen] == [32] * 6
    assert all(not torch.equal(one[0], other[0]) for one, other in pairwise(seen))
    images, target = seen[-1]
    expected = [logits(teacher, images.contiguous().numpy()) for teacher in two]
    np.testing.assert_allclose(target[:, :8].numpy(), np.concatenate(expected, axis=1), rtol=0.05, atol=0.1)


@pytest.mark.parametrize(
    "with_it", [{"bank": 64}, {"prior": 64, "prior_share": 0.5}, {"shift": 2}, {"share_batch": True}]
)
def test_fresh_batches_are_neither_kept_nor_moved(with_it):
    with pytest.raises(BadSetting, match="fresh batches go with neither"):
        resolve_settings({"method": "cdfkd", "recipe": with_it})


# ----------------------------------------------------------------------------------------------- access levels

ASKED = {"access": "scores", "gradient": "estimate", "directions": 2}


def test_teachers_that_are_only_asked_are_counted_and_resumed_as_any(two, tmp_path, monkeypatch):
    chosen = mfs(recipe={"features": 0.0}, **ASKED)
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    distill(two, chosen, whole)
    # Two teachers, 64 procedural images, and in each of six rounds 32 images with two directions each.
    assert whole.record()["queries"]["asked"] == 2 * (64 + 6 * 32 * 3)
    interrupted(two, parts, 3, monkeypatch, chosen)
    distill(two, chosen, parts, resume=True)
    assert weights(parts) == weights(whole)
    assert parts.record()["queries"]["asked"] == whole.record()["queries"]["asked"]


def test_features_of_a_teacher_that_is_only_asked_are_refused_with_the_cure(two, run):
    with pytest.raises(BadModel, match=r"a\.onnx: its features .* it offers none; do without: --set features=0"):
        distill(two, mfs(**ASKED), run)
    assert not run.path.exists()


FUNCTION = """import numpy as np
def answer(images):
    means = images.reshape(len(images), 4, -1).mean(axis=2)
    return 8 * (means - means.mean(axis=1, keepdims=True)).astype(np.float32)
"""


def test_an_estimate_is_for_those_that_need_one(two, run, tmp_path, monkeypatch):
    """A file keeps its exact gradient and is not counted beside a function, which is asked."""
    (tmp_path / "asked_of_mine.py").write_text(FUNCTION)
    monkeypatch.chdir(tmp_path)
    chosen = mfs(recipe={"features": 0.0}, gradient="estimate", directions=2, input_shape=(1, 12, 12))
    seen = []
    reach = Reach(trust_callable=True)
    distill([two[0], "python:asked_of_mine:answer"], chosen, run, watch=seen.append, reach=reach)
    record = run.record()
    assert [one["access"] for one in (record["teacher"], *record["more_teachers"])] == ["gradient", "scores"]
    assert record["queries"]["asked"] == 4 + 64 + 6 * 32 * 3  # probes, procedural images, six rounds
    assert "statistics" in seen[-1].losses  # of the file alone


@pytest.mark.parametrize("told", [{"gradient": "estimate"}, {"max_queries": 100}])
def test_what_is_said_of_asked_teachers_is_refused_where_there_is_none(two, run, told):
    with pytest.raises(BadSetting, match=r"allowed: (with )?--access scores"):
        distill(two, mfs(**told), run)


def test_a_limit_on_queries_ends_the_run_cleanly(two, run):
    distill(two, mfs(recipe={"features": 0.0}, max_queries=700, **ASKED), run)
    assert run.record()["state"] == "interrupted"
    assert run.record()["queries"]["asked"] <= 700


# ------------------------------------------------------------------------------------------------- order of classes


def permuted(order: list[int], names: list[str] | None = None, key: str = "names") -> onnx.ModelProto:
    """The first teacher, its columns in another order: column j is class order[j]."""
    model = classifier()
    for tensor in model.graph.initializer:
        if tensor.name in ("dense", "bias"):
            values = numpy_helper.to_array(tensor)[..., order]
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), tensor.name))
    if names:
        helper.set_model_props(model, {key: json.dumps(names)})
    return model


ORDER = [2, 0, 3, 1]
BACK = [ORDER.index(k) for k in range(4)]
NAMES = ["ant", "bee", "cat", "dog"]


@pytest.mark.parametrize("access", [{}, ASKED])
def test_a_class_order_puts_columns_where_they_belong(tmp_path, run, access):
    onnx.save(classifier(), tmp_path / "a.onnx")
    onnx.save(permuted(ORDER), tmp_path / "b.onnx")
    seen = []
    chosen = settings(class_order=[None, BACK], **access)
    distill([tmp_path / "a.onnx", tmp_path / "b.onnx"], chosen, run, watch=seen.append)
    held = run.held_out()
    np.testing.assert_allclose(held.logits, logits(tmp_path / "a.onnx", held.images()), rtol=1e-4, atol=1e-4)
    told = [progress.message for progress in seen if "the order you told" in (progress.message or "")]
    assert len(told) == 1
    assert "b.onnx" in told[0]


def test_names_in_another_order_are_put_in_that_of_the_first(tmp_path, run):
    onnx.save(permuted([0, 1, 2, 3], NAMES), tmp_path / "a.onnx")
    onnx.save(permuted(ORDER, [NAMES[k] for k in ORDER]), tmp_path / "b.onnx")
    seen = []
    distill([tmp_path / "a.onnx", tmp_path / "b.onnx"], settings(), run, watch=seen.append)
    held = run.held_out()
    np.testing.assert_allclose(held.logits, logits(tmp_path / "a.onnx", held.images()), rtol=1e-4, atol=1e-4)
    assert any("a.onnx" in (p.message or "") and "are put in the order of" in p.message for p in seen)


def test_other_names_are_refused_unless_the_user_tells_the_order(tmp_path, run):
    onnx.save(permuted([0, 1, 2, 3], NAMES), tmp_path / "a.onnx")
    onnx.save(permuted([0, 1, 2, 3], ["ant", "bee", "cow", "dog"]), tmp_path / "b.onnx")
    both = [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    with pytest.raises(
        BadModel, match=r"b\.onnx: it has a class 'cow', which .*a\.onnx does not name; .*--class-order"
    ):
        distill(both, settings(), run)
    assert not run.path.exists()
    distill(both, settings(class_order=[None, None]), run)
    assert run.record()["state"] == "finished"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('["a", "b"]', ("a", "b")),
        ("{0: 'a', 1: 'b'}", ("a", "b")),
        ('{"1": "b", "0": "a"}', ("a", "b")),
        ('["a", "a"]', None),
        ('["a", "b", "c"]', None),
        ("[1, 2]", None),
        ("a and b", None),
        ("__import__('os')", None),
        ("(" * 5000, None),
    ],
)
def test_names_of_classes_in_a_file(tmp_path, text, names):
    model = classifier(columns=2)
    helper.set_model_props(model, {"class_names": text, "author": "somebody"})
    onnx.save(model, tmp_path / "named.onnx")
    assert class_names(tmp_path / "named.onnx", 2) == names


def test_an_order_is_found_only_where_both_tell():
    assert order_of(None, NAMES, "b", "a") is None
    assert order_of(NAMES, None, "b", "a") is None
    assert order_of(NAMES, NAMES, "b", "a") is None
    assert order_of(NAMES, ["cat", "ant", "dog", "bee"], "b", "a") == (1, 3, 0, 2)


@pytest.mark.parametrize(
    ("orders", "said"),
    [
        ([None], "1 orders for 2 teachers"),
        ([None, [0, 1, 2]], "that of teacher 2 is no permutation of 4; allowed: for each teacher null or the numbers"),
        ([None, [0, 1, 2, 2]], "no permutation of 4"),
    ],
)
def test_an_order_that_is_none_is_refused(two, run, orders, said):
    with pytest.raises(BadSetting, match=said):
        distill(two, settings(class_order=orders), run)
    assert not run.path.exists()


@pytest.mark.parametrize("text", ["nonsense", "{}", "[1, 2]", "[[0, 1.5]]", "[[true, false]]", '["b"]'])
def test_a_file_of_another_kind_is_refused(tmp_path, text):
    (tmp_path / "order.json").write_text(text)
    with pytest.raises(BadData, match=r"allowed: JSON such as \[null, \[2, 0, 1\]\]"):
        read_order(tmp_path / "order.json")


def test_resume_refuses_another_order(two, run, monkeypatch):
    interrupted(two, run, 2, monkeypatch, settings(class_order=[None, BACK]))
    with pytest.raises(BadRun, match="class_order"):
        distill(two, settings(), run, resume=True)
