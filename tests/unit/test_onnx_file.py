"""ONNX files nobody vouches for: damaged, hostile, and counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd import onnx_file
from edgekd.errors import BadModel

Make = Callable[..., Path]


@pytest.mark.parametrize("content", [b"", b"hello, this is text\n" * 20, b"\x00" * 64, b"PK\x03\x04rest"])
def test_garbage_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(BadModel, match="not an ONNX file"):
        onnx_file.load(tmp_path / "x.onnx")


def test_a_truncated_file_is_refused_wherever_it_was_cut(make_classifier: Make) -> None:
    path = make_classifier()
    whole = path.read_bytes()
    for share in range(1, 20):
        path.write_bytes(whole[: len(whole) * share // 20])
        with pytest.raises(BadModel, match="ONNX"):
            onnx_file.load(path)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.onnx", tmp_path):
        with pytest.raises(BadModel, match="no such file"):
            onnx_file.load(path)


def with_external(path: Path, location: str) -> Path:
    """Make the first weight of a model point to another file."""
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "", "a/../../secret.bin"])
def test_weights_are_never_read_from_outside_the_folder(make_classifier: Make, tmp_path: Path, location: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(288))
    path = make_classifier().rename(tmp_path / "in" / "model.onnx")
    with pytest.raises(BadModel, match="reads outside the model's folder"):
        onnx_file.load(with_external(path, location))


def test_a_link_does_not_lead_outside_either(make_classifier: Make, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(288))
    (tmp_path / "in" / "weights.bin").symlink_to(tmp_path / "secret.bin")
    path = make_classifier().rename(tmp_path / "in" / "model.onnx")
    with pytest.raises(BadModel, match="reads outside the model's folder"):
        onnx_file.load(with_external(path, "weights.bin"))


def test_weights_beside_the_file_are_read_and_missing_ones_reported(make_classifier: Make, tmp_path: Path) -> None:
    path = with_external(make_classifier(), "weights.bin")
    with pytest.raises(BadModel, match="external data cannot be read"):
        onnx_file.load(path)
    values = np.arange(72, dtype=np.float32)
    (tmp_path / "weights.bin").write_bytes(values.tobytes())
    loaded = numpy_helper.to_array(onnx_file.load(path).graph.initializer[0])
    np.testing.assert_array_equal(loaded.ravel(), values)


def test_an_invalid_graph_is_refused_in_one_line(make_classifier: Make) -> None:
    path = make_classifier()
    model = onnx.load(path)
    model.graph.node[2].input[0] = "nowhere"
    onnx.save(model, path)
    with pytest.raises(BadModel, match="not a valid ONNX model") as raised:
        onnx_file.load(path)
    assert "\n" not in str(raised.value)


def test_parameters_and_macs_of_a_known_network(make_classifier: Make) -> None:
    model = onnx_file.load(make_classifier())
    assert onnx_file.parameters(model) == 8 * 9 + 8 + 8 * 4 + 4
    assert onnx_file.macs(model) == 8 * 9 * 64 + 8 * 4


def test_macs_of_free_sizes_are_unknown_until_told(make_classifier: Make) -> None:
    model = onnx_file.load(make_classifier(dims=("N", 1, "H", "W")))
    assert onnx_file.macs(model) is None
    assert onnx_file.macs(model, (1, 4, 4)) == 8 * 9 * 16 + 8 * 4


def test_inputs_that_are_weights_are_not_fed(tmp_path: Path) -> None:
    """IR version 3 lists initializers among the inputs."""
    both = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in ("x", "w")]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])
    weight = numpy_helper.from_array(np.ones((1, 2), np.float32), "w")
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", both, [out], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=3)
    assert [value.name for value in onnx_file.real_inputs(model)] == ["x"]
