from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.errors import BadModel, CannotLoad
from edgekd.quantize import generator_samples


@pytest.fixture
def make_generator(tmp_path):
    """latent `[N, 5]` times a fixed matrix, as images `[N, 1, 2, 3]`."""

    def make(latent="latent", image="image"):
        matrix = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
        tensors = [numpy_helper.from_array(matrix, "m"), numpy_helper.from_array(np.array([-1, 1, 2, 3]), "shape")]
        nodes = [
            helper.make_node("MatMul", [latent, "m"], ["flat"]),
            helper.make_node("Reshape", ["flat", "shape"], [image]),
        ]
        entry = helper.make_tensor_value_info(latent, TensorProto.FLOAT, ["N", 5])
        leaving = helper.make_tensor_value_info(image, TensorProto.FLOAT, ["N", 1, 2, 3])
        graph = helper.make_graph(nodes, "g", [entry], [leaving], tensors)
        path = tmp_path / "generator.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
        return path, matrix

    return make


def test_they_are_the_generator_of_standard_normal_latents(make_generator):
    path, matrix = make_generator()
    latents = np.random.default_rng(7).standard_normal((150, 5), dtype=np.float32)
    found = generator_samples(path, 150, 7)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, (latents @ matrix).reshape(150, 1, 2, 3), rtol=1e-4, atol=1e-5)


def test_the_seed_decides(make_generator):
    path, _ = make_generator()
    np.testing.assert_array_equal(generator_samples(path, 9, 1), generator_samples(path, 9, 1))
    assert not np.array_equal(generator_samples(path, 9, 1), generator_samples(path, 9, 2))


@pytest.mark.parametrize("names", [{"latent": "z"}, {"image": "picture"}])
def test_another_model_is_refused(make_generator, names):
    path, _ = make_generator(**names)
    with pytest.raises(BadModel, match="not a generator; allowed: input latent"):
        generator_samples(path, 8, 0)


def test_a_damaged_file_is_refused(tmp_path):
    (tmp_path / "generator.onnx").write_bytes(b"nothing")
    with pytest.raises(CannotLoad, match="ONNX Runtime cannot load it"):
        generator_samples(tmp_path / "generator.onnx", 8, 0)
