from __future__ import annotations

import tracemalloc

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import quant_pre_process

from edgekd.config import CalibrationRecipe, load_recipe
from edgekd.quantize.ranges import tensor_ranges

OPERATORS = ["Conv", "Gemm", "Relu", "GlobalAveragePool"]


@pytest.fixture
def prepared(make_classifier, tmp_path):
    quant_pre_process(make_classifier(), tmp_path / "prepared.onnx", skip_symbolic_shape=True)
    return tmp_path / "prepared.onnx"


def image_range(prepared, samples, recipe):
    entry = next(node.input[0] for node in onnx.load(prepared).graph.node if node.op_type == "Conv")
    found = tensor_ranges(prepared, samples, recipe, operators=OPERATORS, folder=prepared.parent)
    return tuple(float(np.ravel(bound)[0]) for bound in found[entry].range_value)


def images(count, seed=0):
    return np.random.default_rng(seed).uniform(-1, 3, (count, 1, 8, 8)).astype(np.float32)


def test_minmax_is_numpys(prepared):
    samples = images(50)
    assert image_range(prepared, samples, load_recipe("minmax")) == (samples.min(), samples.max())


def test_symmetric_minmax_mirrors_the_larger_end(prepared):
    samples = images(50)
    recipe = load_recipe("minmax").model_copy(update={"symmetric": True})
    assert image_range(prepared, samples, recipe) == (-samples.max(), samples.max())


@pytest.mark.parametrize("share", [90.0, 99.0])
def test_percentile_is_numpys_up_to_two_bins(prepared, share):
    samples = images(500)
    recipe = CalibrationRecipe(schema=1, name="p", title="", method="percentile", percentile=share, bins=2048)
    expected = np.percentile(samples, [(100 - share) / 2, 100 - (100 - share) / 2])
    np.testing.assert_allclose(image_range(prepared, samples, recipe), expected, atol=2 * 6 / 2048 + 0.01)


def test_entropy_clips_a_thin_tail(prepared):
    samples = np.random.default_rng(0).normal(size=(64, 1, 8, 8)).astype(np.float32)
    samples[0, 0, 0, 0] = 40
    low, high = image_range(prepared, samples, load_recipe("entropy"))
    assert 1 < high < 20
    assert low == pytest.approx(samples.min(), abs=5)


def test_memory_does_not_grow_with_the_samples(prepared):
    recipe = load_recipe("percentile")
    peaks = []
    for count in (64, 2048):
        samples = images(count)
        tracemalloc.start()
        image_range(prepared, samples, recipe)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
