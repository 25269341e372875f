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


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "", "a/../../secret.bin", "a\0b"])
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


def test_macs_survive_a_batch_that_shape_inference_loses(make_classifier: Make) -> None:
    """As torch's exporter writes a flattening: to a shape computed from the batch as a scalar."""
    model = onnx.load(make_classifier())
    position = next(i for i, node in enumerate(model.graph.node) if node.op_type == "Flatten")
    del model.graph.node[position]
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1]), "one"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([8]), "eight"))
    steps = [
        helper.make_node("Shape", ["image"], ["batch"], start=0, end=1),
        helper.make_node("Squeeze", ["batch"], ["scalar"]),
        helper.make_node("Reshape", ["scalar", "one"], ["vector"]),
        helper.make_node("Concat", ["vector", "eight"], ["shape"], axis=0),
        helper.make_node("Reshape", ["p", "shape"], ["f"]),
    ]
    for node in reversed(steps):
        model.graph.node.insert(position, node)
    onnx.checker.check_model(model)
    assert onnx_file.macs(model) == 8 * 9 * 64 + 8 * 4


def test_a_model_is_identified_by_its_external_data_too(make_classifier: Make, tmp_path: Path) -> None:
    plain = make_classifier()
    assert onnx_file.model_sha256(plain) == onnx_file.sha256(plain)
    path = with_external(plain, "weights.bin")
    (tmp_path / "weights.bin").write_bytes(bytes(288))
    before = onnx_file.model_sha256(path)
    (tmp_path / "weights.bin").write_bytes(bytes(287) + b"\x01")
    assert onnx_file.model_sha256(path) != before != onnx_file.sha256(path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(BadModel, match=r"weights\.bin cannot be read"):
        onnx_file.model_sha256(path)


def test_a_model_with_external_data_is_checked_by_its_path(
    make_classifier: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one message it may be beyond 2 GiB, which the checker cannot take."""
    path = with_external(make_classifier(), "weights.bin")
    (tmp_path / "weights.bin").write_bytes(bytes(288))
    seen: list[object] = []
    monkeypatch.setattr(onnx.checker, "check_model", seen.append)
    onnx_file.load(path)
    assert seen == [str(path)]


def test_external_data_of_a_constant_node_stays_in_the_folder_too(make_classifier: Make) -> None:
    path = make_classifier()
    model = onnx.load(path)
    tensor = helper.make_tensor("t", TensorProto.FLOAT, [1], [0.0])
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret.bin")
    model.graph.node.append(helper.make_node("Constant", [], ["k"], value=tensor))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BadModel, match="reads outside the model's folder"):
        onnx_file.load(path)


def test_inputs_that_are_weights_are_not_fed(tmp_path: Path) -> None:
    """IR version 3 lists initializers among the inputs."""
    both = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in ("x", "w")]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])
    weight = numpy_helper.from_array(np.ones((1, 2), np.float32), "w")
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", both, [out], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=3)
    assert [value.name for value in onnx_file.real_inputs(model)] == ["x"]


def calling(depth: int, width: int) -> onnx.ModelProto:
    """A model whose every function calls the next `width` times: `width ** depth` nodes in a small file."""
    kinds = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    leaving = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("f0", ["x"], ["y"], domain="own")], "g", [image], [leaving])
    model = helper.make_model(graph, opset_imports=kinds, ir_version=10)
    for i in range(depth):
        kind, domain = (f"f{i + 1}", "own") if i + 1 < depth else ("Relu", "")
        body = [helper.make_node(kind, [f"t{k}"], [f"t{k + 1}"], domain=domain) for k in range(width)]
        model.functions.append(helper.make_function("own", f"f{i}", ["t0"], [f"t{width}"], body, kinds))
    return model


def test_functions_that_call_each_other_endlessly_are_refused_before_they_are_written_out(tmp_path: Path) -> None:
    onnx.save(calling(60, 8), tmp_path / "laughs.onnx")
    with pytest.raises(BadModel, match="local functions call each other up to"):
        onnx_file.load(tmp_path / "laughs.onnx")
    onnx.save(calling(3, 8), tmp_path / "fine.onnx")
    assert len(onnx_file.load(tmp_path / "fine.onnx").functions) == 3


def test_shapes_that_double_without_end_are_not_followed() -> None:
    """Each Concat joins a vector of sizes to itself: onnx would follow its values until memory ends."""
    nodes = [helper.make_node("Concat", [f"s{i}"] * 8, [f"s{i + 1}"], axis=0) for i in range(60)]
    nodes += [helper.make_node("Expand", ["x", "s60"], ["y"])]
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    leaving = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [image], [leaving], [numpy_helper.from_array(np.ones(8, np.int64), "s0")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    assert onnx_file.macs(model) == 0


def test_element_types_have_names_or_numbers() -> None:
    assert [onnx_file.type_name(n) for n in (1, 7, 99)] == ["float", "int64", "type 99"]
