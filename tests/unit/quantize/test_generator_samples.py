from __future__ import annotations

import hashlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.errors import BadModel, CannotLoad
from edgekd.quantize import Generated, Joined, Stored, generator_samples
from edgekd.quantize.run_samples import evenly
from edgekd.quantize.samples import batches, digest


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


# ------------------------------------------------------------------------------------------- sources


def test_chosen_images_are_those_of_the_whole_pool(make_generator):
    path, _ = make_generator()
    pool = np.concatenate(list(Generated(path, 300, seed=3).parts()))
    chosen = np.array([0, 5, 63, 64, 190, 299])
    found = Generated(path, len(chosen), seed=3, chosen=chosen)
    np.testing.assert_allclose(np.concatenate(list(found.parts())), pool[chosen], rtol=1e-5)
    assert len(found) == 6


def test_every_class_gets_its_share_as_far_as_there_are_enough():
    labels = np.array([0] * 50 + [1] * 3 + [2] * 20)
    chosen = evenly(labels, 20)
    assert len(chosen) == 20
    assert list(chosen) == sorted(chosen)
    counts = np.bincount(labels[chosen])
    assert counts[1] == 3
    assert abs(int(counts[0]) - int(counts[2])) <= 1


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_batches_are_of_the_size_and_lose_nothing(size):
    images = np.arange(150, dtype=np.float32).reshape(150, 1, 1, 1)
    joined = Joined([Stored(images[:70]), Stored(images[70:])])
    parts = list(batches(joined, size))
    np.testing.assert_array_equal(np.concatenate(parts), images)
    assert {len(part) for part in parts[:-1]} <= {size}
    whole = list(batches(joined, size, whole=True))
    assert {len(part) for part in whole} <= {size}
    assert digest(joined.parts()) == digest(Stored(images).parts()) == hashlib.sha256(images.tobytes()).hexdigest()


def test_codes_are_brought_into_the_range():
    stored = Stored(np.array([[0], [255]], np.uint8), -1.0, 3.0)
    np.testing.assert_allclose(np.concatenate(list(stored.parts())), [[-1], [3]])
