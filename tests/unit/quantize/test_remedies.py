"""What is done where INT8 hurts: equalization, bias correction, mixed precision, each against a truth of its own."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.devices import Quantization, load_recipe
from edgekd.inference import logits
from edgekd.quantize import Stored, Wishes, quantized
from edgekd.quantize.bias import corrected
from edgekd.quantize.equalization import equalized, pairs
from edgekd.quantize.insertion import inserted
from edgekd.quantize.judging import Fidelity, Judge
from edgekd.quantize.observation import observe, runs
from edgekd.quantize.preparation import prepared
from edgekd.quantize.ranges import tensor_ranges
from edgekd.quantize.sensitivity import fewest, sensitivities

OPERATORS = ["Conv", "Gemm", "Relu", "GlobalAveragePool", "Clip"]
MINMAX = load_recipe("minmax")


def network(*, activation="Relu", spread=1.0, transposed=True, seed=0):
    """Pointwise, depthwise, pointwise and dense; `spread` makes the channels of the first two uneven."""
    rng = np.random.default_rng(seed)
    uneven = np.exp(rng.uniform(-spread, spread, 8)).astype(np.float32)
    fixed = {
        "w1": rng.normal(size=(8, 3, 1, 1)) * uneven[:, None, None, None],
        "b1": rng.normal(size=8) * uneven,
        "w2": rng.normal(size=(8, 1, 3, 3)) / uneven[:, None, None, None],
        "b2": rng.normal(size=8),
        "w3": rng.normal(size=(6, 8, 1, 1)),
        "b3": rng.normal(size=6),
        "w4": rng.normal(size=(4, 6) if transposed else (6, 4)),
        "b4": rng.normal(size=4),
    }
    limits = ["zero", "six"] if activation == "Clip" else []
    fixed |= {"zero": np.float32(0), "six": np.float32(6)} if limits else {}
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["c1"], "one"),
        helper.make_node(activation, ["c1", *limits], ["r1"], "act1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], "two", group=8, pads=[1, 1, 1, 1]),
        helper.make_node(activation, ["c2", *limits], ["r2"], "act2"),
        helper.make_node("Conv", ["r2", "w3", "b3"], ["c3"], "three"),
        helper.make_node(activation, ["c3", *limits], ["r3"], "act3"),
        helper.make_node("GlobalAveragePool", ["r3"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flat"),
        helper.make_node("Gemm", ["f", "w4", "b4"], ["logits"], "dense", transB=int(transposed)),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 6, 6])
    out = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 4])
    tensors = [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in fixed.items()]
    graph = helper.make_graph(nodes, "g", [image], [out], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def samples(count=96, seed=1):
    return np.random.default_rng(seed).normal(size=(count, 3, 6, 6)).astype(np.float32)


def answers(model, images):
    return next(iter(runs(model, Stored(images), ["logits"])))["logits"]


@pytest.fixture
def ready(tmp_path):
    return lambda **options: prepared(network(**options), tmp_path / "n.onnx")


def ranges_of(model):
    return tensor_ranges(observe(model, Stored(samples()), OPERATORS, 2048), MINMAX, levels=256)


# ----------------------------------------------------------------------------------------------------- equalization


@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize("measured", [True, False])
def test_equalization_changes_no_answer(ready, transposed, measured):
    model = ready(spread=3.0, transposed=transposed)
    found = pairs(model)
    assert [(pair.first.name, pair.second.name) for pair in found] == [
        *[("one", "two"), ("two", "three"), ("three", "dense")]
    ]
    rng = np.random.default_rng(0)
    channels = {pair.between: 8 if pair.second.name != "dense" else 6 for pair in found}
    extremes = {name: rng.uniform(0.1, 9, many).astype(np.float32) for name, many in channels.items()}
    changed = equalized(model, found, extremes if measured else None)
    expected, got = answers(model, samples(16)), answers(changed, samples(16))
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    before, after = ({t.name: numpy_helper.to_array(t) for t in m.graph.initializer} for m in (model, changed))
    assert any(not np.allclose(before[name], after[name]) for name in before)


def test_equalized_weights_have_equal_ranges_on_both_sides(ready):
    """Equation 11 of the paper at its fixed point, pair by pair."""
    changed = equalized(ready(spread=3.0), pairs(ready(spread=3.0)))
    fixed = {t.name: numpy_helper.to_array(t) for t in changed.graph.initializer}
    for pair, grouped in zip(pairs(changed), (True, False, False), strict=True):
        first, second = (np.abs(fixed[node.input[1]]) for node in (pair.first, pair.second))
        first = first.reshape(len(first), -1).max(axis=1)
        second = second.max(axis=(1, 2, 3)) if grouped else second.reshape(*second.shape[:2], -1).max(axis=(0, 2))
        np.testing.assert_allclose(first, second, rtol=0.02)


def test_equalization_moves_nothing_across_what_clips(ready):
    assert [(p.first.name, p.second.name) for p in pairs(ready(activation="Clip"))] == []


# ----------------------------------------------------------------------------------------------------- bias


def test_corrected_biases_bring_the_means_back(ready):
    model = ready(spread=2.0)
    flavour = Quantization(per_channel=False, activation="uint16")  # coarse weights only: what biases can mend
    quantized_model = inserted(model, ranges_of(model), flavour)
    changed = corrected(quantized_model, model, Stored(samples()))
    means = [answers(m, samples()).mean(axis=0) for m in (model, quantized_model, changed)]
    before, after = (float(np.abs(m - means[0]).max()) for m in means[1:])
    assert before > 0
    assert after < 0.2 * before


def test_float_biases_are_corrected_too(ready):
    model = ready(spread=2.0)
    flavour = Quantization(per_channel=False, activation="uint16", quantize_bias=False)
    quantized_model = inserted(model, ranges_of(model), flavour)
    changed = corrected(quantized_model, model, Stored(samples()))
    wanted, *rest = (answers(m, samples()).mean(axis=0) for m in (model, quantized_model, changed))
    assert np.abs(rest[1] - wanted).max() < 0.2 * np.abs(rest[0] - wanted).max()


# ----------------------------------------------------------------------------------------------------- mixed precision


def test_the_layer_that_hurts_most_comes_first(ready):
    """One weight, for a channel that is always 0, is so large that one scale for all leaves nothing of the others."""
    model = ready()
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor).copy()
        if tensor.name == "w3":
            values[0, 0] = 4000.0
        if tensor.name == "b2":
            values[0] = -1000.0
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    judge = Judge(model, Stored(samples()))
    ranked = sensitivities(model, ranges_of(model), Quantization(per_channel=False), judge)
    assert ranked[0].node == "three"
    assert [one.fidelity.sqnr_db for one in ranked] == sorted(one.fidelity.sqnr_db for one in ranked)


@pytest.mark.parametrize("needed", [1, 2, 3, 5, 8, 9])
def test_fewest_finds_the_least_number(needed):
    names, tried = [f"n{number}" for number in range(10)], []

    def build(chosen):
        tried.append(len(chosen))
        return len(chosen)

    found = fewest(names, build, lambda count: Fidelity(1.0 if count >= needed else 0.0, 0.0), 0.01)
    assert found is not None
    assert found[0] == names[:needed]
    assert len(tried) <= 8


def test_when_nothing_but_float_will_do_there_is_no_mixture():
    assert fewest(["a", "b", "c"], list, lambda _: Fidelity(0.0, 0.0), 0.01) is None


def test_a_search_shows_what_each_step_bought(tmp_path):
    onnx.save(network(spread=3.0, seed=1), tmp_path / "n.onnx")
    wishes = Wishes(judged_on=Stored(samples(200, seed=9)), allowed=0.0)
    outcome = quantized(
        tmp_path / "n.onnx",
        tmp_path / "n.int8.onnx",
        samples(),
        quantization=Quantization(),
        recipe=MINMAX,
        metadata={},
        wishes=wishes,
    )
    steps = outcome.record["steps"]
    assert [step["name"] for step in steps] == [
        *["calibration minmax", "cross-layer equalization of activations", "bias correction", "mixed precision"]
    ]
    ranked = outcome.record["sensitivity"]
    assert {one["node"] for one in ranked} >= {"one", "two", "three", "dense"}
    assert steps[-1]["float_nodes"] > 0
    kept = [step for step in steps if step["kept"]]
    assert [step["agreement"] for step in kept] == sorted(step["agreement"] for step in kept)
    assert outcome.record["fidelity"]["agreement"] == kept[-1]["agreement"]
    assert kept[-1]["sqnr_db"] > steps[0]["sqnr_db"] + 3
    fresh = samples(64, seed=11)
    expected, got = (logits(tmp_path / name, fresh) for name in ("n.onnx", "n.int8.onnx"))
    noise = 10 * np.log10(np.square(expected).sum() / np.square(expected - got).sum())
    assert noise == pytest.approx(kept[-1]["sqnr_db"], abs=3)


def test_a_cache_holds_ranges_of_the_model_and_not_of_the_equalized_one(tmp_path):
    onnx.save(network(spread=3.0, seed=1), tmp_path / "n.onnx")
    wishes = Wishes(judged_on=Stored(samples(100, seed=9)), allowed=0.0, cache=tmp_path / "cache.json")
    made = []
    for name in ("first.onnx", "second.onnx"):
        options = {"quantization": Quantization(), "recipe": MINMAX, "metadata": {}, "wishes": wishes}
        made.append(quantized(tmp_path / "n.onnx", tmp_path / name, samples(), **options))
    assert any(step["kept"] for step in made[0].record["steps"][1:])
    assert made[1].record["steps"] == made[0].record["steps"]
    assert (tmp_path / "first.onnx").read_bytes() == (tmp_path / "second.onnx").read_bytes()


def test_nothing_more_is_tried_than_is_needed(tmp_path):
    onnx.save(network(), tmp_path / "n.onnx")
    wishes = Wishes(judged_on=Stored(samples(50, seed=9)), allowed=0.5)
    outcome = quantized(
        tmp_path / "n.onnx",
        tmp_path / "o.onnx",
        samples(),
        quantization=Quantization(),
        recipe=MINMAX,
        metadata={},
        wishes=wishes,
    )
    assert [step["name"] for step in outcome.record["steps"]] == ["calibration minmax"]
    assert outcome.record["sensitivity"] == []
