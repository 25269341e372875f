"""Text as a user distils it: a trained teacher of token ids, two students on sentences, from files to the gate."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import runner
from test_path import QUICK
from text_teacher import WORDS, sentences, trained

from edgekd import split
from edgekd.inference import open_session
from edgekd.part_files import exported_parts
from edgekd.run_folder import RunFolder

pytestmark = pytest.mark.slow


def test_the_whole_path_of_text(tmp_path: Path) -> None:
    trained(tmp_path / "text.onnx")
    np.savez(tmp_path / "real.npz", tokens=sentences(600, 2)[0])
    tokens, labels = sentences(400, 3)
    np.savez(tmp_path / "rest.npz", tokens=tokens, labels=labels)
    (tmp_path / "quick.toml").write_text(QUICK)
    edgekd = runner(sys.executable, tmp_path)
    asked = ["--method", "teacher-class", "--students", "2", "--samples", "real.npz", "--width", "0.25"]
    told = edgekd("distill", "text.onnx", *asked, "--out", "run", "--steps", "120", "--threads", "1")
    assert "sequences of 12 token ids, 2 classes, ends in logits" in told.stderr
    assert f"ids in [0, {len(WORDS) - 1}] (the graph tells)" in told.stderr
    assert "2 students for 16 numbers: 8 each" in told.stderr
    record = json.loads(edgekd("export", "run", "--int8", "--split", "--force", "--json").stdout)
    assert {"student", "student_int8", "student_0", "student_1.int8", "head"} <= record["files"].keys()
    run = RunFolder(tmp_path / "run")
    for suffix, allowed in (("", 1e-4), (".int8", None)):
        apart = split.joined_answer(list(exported_parts(run, run.record(), suffix).values()), tokens.astype(np.float32))
        (joined,) = open_session(tmp_path / "run" / f"student{suffix}.onnx").run(None, {"tokens": tokens})
        if allowed:
            np.testing.assert_allclose(apart, joined, rtol=allowed, atol=allowed)
        assert (apart.argmax(axis=1) == joined.argmax(axis=1)).mean() > 0.95
    found = json.loads(edgekd("eval", "run", "--data", "rest.npz", "--json").stdout)["models"]
    assert list(found) == ["student.onnx", "student.int8.onnx"]
    for one in found.values():
        assert one["teacher"]["accuracy"] > 0.95
        assert one["accuracy"] > 0.85  # half of the sentences are of praise
        assert one["f1"] > 0.85
    bench = json.loads(edgekd("bench", "run", "--target", "quick.toml", "--json").stdout)
    assert list(bench["models"]) == ["teacher", "student", "student.int8"]
    assert bench["models"]["student"]["agreement"] > 0.85
    assert bench["models"]["student"]["apart"]["students"] == 2
    assert bench["models"]["student"]["inputs"][0]["dtype"] == "int64"
    edgekd("gate", "run", "--min-accuracy", "0.85", "--min-agreement", "0.85", "--max-size", "20kB")
    edgekd("report", "run")
