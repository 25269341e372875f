"""Quantization-aware distillation: what is trained is what is written, and it brings answers back."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from distilled_run import distilled
from onnx import TensorProto, helper, numpy_helper

from edgekd import onnx_file
from edgekd.codes import from_codes
from edgekd.devices import Quantization, load_recipe, load_target
from edgekd.errors import BadModel, CannotLoad
from edgekd.export import export
from edgekd.finetuning import Examples, fine_tuned, trainable
from edgekd.inference import fed, logits
from edgekd.quantize import Stored, Terms
from edgekd.quantize.insertion import inserted, quantizable
from edgekd.quantize.judging import Fidelity, Judge
from edgekd.quantize.observation import observe, runs
from edgekd.quantize.preparation import prepared
from edgekd.quantize.ranges import tensor_ranges
from edgekd.quantize.search import Search, Tuning
from edgekd.quantize.sensitivity import Sensitivity
from edgekd.run_folder import RunFolder

MINMAX, TARGET = load_recipe("minmax"), load_target("cpu")
LOW, HIGH = -3.0, 3.0


def uneven(*, dense="Gemm", layout="NCHW", bias=True, spread=3.0, seed=1):
    """A network whose channels differ up to `exp(2 spread)` fold, behind HardSwish, which lets no scale move across.

    Its logits vary alike and about zero, so that all classes are chosen.
    """
    rng = np.random.default_rng(seed)
    scale = np.exp(rng.uniform(-spread, spread, 8)).astype(np.float32)
    fixed = {
        "w1": rng.normal(size=(8, 3, 1, 1)) * scale[:, None, None, None],
        "b1": rng.normal(size=8) * scale,
        "w2": rng.normal(size=(8, 1, 3, 3)) / scale[:, None, None, None],
        "b2": rng.normal(size=8),
        "w3": rng.normal(size=(6, 8, 1, 1)),
        "b3": rng.normal(size=6),
        "w4": rng.normal(size=(4, 6) if dense == "Gemm" else (6, 4)),
        "b4": np.zeros(4),
    }
    ends = {"Gemm": ["f", "w4", "b4"], "MatMul": ["f", "w4"]}[dense]
    image, dims = ("x", ["N", 6, 6, 3]) if layout == "NHWC" else ("image", ["N", 3, 6, 6])
    nodes = [
        *([helper.make_node("Transpose", ["image"], ["x"], "move", perm=[0, 3, 1, 2])] if layout == "NHWC" else []),
        helper.make_node("Conv", [image, "w1", *(["b1"] if bias else [])], ["c1"], "one"),
        helper.make_node("HardSwish", ["c1"], ["r1"], "act1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], "two", group=8, pads=[1, 1, 1, 1]),
        helper.make_node("HardSwish", ["c2"], ["r2"], "act2"),
        helper.make_node("Conv", ["r2", "w3", "b3"], ["c3"], "three"),
        helper.make_node("HardSwish", ["c3"], ["r3"], "act3"),
        helper.make_node("GlobalAveragePool", ["r3"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flat"),
        helper.make_node(dense, ends, ["logits"], "dense", **({"transB": 1} if dense == "Gemm" else {})),
    ]
    used = {name for node in nodes for name in node.input}
    tensors = [numpy_helper.from_array(np.asarray(v, np.float32), k) for k, v in fixed.items() if k in used]
    entry = helper.make_tensor_value_info("image", TensorProto.FLOAT, dims)
    leaving = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 4])
    graph = helper.make_graph(nodes, "g", [entry], [leaving], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return _centred(model, layout) if dense == "Gemm" else model


def _centred(model, layout):
    found = answers(model, from_codes(codes(512), LOW, HIGH), layout)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.name == "w4":
            tensor.CopyFrom(numpy_helper.from_array(values / found.std(axis=0)[:, None], "w4"))
        if tensor.name == "b4":
            tensor.CopyFrom(numpy_helper.from_array((values - found.mean(axis=0)) / found.std(axis=0), "b4"))
    return model


def literally(model, images):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"image": images})[0]


def codes(count, seed=5):
    return np.random.default_rng(seed).integers(0, 256, (count, 3, 6, 6)).astype(np.uint8)


def answers(model, images, layout="NCHW"):
    return np.concatenate([v["logits"] for v in runs(model, Stored(fed(images, layout)), ["logits"])])


def examples_of(model, layout="NCHW", count=1024):
    own = answers(model, from_codes(codes(count), LOW, HIGH), layout)
    return Examples(codes(count), (own,), LOW, HIGH, "classes", layout, 1.0)


def quantizer(source, flavour=Quantization(), in_float=()):  # noqa: B008 - frozen
    def quantize(model):
        ranges = tensor_ranges(observe(model, source, quantizable(flavour), 2048), MINMAX, levels=256)
        return inserted(model, ranges, flavour, in_float=in_float)

    return quantize


# ------------------------------------------------------------------------------------------- what is trained


@pytest.mark.parametrize(
    ("network", "flavour", "in_float"),
    [
        ({}, {}, ()),
        ({}, {"per_channel": False}, ()),
        ({}, {"activation": "int8", "activation_symmetric": True, "quantize_bias": False}, ()),
        ({"dense": "MatMul", "bias": False}, {"reduce_range": True}, ()),
        ({"layout": "NHWC"}, {"dedicated_pairs": True}, ()),
        ({}, {}, ("two", "dense")),
    ],
    ids=["channels", "tensor", "symmetric", "matmul", "nhwc", "mixed"],
)
def test_what_is_trained_answers_as_the_file_does(network, flavour, in_float, tmp_path):
    """ONNX Runtime's answers to the INT8 file are the truth; every weight that is handed in gets a gradient.

    It runs the file node by node: what it makes of the whole rounds less often.
    """
    layout = network.get("layout", "NCHW")
    model = prepared(uneven(spread=1.0, **network), tmp_path / "n.onnx")
    images = fed(from_codes(codes(32, seed=7), LOW, HIGH), layout)
    quantized = quantizer(Stored(images), Quantization(**flavour), in_float)(model)
    floats = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    wanted = [node.input[place] for node in model.graph.node for place in (1, 2) if place < len(node.input)]
    module, names = trainable(quantized, model, [name for name in wanted if name in floats])
    assert sorted(names) == sorted(floats)
    weights = [torch.tensor(floats[name], requires_grad=True) for name in names]
    (found,) = module(torch.from_numpy(images), *weights)
    expected = literally(quantized, images)
    off = np.abs(found.detach().numpy() - expected).max(axis=1) / np.abs(expected).max()
    assert (off < 1e-5).mean() > 0.8  # to the last digit; a value that lies between two steps may round otherwise
    assert off.max() < 0.05
    found.square().sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in weights)


def test_what_is_given_back_is_trained_and_the_original_is_not(tmp_path):
    model = prepared(uneven(), tmp_path / "n.onnx")
    before = model.SerializeToString()
    examples = examples_of(model, count=256)
    quantize = quantizer(Stored(from_codes(examples.codes[:64], LOW, HIGH)))
    made = [fine_tuned(model, quantize, examples, 6, seed).SerializeToString() for seed in (0, 0, 1)]
    assert model.SerializeToString() == before
    assert made[0] == made[1]
    assert made[0] != made[2]
    tuned = onnx.load_from_string(made[0])
    old, new = ({t.name: numpy_helper.to_array(t) for t in m.graph.initializer} for m in (model, tuned))
    assert all(not np.array_equal(old[name], new[name]) for name in ("w1", "b1", "w2", "b2", "w3", "b3", "w4", "b4"))
    assert list(model.graph.node) == list(tuned.graph.node)


# ------------------------------------------------------------------------------------------- as a last resort


def search(model, tuning, seed=6):
    source = Stored(from_codes(codes(128), LOW, HIGH))
    return Search(model, source, Quantization(), Judge(model, Stored(from_codes(codes(600, seed), LOW, HIGH))), tuning)


def test_it_raises_the_agreement_of_a_student_that_int8_breaks(tmp_path):
    """Nothing else can: no scale moves across HardSwish, and nothing may stay in float."""
    model = prepared(uneven(), tmp_path / "n.onnx")
    examples = examples_of(model)
    tuning = Tuning(lambda base, quantize: fine_tuned(base, quantize, examples, 160, 0), True, {})
    looked = search(model, tuning)
    best = looked.run([MINMAX], 1.0, None)  # no drop is too large, so that nothing else is tried
    assert [step.name for step in looked.steps] == ["calibration minmax", "quantization-aware distillation"]
    naive, tuned = looked.steps
    assert naive.agreement < 0.9
    assert tuned.kept
    assert tuned.agreement > naive.agreement + 0.02
    assert tuned.sqnr_db > naive.sqnr_db + 1
    assert best.tuned
    assert best.fidelity.agreement == tuned.agreement


def counted(asked, result=lambda model: model):
    calls = []

    def tuned(model, quantize):
        calls.append(quantize(model))
        return result(model)

    return Tuning(tuned, asked, {"steps": 1}), calls


def test_it_is_tried_where_it_is_asked_for_or_all_else_fails(tmp_path):
    model = prepared(uneven(), tmp_path / "n.onnx")
    for asked, allowed, times in ((False, 1.0, 0), (True, 1.0, 1), (False, 0.0, 1)):
        tuning, calls = counted(asked)
        looked = search(model, tuning)
        looked.run([MINMAX], allowed, None)
        assert len(calls) == times, (asked, allowed)
        assert any(step.name == "quantization-aware distillation" for step in looked.steps) == bool(times)


def test_where_it_cannot_be_done_the_export_goes_on_unless_it_was_asked_for(tmp_path):
    model = prepared(uneven(), tmp_path / "n.onnx")

    def failing(*_):
        raise BadModel("unsupported operators: Odd")

    looked = search(model, Tuning(failing, False, {}))
    assert not looked.run([MINMAX], 0.0, None).tuned
    assert looked.warnings == ["quantization-aware distillation was left out: unsupported operators: Odd"]
    with pytest.raises(BadModel):
        search(model, Tuning(failing, True, {})).run([MINMAX], 0.0, None)


class Scripted:
    """A judge that says what it is told to, one after the other."""

    def __init__(self, *agreements):
        self.left = [Fidelity(one, 10.0) for one in agreements]

    def __call__(self, _):
        return self.left.pop(0)


@pytest.mark.parametrize(
    ("in_float", "tuned", "tried", "taken"),
    [(5, 0.985, True, True), (5, 0.97, True, False), (5, 0.995, True, True), (2, 0.985, False, False)],
    ids=["will do", "will not do", "better", "few in float"],
)
def test_it_replaces_a_mixture_that_is_mostly_float_if_it_will_do(tmp_path, monkeypatch, in_float, tuned, tried, taken):
    model = prepared(uneven(), tmp_path / "n.onnx")
    names = ["one", "two", "three", "pool", "flat", "dense"]
    ranked = [Sensitivity(name, "", Fidelity(None, 0.0)) for name in names]
    monkeypatch.setattr("edgekd.quantize.search.sensitivities", lambda *_: ranked)
    monkeypatch.setattr(
        "edgekd.quantize.search.fewest",
        lambda ranked, build, judge, _: (ranked[:in_float], build(ranked[:in_float]), judge(None)),
    )
    tuning, calls = counted(False)
    looked = search(model, tuning)
    looked.judge = Scripted(0.5, 0.5, 0.99, tuned)  # calibration, biases, mixture
    best = looked.run([MINMAX], 0.02, None)
    assert (len(calls) == 1, best.tuned, best.in_float) == (tried, taken, () if taken else tuple(names[:in_float]))


# ------------------------------------------------------------------------------------------- of a run


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    run = distilled(tmp_path_factory.mktemp("tuning") / "run")
    export(run, int8=False, target=TARGET, recipe=MINMAX)
    return run


@pytest.fixture
def run(original, tmp_path):
    shutil.copytree(original.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def with_banks(run, answer):
    """A checkpoint as training leaves it, as far as banks go."""
    held = run.held_out()
    images = torch.from_numpy(held.codes)
    targets = torch.from_numpy(answer(held.images()))
    halves = {"bank": slice(0, 40), "prior": slice(40, None)}
    parts = {name: {"codes": images[part], "targets": targets[part]} for name, part in halves.items()}
    torch.save({"parts": parts}, run.checkpoint_file)


def tuned_export(run, steps=8):
    return export(run, int8=True, target=TARGET, recipe=MINMAX, samples=64, terms=Terms(qat=steps, force=True))


def test_what_it_bought_is_told_and_equal_runs_give_equal_bytes(run, tmp_path):
    with_banks(run, lambda images: 3 * logits(run.student_onnx, images))
    shutil.copytree(run.path, tmp_path / "again")
    record, again = tuned_export(run), tuned_export(RunFolder(tmp_path / "again"))
    assert record["files"]["student_int8"]["sha256"] == again["files"]["student_int8"]["sha256"]
    step = record["quantization"]["steps"][-1]
    assert step["name"] == "quantization-aware distillation"
    assert step["agreement"] is not None
    told = record["quantization"]["quantization_aware"]
    notes = onnx_file.metadata(onnx_file.load(run.student_int8_onnx))
    if step["kept"]:
        assert told == {"steps": 8, "examples": 64, "taught_by": ["float student", "teacher"]}
        assert json.loads(notes["edgekd.quantization_aware"]) == told
    else:
        assert told is None
        assert "edgekd.quantization_aware" not in notes


@pytest.mark.parametrize("checkpoint", [None, b"damaged"])
def test_without_a_checkpoint_the_student_teaches_itself(run, checkpoint, monkeypatch):
    if checkpoint is not None:
        run.checkpoint_file.write_bytes(checkpoint)
    seen = []
    monkeypatch.setattr("edgekd.finetuning.TAUGHT", 96)
    monkeypatch.setattr("edgekd.finetuning.fine_tuned", lambda model, _, examples, *__: seen.append(examples) or model)
    tuned_export(run)
    (examples,) = seen
    assert len(examples.codes) == 96
    assert examples.codes.std() > 0
    images = from_codes(examples.codes, 0.0, 1.0)
    np.testing.assert_allclose(examples.answers[0], logits(run.student_onnx, images), atol=1e-4)
    assert len(examples.answers) == 1


def test_the_teachers_answers_are_those_of_the_banks(run, monkeypatch):
    with_banks(run, lambda images: np.arange(len(images) * 4, dtype=np.float32).reshape(-1, 4))
    seen = []
    monkeypatch.setattr("edgekd.finetuning.fine_tuned", lambda model, _, examples, *__: seen.append(examples) or model)
    tuned_export(run)
    held, (examples,) = run.held_out(), seen
    order = (examples.answers[1][:, 0] / 4).astype(int)
    assert sorted(order) == list(range(64))
    np.testing.assert_array_equal(examples.codes, held.codes[order])


def test_what_would_take_long_is_done_only_when_asked_for(run, monkeypatch):
    monkeypatch.setattr("edgekd.quantize.judging.agreement", lambda *_: 0.5)  # all else fails
    monkeypatch.setattr("edgekd.finetuning.UNASKED", 1e6)
    record = export(run, int8=True, target=TARGET, recipe=MINMAX, samples=64, terms=Terms())
    assert record["warnings"][0].startswith("quantization-aware distillation was left out: 600 steps are ")
    assert record["warnings"][0].endswith("; ask for it: --qat 600")
    monkeypatch.setattr("edgekd.finetuning.fine_tuned", lambda model, *_: model)
    assert tuned_export(run)["quantization"]["steps"][-1]["name"] == "quantization-aware distillation"


@pytest.mark.slow
def test_a_checkpoint_of_a_real_run_holds_the_teachers_answers(call, teacher_file, monkeypatch):
    sizes = ("bank=64", "prior=32", "generator_batch=32", "student_batch=32", "latent=8", "generator_width=4")
    options = [part for size in sizes for part in ("--set", size)]
    assert call("distill", teacher_file, "--steps", "3", "--threads", "1", "--out", "run", *options).code == 0
    seen = []
    monkeypatch.setattr("edgekd.finetuning.fine_tuned", lambda model, _, examples, *__: seen.append(examples) or model)
    assert call("export", "run", "--int8", "--qat", "1", "--force", "--no-measure").code == 0
    (examples,) = seen
    theirs = logits(teacher_file, from_codes(examples.codes, 0.0, 1.0))
    np.testing.assert_allclose(examples.answers[1], theirs, atol=0.02 * np.abs(theirs).max())


def test_it_is_left_out_where_it_is_forbidden_or_torch_is_not_there(run, monkeypatch):
    monkeypatch.setattr("edgekd.quantize.judging.agreement", lambda *_: 0.5)  # all else fails
    never = export(run, int8=True, target=TARGET, recipe=MINMAX, samples=64, terms=Terms(qat=0))
    monkeypatch.setattr("edgekd.extras.find_spec", lambda _: None)
    absent = export(run, int8=True, target=TARGET, recipe=MINMAX, samples=64, terms=Terms())
    for record in (never, absent):
        assert "quantization-aware distillation" not in [step["name"] for step in record["quantization"]["steps"]]
    with pytest.raises(CannotLoad, match="quantization-aware distillation needs"):
        tuned_export(run)


def test_a_model_of_no_run_cannot_be_taught(call, make_classifier):
    told = call("export", make_classifier("m.onnx"), "--int8", "--samples", "none.npz", "--qat", "10")
    assert told.code == 2
    assert "a MODEL has no teacher to learn from" in told.err
