from __future__ import annotations

import tracemalloc

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, create_calibrator

from edgekd.devices import CalibrationRecipe, load_recipe
from edgekd.errors import EdgekdError
from edgekd.quantize.histogram import Histogram
from edgekd.quantize.observation import observe
from edgekd.quantize.preparation import prepared as ready
from edgekd.quantize.ranges import METHODS, bins_of, tensor_ranges
from edgekd.quantize.samples import Stored

OPERATORS = ["Conv", "Gemm", "Relu", "GlobalAveragePool"]


@pytest.fixture
def prepared(make_classifier, tmp_path):
    path = make_classifier()
    return ready(onnx.load(path), path)


def all_ranges(prepared, samples, recipe):
    histograms = observe(prepared, Stored(samples), OPERATORS, bins_of(recipe))
    return tensor_ranges(histograms, recipe, levels=256)


def image_range(prepared, samples, recipe):
    entry = next(node.input[0] for node in prepared.graph.node if node.op_type == "Conv")
    return all_ranges(prepared, samples, recipe)[entry]


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
    assert samples.min() <= low < 0


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


def test_the_model_itself_answering_nan_is_one_line(prepared):
    samples = images(64)
    samples[3, 0, 0, 0] = np.inf
    with pytest.raises(EdgekdError, match="is NaN or infinite on a calibration sample"):
        image_range(prepared, samples, load_recipe("percentile"))


def test_minmax_of_every_activation_is_that_of_onnx_runtime(prepared, tmp_path):
    """Its calibrator, given all samples at once, is the outside truth."""
    samples = images(48)

    class AtOnce(CalibrationDataReader):
        feeds = iter([{"image": samples}])

        def get_next(self):
            return next(self.feeds, None)

    onnx.save(prepared, tmp_path / "prepared.onnx")
    calibrator = create_calibrator(
        tmp_path / "prepared.onnx",
        OPERATORS,
        augmented_model_path=str(tmp_path / "augmented.onnx"),
        calibrate_method=CalibrationMethod.MinMax,
    )
    calibrator.collect_data(AtOnce())
    expected = calibrator.compute_data()
    found = all_ranges(prepared, samples, load_recipe("minmax"))
    assert found.keys() == set(expected.keys())
    for name, ends in found.items():
        wanted = [float(np.ravel(bound)[0]) for bound in expected[name].range_value]
        np.testing.assert_allclose(ends, wanted, rtol=1e-5)


# ----------------------------------------------------------------------------------------------------- histograms


def filled(*parts, bins=512):
    histogram = Histogram(bins)
    for part in parts:
        histogram.add(np.asarray(part, np.float32))
    return histogram


def test_a_histogram_does_not_depend_on_what_came_first():
    rng = np.random.default_rng(0)
    parts = [rng.normal(0, scale, 300) for scale in (1e-3, 50.0, 0.0, 2.0)]
    one, other = filled(*parts), filled(*reversed(parts))
    assert (one.start, one.width) == (other.start, other.width)
    np.testing.assert_array_equal(one.counts, other.counts)


def test_a_histogram_counts_what_numpy_counts():
    values = np.random.default_rng(1).gamma(2.0, 3.0, 5000).astype(np.float32)
    histogram = filled(values[:10], values[10:20], values[20:], bins=256)
    edges = histogram.start + histogram.width * np.arange(len(histogram.counts) + 1)
    np.testing.assert_array_equal(histogram.counts, np.histogram(values, edges)[0])
    assert histogram.total == 5000
    assert 128 <= len(histogram.counts) <= 256
    assert (histogram.low, histogram.high) == (values.min(), values.max())


@pytest.mark.parametrize("value", [0.0, 1.0, -3.5, 1e-30, 1e30])
def test_a_constant_has_a_histogram(value):
    histogram = filled([value] * 7)
    assert (histogram.total, histogram.low, histogram.high) == (7, np.float32(value), np.float32(value))
    for name, method in METHODS.items():
        recipe = CalibrationRecipe(schema=1, name="r", title="", method="percentile", percentile=99.9, bins=512)
        low, high = method(histogram, recipe, 256)
        assert min(0, value) * (1 + 1e-6) <= low <= high <= max(0, value) * (1 + 1e-6), name


def test_zeros_are_counted():
    assert filled([0, 1, 0, -0.0, 2]).zeros == 3


# ----------------------------------------------------------------------------------------------------- methods


def quantization_error(values, low, high, levels=256):
    """What rounding to levels between the ends really costs."""
    step = (high - low) / (levels - 1)
    kept = np.clip(np.rint(values / step), np.rint(low / step), np.rint(high / step)) * step
    return float(np.square(kept - values).mean())


@pytest.mark.parametrize("kind", ["normal", "skewed", "long tail", "rectified"])
def test_mse_is_close_to_the_best_range_there_is(kind):
    rng = np.random.default_rng(5)
    values = {
        "normal": rng.normal(size=40_000),
        "skewed": rng.gamma(1.0, 1.0, 40_000) - 0.3,
        "long tail": rng.standard_t(3, 40_000),
        "rectified": np.maximum(rng.standard_t(3, 40_000), 0),
    }[kind].astype(np.float32)
    low, high = METHODS["mse"](filled(values, bins=2048), load_recipe("mse"), 256)
    found = quantization_error(values, low, high)
    factors = np.linspace(0.02, 1, 50)
    lows = factors * values.min() if values.min() < 0 else [0.0]
    best = min(quantization_error(values, a, b) for a in lows for b in factors * values.max())
    assert found <= 1.1 * best
    assert found <= 1.001 * quantization_error(values, min(values.min(), 0), values.max())


def test_sixteen_bits_clip_nothing_by_mse():
    values = np.random.default_rng(6).normal(size=20_000).astype(np.float32)
    low, high = METHODS["mse"](filled(values, bins=2048), load_recipe("mse"), 2**16)
    assert low <= 0.98 * values.min()
    assert high >= 0.98 * values.max()


def test_a_moving_average_counts_an_outlier_once():
    batches = [np.full(10, 1.0) for _ in range(9)] + [np.full(10, 11.0)]
    low, high = METHODS["moving-average"](filled(*batches), load_recipe("moving-average"), 256)
    assert (low, high) == pytest.approx((2.0, 2.0))


def test_entropy_keeps_all_of_a_flat_histogram():
    values = np.linspace(-1, 1, 100_000)
    low, high = METHODS["entropy"](filled(values, bins=4096), load_recipe("entropy"), 256)
    assert (low, high) == pytest.approx((-1, 1), rel=0.02)


def test_entropy_is_not_led_astray_by_the_zeros_of_relu():
    values = np.maximum(np.random.default_rng(7).normal(-0.5, 1, 100_000), 0).astype(np.float32)
    low, high = METHODS["entropy"](filled(values, bins=4096), load_recipe("entropy"), 256)
    assert low == 0
    assert high > 0.5 * values.max()
    assert quantization_error(values, 0, high) < 2 * quantization_error(values, 0, values.max())


def test_a_symmetric_target_wants_symmetric_ranges(prepared):
    histograms = observe(prepared, Stored(images(64)), OPERATORS, 2048)
    for low, high in tensor_ranges(histograms, load_recipe("mse"), levels=256, symmetric=True).values():
        assert low == -high


@pytest.mark.parametrize("spread", [1e-3, 1.0, 300.0])
def test_a_coarser_histogram_is_the_one_that_fewer_bins_would_have_made(spread):
    rng = np.random.default_rng(0)
    fine, coarse = Histogram(2048), Histogram(256)
    for part in range(3):
        values = (rng.normal(part, spread, (40, 7)) * (rng.random((40, 7)) > 0.3)).astype(np.float32)
        fine.add(values)
        coarse.add(values)
    before, found = fine.counts.copy(), fine.coarser(256)
    assert vars(found) | {"counts": None} == vars(coarse) | {"counts": None}
    np.testing.assert_array_equal(found.counts, coarse.counts)
    np.testing.assert_array_equal(fine.counts, before)
    assert Histogram(2048).coarser(256).total == 0
