"""Tiny ONNX models, made on the spot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from calling import Call, Result
from onnx import TensorProto, helper, numpy_helper
from tiny_teacher import classifier

from edgekd.run_folder import RunFolder

Make = Callable[..., Path]
COSTLY = {"done", "learned", "original", "sshd", "whole"}
"""Fixtures that distil and export, or begin a server: seconds on each worker before the first of their tests."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What asks for a costly fixture is slow."""
    for item in items:
        if COSTLY & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


def _save(path: Path, nodes: list, image: onnx.ValueInfoProto, weights: dict[str, np.ndarray], classes: int) -> Path:
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", classes])
    initializers = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "tiny", [image], [logits], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


@pytest.fixture
def make_classifier(tmp_path: Path) -> Make:
    """Conv-Relu-pool-Gemm with seeded weights, `[N, 1, 8, 8]` to 4 classes: 80 + 4 + 32 + 4 = 120 parameters.

    `dims` is the declared shape of the input (names are free dimensions), `channels_last` says how to read it.
    """

    def make(
        name: str = "model.onnx",
        *,
        dims: Sequence[int | str] = ("N", 1, 8, 8),
        channels: int = 1,
        channels_last: bool = False,
        dtype: int = TensorProto.FLOAT,
        seed: int = 0,
        filters: int = 8,
    ) -> Path:
        rng = np.random.default_rng(seed)
        shapes = {"kernel": (filters, channels, 3, 3), "bias": (filters,), "dense": (4, filters), "offset": (4,)}
        weights = {key: rng.normal(size=shape).astype(np.float32) for key, shape in shapes.items()}
        nodes = [
            helper.make_node("Cast", ["image"], ["cast"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["cast"], ["x"], perm=[0, 3, 1, 2] if channels_last else [0, 1, 2, 3]),
            helper.make_node("Conv", ["x", "kernel", "bias"], ["c"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c"], ["r"]),
            helper.make_node("GlobalAveragePool", ["r"], ["p"]),
            helper.make_node("Flatten", ["p"], ["f"]),
            helper.make_node("Gemm", ["f", "dense", "offset"], ["logits"], transB=1),
        ]
        return _save(tmp_path / name, nodes, helper.make_tensor_value_info("image", dtype, dims), weights, 4)

    return make


@pytest.fixture
def make_picker(tmp_path: Path) -> Make:
    """A classifier whose answer is known: images of four pixels, and class k is the k-th pixel (plus `shift`)."""

    def make(name: str = "picker.onnx", *, dims: Sequence[int | str] = ("N", 1, 2, 2), shift: int = 0) -> Path:
        weights = {"pick": np.roll(np.eye(4, dtype=np.float32), shift, axis=1)}
        nodes = [
            helper.make_node("Flatten", ["image"], ["f"]),
            helper.make_node("Gemm", ["f", "pick"], ["logits"]),
        ]
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, dims)
        return _save(tmp_path / name, nodes, image, weights, 4)

    return make


@pytest.fixture
def teacher_file(tmp_path: Path) -> Path:
    """The teacher of `tiny_teacher`."""
    onnx.save(classifier(), tmp_path / "teacher.onnx")
    return tmp_path / "teacher.onnx"


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run that is not there yet."""
    return RunFolder(tmp_path / "run")


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run a command in `tmp_path`, in this process."""
    from edgekd import cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGEKD_DEBUG", raising=False)

    def run(*arguments: object) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as raised:
            cli.main([str(argument) for argument in arguments])
        told = capsys.readouterr()
        return Result(int(raised.value.code or 0), told.out, told.err)

    return run


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    pytest.importorskip("httpx")
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "teachers"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    import inference_server

    from edgekd.teachers import endpoint

    monkeypatch.setattr(endpoint, "PAUSE", 0.005)
    monkeypatch.setattr(endpoint, "FIRST_PATIENCE", 0.2)
    with inference_server.serving() as running:
        yield running
