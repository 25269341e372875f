"""A Python function as a teacher."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekd.config import Reach
from edgekd.errors import BadModel, BadSetting, EdgekdError
from edgekd.teachers.function import FunctionSource
from edgekd.teachers.pixels import Stated

CODE = """
import numpy as np
weights = np.random.default_rng(0).normal(size=(4, 3))
asked = []
def linear(images):
    assert images.dtype == np.float32
    asked.append(images.shape)
    return images.reshape(len(images), -1) @ weights
def likely(images):
    e = np.exp(linear(images))
    return e / e.sum(axis=1, keepdims=True)
def single(images):
    return linear(images)[:, :1]
def sure(images):
    return 1 / (1 + np.exp(-linear(images)))
def empty(images):
    return linear(images)[:, :0]
def broken(images):
    raise KeyError("no weights")
number = 3
"""
SHAPE = Stated(input_shape=(1, 2, 2))
TRUST = Reach(trust_callable=True)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    name = f"own_{abs(hash(tmp_path.as_posix()))}"
    (tmp_path / f"{name}.py").write_text(CODE)
    return f"python:{name}"


def test_a_function_is_asked_in_its_layout(module: str) -> None:
    source = FunctionSource(f"{module}:linear", Stated(input_shape=(1, 2, 2), layout="NHWC"), TRUST, {})
    assert (source.spec.classes, source.spec.ending, source.spec.layout, source.probed) == (3, "logits", "NHWC", 4)
    images = np.random.default_rng(0).random((5, 1, 2, 2), dtype=np.float32)
    expected = images.reshape(5, 4) @ np.random.default_rng(0).normal(size=(4, 3))
    np.testing.assert_allclose(source.ask(images, lambda _: None), expected, rtol=1e-5)


def test_probabilities_are_recognised(module: str) -> None:
    source = FunctionSource(f"{module}:likely", SHAPE, TRUST, {})
    assert source.spec.ending == "softmax"
    assert np.abs(source.ask(np.zeros((1, 1, 2, 2), np.float32), lambda _: None)).max() < 1e-6


def test_labels_are_recognised_or_told(module: str) -> None:
    logits, one = (
        FunctionSource(f"{module}:linear", SHAPE, TRUST, {}),
        FunctionSource(f"{module}:single", SHAPE, TRUST, {}),
    )
    assert (one.spec.task, one.spec.classes, one.spec.ending, logits.spec.task) == ("binary", 1, "logits", "classes")
    told = Stated(input_shape=(1, 2, 2), task="multilabel")
    likely = FunctionSource(f"{module}:sure", told, TRUST, {})
    assert (likely.spec.task, likely.spec.ending, likely.spec.sources["task"]) == ("multilabel", "sigmoid", "flag")
    images = np.random.default_rng(0).random((5, 1, 2, 2), dtype=np.float32)
    expected = logits.ask(images, lambda _: None)
    np.testing.assert_allclose(likely.ask(images, lambda _: None), expected, rtol=1e-3, atol=1e-4)
    known = {"classes": 3, "task": "multilabel", "ending": "sigmoid"}
    assert FunctionSource(f"{module}:sure", told, TRUST, known).spec.task == "multilabel"


def test_other_source_is_another_teacher(module: str, tmp_path: Path) -> None:
    first = FunctionSource(f"{module}:linear", SHAPE, TRUST, {}).spec.sha256
    with next(tmp_path.glob("own_*.py")).open("a") as file:
        file.write("# better\n")
    assert FunctionSource(f"{module}:linear", SHAPE, TRUST, {}).spec.sha256 != first


@pytest.mark.parametrize(
    ("function", "stated", "reach", "kind", "said"),
    [
        (
            ":linear",
            SHAPE,
            Reach(),
            BadSetting,
            "it is code, which would be run; if you trust it, say --trust-callable",
        ),
        (":linear", Stated(), TRUST, BadSetting, "say it with --input-shape C,H,W"),
        (":absent", SHAPE, TRUST, BadSetting, "AttributeError"),
        (":number", SHAPE, TRUST, BadSetting, "it cannot be called"),
        ("", SHAPE, TRUST, BadSetting, "not a function; allowed: python:package.module:function"),
        ("_not_there:f", SHAPE, TRUST, BadSetting, "ModuleNotFoundError"),
        (":empty", SHAPE, TRUST, BadModel, r"it answers float64 of shape \[4, 0\] to 4 images; allowed: .*\[4, K\]"),
        (":linear", Stated(input_shape=(1, 2, 2), task="binary"), TRUST, BadSetting, "answers 3 columns"),
        (":broken", SHAPE, TRUST, EdgekdError, "it raised KeyError: 'no weights'"),
    ],
)
def test_what_is_no_teacher_is_refused_in_one_line(module, function, stated, reach, kind, said) -> None:
    with pytest.raises(kind, match=said) as raised:
        FunctionSource(module + function, stated, reach, {})
    assert "\n" not in str(raised.value)
