"""Distilling from teachers that are only asked: access levels, the ledger in a run, limits, several teachers."""

from __future__ import annotations

import json
import signal
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from calling import Call
from onnx import helper
from test_distill import SMALL, interrupted, settings, weights
from tiny_teacher import classifier

from edgekd import objectives
from edgekd.config import Reach
from edgekd.distill import distill
from edgekd.errors import BadModel, BadRun, BadSetting, EdgekdError
from edgekd.inference import logits
from edgekd.objectives import Method
from edgekd.objectives.dafl import Dafl
from edgekd.run_folder import RunFolder
from edgekd.teachers import Signal
from edgekd.training import Training

pytest.importorskip("httpx")

SET = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
ESTIMATE = {"access": "scores", "gradient": "estimate", "directions": 2}
PRIOR, BATCH, PROBES = SMALL["prior"], SMALL["generator_batch"], 4


class Plain(Dafl):
    """An objective that needs no gradient of a teacher: the generator only seeks disagreement among its own images."""

    def __init__(self, recipe: object, lesson: Any) -> None:
        self.needs, self.watches_student, self.kept = frozenset({Signal.LABELS}), True, lesson.answer

    def generator_terms(self, answers: Any, student: Any, labels: Any) -> dict[str, Any]:
        return {"spread": student.softmax(dim=1).mean(dim=0).square().sum()}

    def student_terms(self, student: Any, target: Any) -> dict[str, Any]:
        return {"match": (student - target).square().mean()}


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(objectives.METHODS, "plain", Method(Plain, objectives.METHODS["edgekd"].recipe))
    return "plain"


def messages(seen: list[Any]) -> str:
    return "\n".join(progress.message for progress in seen if progress.message)


# ----------------------------------------------------------------------------------------------------- access levels


def test_what_the_access_level_allows_is_told_before_the_run(teacher_file, tmp_path, plain) -> None:
    told = {}
    for access in ("auto", "scores", "labels"):
        seen: list[Any] = []
        run = RunFolder(tmp_path / access)
        distill(teacher_file, settings(access=access, method=plain), run, watch=seen.append)
        told[access] = messages(seen)
        assert run.record()["teacher"]["access"] == ("gradient" if access == "auto" else access)
    assert "access gradient: exact gradients, features, batch-norm statistics" in told["auto"]
    assert "access scores: only answers, each counted and kept in" in told["scores"]
    assert "access labels: only the label, taken as 90% sure" in told["labels"]


def test_of_labels_nothing_else_is_kept(teacher_file, run, plain) -> None:
    distill(teacher_file, settings(access="labels", method=plain), run)
    file = sqlite3.connect(run.ledger_file)
    kept = [np.frombuffer(row[0], np.float32) for row in file.execute("SELECT logits FROM answers")]
    file.close()
    assert len(np.unique(np.sort(kept, axis=1), axis=0)) == 1
    held = run.held_out()
    np.testing.assert_array_equal(held.logits.argmax(1), logits(teacher_file, held.images()).argmax(1))


def unsupported(folder: Path) -> Path:
    """What ONNX Runtime runs and no importer differentiates."""
    model = classifier(batch_norm=False)
    position = next(i for i, node in enumerate(model.graph.node) if node.op_type == "GlobalAveragePool")
    model.graph.node[position].input[0] = "odd"
    odd = helper.make_node("BiasGelu", ["r", "bias12"], ["odd"], "oddity", domain="com.microsoft")
    model.graph.node.insert(position, odd)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(12, np.float32), "bias12"))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, folder / "odd.onnx")
    return folder / "odd.onnx"


def test_auto_falls_back_to_scores_and_names_the_operators(run, tmp_path, plain) -> None:
    seen: list[Any] = []
    distill(unsupported(tmp_path), settings(method=plain), run, watch=seen.append)
    assert run.record()["teacher"]["access"] == "scores"
    lines = [line for line in messages(seen).splitlines() if "BiasGelu" in line]
    assert len(lines) == 1
    assert lines[0].startswith("no gradient, therefore access scores: ")
    assert "oddity" in lines[0]


def test_a_method_that_needs_a_gradient_is_refused_in_one_line_that_names_the_cure(run, tmp_path) -> None:
    with pytest.raises(BadModel, match=r"edgekd needs gradient.*only labels, scores; .*BiasGelu.*--gradient estimate"):
        distill(unsupported(tmp_path), settings(method="edgekd"), run)
    with pytest.raises(BadModel, match="BiasGelu"):
        distill(unsupported(tmp_path), settings(access="gradient"), run)
    assert not run.path.exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"access": "labels", "gradient": "estimate"}, "labels do not change between neighbouring images"),
        (
            {"access": "gradient", "gradient": "estimate"},
            "its exact gradient is at hand; allowed: with --access scores",
        ),
        ({"max_queries": 10}, "--max-queries: with an exact gradient nothing is counted"),
    ],
)
def test_what_makes_no_sense_together_is_refused(teacher_file, run, changes, said) -> None:
    with pytest.raises(BadSetting, match=said):
        distill(teacher_file, settings(**changes), run)
    assert not run.path.exists()


@pytest.mark.parametrize("method", ["edgekd", "dafl"])
def test_every_method_runs_on_an_estimated_gradient_unchanged(teacher_file, run, method) -> None:
    recipe = (
        SMALL | {"activation": 0.0} | ({"share_batch": True, "prior": 0, "prior_share": 0} if method == "dafl" else {})
    )
    distill(teacher_file, settings(method=method, recipe=recipe, **ESTIMATE), run)
    prior = 0 if method == "dafl" else PRIOR
    most = prior + 6 * BATCH * (1 + 2)  # a step beyond the range is no step, and its question was asked already
    assert 0.9 * most <= run.record()["queries"]["asked"] <= most


# -------------------------------------------------------------------------------------------- the ledger in a run


def test_an_estimated_run_interrupted_and_resumed_ends_in_the_same_bits_and_pays_nothing_twice(
    teacher_file, tmp_path, monkeypatch
) -> None:
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    chosen = settings(**ESTIMATE)
    distill(teacher_file, chosen, whole)
    monkeypatch.setattr("test_distill.settings", lambda: chosen)
    interrupted(teacher_file, parts, 3, monkeypatch)
    distill(teacher_file, chosen, parts, resume=True)
    assert weights(parts) == weights(whole)
    assert parts.record()["queries"] == whole.record()["queries"]


def test_a_run_killed_anywhere_asks_the_server_for_nothing_again(server, tmp_path, plain, monkeypatch) -> None:
    """The checkpoint is lost, the ledger is not: the resumed run repeats its questions to nobody."""
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    chosen = settings(method=plain)
    distill(server.url, chosen, whole)
    expected = server.asked
    assert whole.record()["queries"]["asked"] == expected == PROBES + PRIOR + 6 * BATCH
    server.asked = 0
    monkeypatch.setattr("test_distill.settings", lambda: chosen)
    interrupted(server.url, parts, 4, monkeypatch)
    parts.checkpoint_file.unlink()
    distill(server.url, chosen, parts, resume=True)
    assert weights(parts) == weights(whole)
    assert parts.record()["queries"]["asked"] == server.asked == expected


def test_a_server_that_dies_leaves_a_run_that_pays_on_where_it_was(server, run, plain, tmp_path) -> None:
    import inference_server

    chosen, quick = settings(method=plain), Reach(patience=0.1)
    whole = RunFolder(tmp_path / "whole")
    distill(server.url, chosen, whole)
    expected, server.asked = server.asked, 0
    fine = [lambda *_: False] * 7
    server.faults = [*fine, *[inference_server.status(503)] * 1000]
    with pytest.raises(EdgekdError, match="no answer: HTTP 503"):
        distill(server.url, chosen, run, reach=quick)
    assert run.record()["state"] == "failed"
    assert 0 < server.asked < expected
    server.faults = []
    distill(server.url, chosen, run, resume=True, reach=quick)
    assert weights(run) == weights(whole)
    assert server.asked == expected


def test_secrets_are_nowhere_in_a_run(server, run, plain, monkeypatch) -> None:
    server.token = "s3cret-token"
    monkeypatch.setenv("EDGE_TOKEN", server.token)
    seen: list[Any] = []
    distill(server.url, settings(method=plain), run, reach=Reach(token_env="EDGE_TOKEN"), watch=seen.append)
    assert all(b"s3cret" not in path.read_bytes() for path in run.path.rglob("*") if path.is_file())
    assert b"EDGE_TOKEN" not in run.record_file.read_bytes()
    assert "s3cret" not in messages(seen)


def test_a_secret_that_would_travel_in_the_open_is_warned_of(monkeypatch) -> None:
    from edgekd.teachers.open import _unencrypted

    (line,) = _unencrypted("http://models.example/v2/models/m", Reach(token_env="EDGE_TOKEN"))
    assert "models.example travels unencrypted" in line
    for url, reach in (("http://127.0.0.1/v2/models/m", "T"), ("https://models.example/v2/models/m", "T")):
        assert _unencrypted(url, Reach(token_env=reach)) == ()
    assert _unencrypted("http://models.example/v2/models/m", Reach()) == ()


# ---------------------------------------------------------------------------------------------------------- limits


def test_the_limit_stops_cleanly_and_more_of_it_goes_on_to_the_same_bits(server, tmp_path, plain) -> None:
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    distill(server.url, settings(method=plain), whole)
    expected, server.asked = server.asked, 0
    limit = PROBES + PRIOR + 3 * BATCH + 5
    seen: list[Any] = []
    distill(server.url, settings(method=plain, max_queries=limit), parts, watch=seen.append)
    record = parts.record()
    assert (record["state"], record["progress"]["step"]) == ("interrupted", 3)
    assert record["queries"] == {"asked": limit - 5, "limit": limit}
    assert server.asked == limit - 5
    assert f"stopped: --max-queries: {limit - 5} of {limit} queries are used" in messages(seen)
    assert len(parts.held_out().codes) == 3
    distill(server.url, settings(method=plain, max_queries=10_000), parts, resume=True)
    assert weights(parts) == weights(whole)
    assert (parts.record()["state"], server.asked) == ("finished", expected)


@pytest.mark.parametrize("limit", [3, 40, PROBES + PRIOR + 2])
def test_a_limit_below_the_first_round_still_leaves_a_run_that_can_go_on(server, run, plain, limit, tmp_path) -> None:
    whole = RunFolder(tmp_path / "whole")
    distill(server.url, settings(method=plain), whole)
    server.asked = 0
    distill(server.url, settings(method=plain, max_queries=limit), run)
    assert run.record()["state"] == "interrupted"
    assert server.asked <= max(limit, PROBES)
    distill(server.url, settings(method=plain, max_queries=10_000), run, resume=True)
    assert weights(run) == weights(whole)


def test_procedural_images_leave_half_of_the_queries_to_the_generator(server, run, plain, monkeypatch) -> None:
    monkeypatch.setattr("edgekd.training.PART", 8)
    distill(server.url, settings(method=plain, max_queries=100), run)
    record = run.record()
    assert record["progress"]["step"] == 1
    assert record["queries"]["asked"] == PROBES + 56 + BATCH


# ------------------------------------------------------------------------------------------------- several teachers


def test_several_teachers_are_averaged_recorded_and_checked_on_resume(tmp_path, run, monkeypatch) -> None:
    files = []
    for seed in range(3):
        onnx.save(classifier(seed), tmp_path / f"{seed}.onnx")
        files.append(tmp_path / f"{seed}.onnx")
    distill(files, settings(), run)
    record, held = run.record(), run.held_out()
    digests = [record["teacher"]["sha256"], *(one["sha256"] for one in record["more_teachers"])]
    assert len(set(digests)) == 3
    expected = np.mean([logits(path, held.images()) for path in files], axis=0)
    np.testing.assert_allclose(held.logits, expected, rtol=1e-4, atol=1e-4)
    broken = RunFolder(tmp_path / "broken")
    interrupted(files, broken, 3, monkeypatch)  # type: ignore[arg-type]
    with pytest.raises(BadRun, match="it was started with 3 teachers, not 2"):
        distill(files[:2], settings(), broken, resume=True)
    with pytest.raises(BadRun, match=r"another teacher \(.*1\.onnx\)"):
        distill([files[0], files[2], files[1]], settings(), broken, resume=True)
    distill(files, settings(), broken, resume=True)
    assert weights(broken) == weights(run)


def test_a_file_and_a_server_teach_together(server, teacher_file, run, plain) -> None:
    distill([teacher_file, server.url], settings(method=plain), run)
    assert [run.record()["teacher"]["access"], run.record()["more_teachers"][0]["access"]] == ["gradient", "scores"]
    assert run.record()["signals"] == ["labels", "scores"]


def test_teachers_that_do_not_fit_together_are_refused_by_name(tmp_path, teacher_file, run) -> None:
    model = classifier()
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 14
    onnx.save(model, tmp_path / "tall.onnx")
    with pytest.raises(BadModel, match=r"tall\.onnx: height 14, but .*teacher\.onnx has 12; allowed: teachers of one"):
        distill([teacher_file, tmp_path / "tall.onnx"], settings(), run)
    assert not run.path.exists()


# ------------------------------------------------------------------------------------------------- the command line


def words(*more: object) -> tuple[object, ...]:
    return ("distill", *more, *SET, "--steps", 1, "--out", "run")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["ftp://host/m"], 2, "unknown scheme ftp://"),
        (["http://127.0.0.1:9/v2/models/m"], 3, "cannot be reached"),
        (["http://me:hunter2@127.0.0.1:9/v2/models/m"], 2, "--token-env"),
        (["http://127.0.0.1:9/v2/models/m", "--access", "gradient"], 2, "only a file has a graph to differentiate"),
        (["http://127.0.0.1:9/v2/models/m", "--token-env", "NOT_THERE"], 2, "variable NOT_THERE is not set"),
        (["http://127.0.0.1:9/v2/models/m", "--header", "X-Key"], 2, "KEY=VALUE such as X-Api-Key=API_KEY"),
        (
            ["teacher.onnx", "--access", "scores", "--method", "edgekd"],
            2,
            "--gradient estimate makes one from more questions",
        ),
        (["teacher.onnx", "--access", "scores", "--max-queries", "0"], 2, "max_queries: "),
        (["teacher.onnx", "--patience", "-1"], 2, "patience: "),
        (["teacher.onnx", "--directions", "0"], 2, "directions: "),
        (["python:os:getcwd"], 2, "--trust-callable"),
        (["teacher.onnx", "missing.onnx"], 2, "missing.onnx: no such file"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(call: Call, teacher_file, monkeypatch, arguments, code, said) -> None:
    monkeypatch.setattr("edgekd.teachers.endpoint.FIRST_PATIENCE", 0.1)
    shown = call(*words(*arguments))
    assert said in shown.err
    assert "hunter2" not in shown.err
    assert (shown.code, shown.out, len(shown.err.splitlines())) == (code, "", 1)
    assert not Path("run").exists()


def test_without_httpx_a_url_names_what_to_install(call: Call, monkeypatch) -> None:
    monkeypatch.setattr("edgekd.teachers.open.find_spec", lambda _: None)
    shown = call(*words("http://127.0.0.1:9/v2/models/m"))
    assert (shown.code, shown.err.count("\n")) == (3, 1)
    assert "pip install 'edgekd[http]'" in shown.err


def test_a_limited_run_says_how_to_go_on(call: Call, teacher_file) -> None:
    flags = ["--access", "scores", "--gradient", "estimate", "--directions", "2", "--max-queries", "120"]
    shown = call(*words("teacher.onnx", *flags), "--json")
    assert shown.code == 0
    assert "stopped: --max-queries: 96 of 120 queries are used" in shown.err
    assert "go on with: edgekd distill teacher.onnx --out run --resume --max-queries MORE" in shown.err
    assert json.loads(shown.out)["state"] == "interrupted"
    again = call("distill", "teacher.onnx", "--out", "run", "--resume", "--max-queries", 1000)
    assert again.code == 0
    assert "next: edgekd export run --int8" in again.out


@pytest.mark.slow
def test_a_function_teaches_and_ctrl_c_tells_the_whole_command(call: Call, tmp_path, plain, monkeypatch) -> None:
    code = "import numpy as np\nw = np.random.default_rng(0).normal(size=(144, 4))\n"
    (tmp_path / "own_teacher.py").write_text(code + "def f(x):\n    return x.reshape(len(x), -1) @ w\n")
    real = Training.student_step

    def step(self: Training, *arguments: Any) -> dict[str, float]:
        signal.raise_signal(signal.SIGINT)
        return real(self, *arguments)

    said = ("python:own_teacher:f", "--trust-callable", "--input-shape", "1,12,12", "--method", plain)
    with monkeypatch.context() as patch:
        patch.setattr(Training, "student_step", step)
        shown = call("distill", *said, *SET, "--steps", 3, "--out", "run")
    assert shown.code == 130
    assert "go on with: edgekd distill python:own_teacher:f --out run --resume --trust-callable" in shown.err
    assert call("distill", "python:own_teacher:f", "--out", "run", "--resume", "--trust-callable").code == 0
    assert RunFolder(Path("run")).record()["student"]["name"] == "cnn-small"
    assert call("export", "run").code == 0
