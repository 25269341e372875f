"""Quantization-aware distillation: teach a student while it is rounded as its INT8 file will round it.

The INT8 graph itself is what is trained, as torch: its QuantizeLinear and DequantizeLinear round weights and
activations by the very scales and zero points that were written, and pass the gradient straight through (Jacob et al.,
CVPR 2018, arXiv:1712.05877, section 3). Every quarter of the steps it is written anew, since weights move scales.

It does not choose: what comes out is quantized and judged by who asked for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor, fx

from edgekd.codes import from_codes as codes_to_images
from edgekd.errors import EdgekdError
from edgekd.inference import fed, logits
from edgekd.onnx_file import attribute, constants, macs
from edgekd.onnx_import import import_onnx
from edgekd.run_folder import RunFolder, task_of
from edgekd.synthesis import losses, questions
from edgekd.tasks import Task
from edgekd.teachers.codes import from_codes, to_codes

Floats = NDArray[np.float32]
Quantize = Callable[[ModelProto], ModelProto]
TAUGHT = 2**14
"""How many images are learned from, at most."""
BATCH, PART = 128, 1024
UNASKED = 1e13
"""Multiplications that are spent without being asked for; the demo's student takes a sixth of it."""
_ROUNDS = 4  # times the INT8 graph is written
_RATE = 2e-4  # a fortieth of a step of 8 bits in one update, at first: more, and weights wander farther than rounding
_CHANNELS = {"Conv": 0, "ConvTranspose": 1, "Gemm": 1, "MatMul": -1}
"""Axis of a weight's output channels, by operator; of a Gemm with transB it is 0."""


@dataclass(frozen=True)
class Examples:
    """What the student is taught on.

    Attributes:
        codes: uint8 `[N, C, H, W]`; 0 is `low`, 255 is `high`.
        answers: logits `[N, K]` or `[N, K, h, w]` to come close to, of as many models as there are; all count alike.
        low, high: the input range.
        task, layout: how answers are read, and the order of the file's axes.
        temperature: of the loss.
    """

    codes: NDArray[np.uint8]
    answers: tuple[Floats, ...]
    low: float
    high: float
    task: Task
    layout: str
    temperature: float


def examples_of(run: RunFolder, record: dict[str, Any], otherwise: Callable[[], Iterable[Floats]]) -> Examples:
    """What a run's student is taught while it is rounded: its own answers, which INT8 is judged by, and the teacher's.

    The images are those of the banks in the last checkpoint, with the answers that the teacher gave then: it is not
    asked again. Where the checkpoint is gone there are none of the teacher's, nor where several taught headers.

    Args:
        run: whose `student.onnx` is there.
        record: the contents of its run.json.
        otherwise: makes images where no bank has any.
    """
    teacher, settings = record["teacher"], record["settings"]
    low, high, layout = teacher["low"], teacher["high"], teacher["layout"]
    codes, targets = _remembered(run, settings["seed"]) or (_coded(otherwise(), low, high), np.empty(0, np.float32))
    parts = (fed(codes_to_images(part, low, high), layout) for part in np.array_split(codes, -(-len(codes) // PART)))
    own = np.concatenate([logits(run.student_onnx, part, layout=layout) for part in parts])
    answers = (own, targets) if targets.shape == own.shape else (own,)
    temperature = settings.get("recipe", {}).get("temperature", 1.0)
    return Examples(codes, answers, low, high, task_of(record), layout, temperature)


def _remembered(run: RunFolder, seed: int) -> tuple[NDArray[np.uint8], Floats] | None:
    """Images of a run's banks and what is kept of the teachers' answers, if there are any, in the banks' shares."""
    try:
        parts = torch.load(run.checkpoint_file, map_location="cpu", weights_only=True)["parts"]
        codes, targets = (torch.cat([parts[bank][kind] for bank in ("bank", "prior")]) for kind in ("codes", "targets"))
    except Exception:  # missing, or a damaged pickle, which may raise anything at all
        return None
    chosen = np.random.default_rng(seed).permutation(len(codes))[:TAUGHT]
    return (codes.numpy()[chosen], targets.numpy()[chosen]) if len(chosen) else None


def _coded(parts: Iterable[Floats], low: float, high: float) -> NDArray[np.uint8]:
    """Codes of images, part by part, of which the last stage of the generator may be off by rounding."""
    found: NDArray[np.uint8] = torch.cat([to_codes(torch.from_numpy(part), low, high) for part in parts]).numpy()
    return found


def check_work(model: ModelProto, steps: int) -> None:
    """Refuse what nobody asked for and would take long: more than some minutes on a core.

    Raises:
        EdgekdError: says how to ask for it.
    """
    work = 3 * (macs(model) or 0) * BATCH * steps  # forward, and twice that backward
    if work > UNASKED:
        what = f"{steps} steps are {work:.0e} multiplications, more than {UNASKED:.0e}"
        raise EdgekdError(what, hint=f"ask for it: --qat {steps}")


def fine_tuned(model: ModelProto, quantize: Quantize, examples: Examples, steps: int, seed: int) -> ModelProto:
    """A float model whose weights were trained so that its quantized version answers like the examples.

    Weights and biases are learned in units of the largest weight of their output channel, so that channels of any scale
    learn alike; one left in float learns too. Equal arguments give equal weights on one machine.

    Args:
        model: float, prepared for quantization; unchanged.
        quantize: makes of such a model the INT8 one whose nodes have the same names.
        examples: images and answers.
        steps: updates, of `BATCH` examples each.
        seed: of the order of examples.

    Raises:
        BadModel: the INT8 graph cannot be made a torch module.
    """
    units = _units(model, quantize(model))
    scaled = {name: torch.from_numpy(_values(model)[name] / unit).requires_grad_() for name, unit in units.items()}
    optimizer = torch.optim.Adam(scaled.values(), _RATE)
    rng = np.random.default_rng(seed)
    for done in range(steps):
        if done % -(-steps // _ROUNDS) == 0:
            network, names = trainable(quantize(_with(model, scaled, units)), model, list(scaled))
        for group in optimizer.param_groups:
            group["lr"] = _RATE * (1 + math.cos(math.pi * done / steps)) / 2
        chosen = rng.integers(0, len(examples.codes), BATCH)
        optimizer.zero_grad()
        loss = _loss(network, [scaled[name] * torch.from_numpy(units[name]) for name in names], examples, chosen)
        torch.autograd.backward([loss])
        optimizer.step()
    return _with(model, scaled, units)


def trainable(quantized: ModelProto, model: ModelProto, names: list[str]) -> tuple[fx.GraphModule, list[str]]:
    """A quantized model as a torch module that takes images and then float weights, which it rounds as the file's are.

    Args:
        quantized: what a quantizer made of `model`; its nodes have the same names.
        model: the float model.
        names: of the initializers of `model` that are handed in.

    Returns:
        The module, and in which order it takes those of the names that it takes.
    """
    whole = ModelProto()
    whole.CopyFrom(quantized)
    floats, source = {node.name: node for node in model.graph.node}, _producers(whole)
    rounding: list[NodeProto] = []
    for node in whole.graph.node:
        before = floats.get(node.name)
        for place, name in enumerate(before.input if before is not None else ()):
            if name in names and place < len(node.input):
                _hand_in(node, place, name, source, rounding)
    taken = [name for name in names if any(_given(name) in node.input for node in (*rounding, *whole.graph.node))]
    shapes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    entries = [helper.make_tensor_value_info(_given(name), TensorProto.FLOAT, shapes[name]) for name in taken]
    whole.graph.input.extend(entries)
    whole.graph.node.extend(rounding)
    return import_onnx(whole, [whole.graph.output[0].name]), taken


def _given(name: str) -> str:
    return f"given_{name}"


def _producers(model: ModelProto) -> dict[str, NodeProto]:
    return {name: node for node in model.graph.node for name in node.output}


def _hand_in(node: NodeProto, place: int, name: str, source: Mapping[str, NodeProto], added: list[NodeProto]) -> None:
    """Have a node read a float that is handed in, in place, through the rounding that it has in the file, if any."""
    reader = source.get(node.input[place])
    if reader is None or reader.op_type != "DequantizeLinear":
        node.input[place] = _given(name)
        return
    integers = f"{reader.output[0]}_of_given"
    if reader.input[0] != integers:  # else another node that reads the same weight was here
        step = helper.make_node("QuantizeLinear", [_given(name), *reader.input[1:]], [integers])
        step.attribute.extend(one for one in reader.attribute if one.name != "output_dtype")
        step.domain = reader.domain
        added.append(step)
        reader.input[0] = integers


def _loss(network: fx.GraphModule, weights: list[Tensor], examples: Examples, chosen: NDArray[np.int64]) -> Tensor:
    images = from_codes(torch.from_numpy(examples.codes[chosen]), examples.low, examples.high)
    (own,) = network(torch.from_numpy(fed(images.numpy(), examples.layout)), *weights)
    own = own.permute(0, 3, 1, 2) if own.dim() == 4 and examples.layout == "NHWC" else own
    rows = questions.rows(own, examples.task)
    wanted = [questions.rows(torch.from_numpy(one[chosen]), examples.task) for one in examples.answers]
    return torch.stack([losses.soft_labels(rows, one, examples.temperature) for one in wanted]).mean()


def _values(model: ModelProto) -> dict[str, Floats]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def _units(model: ModelProto, quantized: ModelProto) -> dict[str, Floats]:
    """What each weight and bias of a layer is measured in, shaped to broadcast over it.

    A bias in what all weights of its channel together make of an input of middling size.
    """
    values, found, fixed = _values(model), dict[str, Floats](), constants(model)
    ranges = _input_ranges(quantized)
    for node in model.graph.node:
        if node.op_type not in _CHANNELS or node.input[1] not in values or fixed[node.input[1]].data_type != 1:
            continue
        weight = values[node.input[1]]
        axis = 0 if node.op_type == "Gemm" and attribute(node, "transB", 0) else _CHANNELS[node.op_type] % weight.ndim
        others = tuple(other for other in range(weight.ndim) if other != axis)
        largest = np.abs(weight).max(axis=others, keepdims=True)
        found[node.input[1]] = unit = np.maximum(largest, largest.max() * 1e-3 + 1e-12).astype(np.float32)
        if len(node.input) > 2 and values.get(node.input[2], np.empty(0)).size == unit.size:
            together = math.sqrt(weight.size / unit.size) * ranges.get(node.name, 1.0) / 4
            found[node.input[2]] = (unit * np.float32(together)).reshape(values[node.input[2]].shape)
    return found


def _input_ranges(quantized: ModelProto) -> dict[str, float]:
    """How far the quantized input of each node reaches, by its name."""
    source, fixed = _producers(quantized), constants(quantized)
    found = {}
    for node in quantized.graph.node:
        reader = source.get(node.input[0]) if node.input else None
        if reader is not None and reader.op_type == "DequantizeLinear" and reader.input[1] in fixed:
            step = float(numpy_helper.to_array(fixed[reader.input[1]]).max())
            sixteen = len(reader.input) > 2 and "16" in str(numpy_helper.to_array(fixed[reader.input[2]]).dtype)
            found[node.name] = step * (2.0**16 if sixteen else 2.0**8)
    return found


def _with(model: ModelProto, scaled: Mapping[str, Tensor], units: Mapping[str, Floats]) -> ModelProto:
    """The model with these weights."""
    whole = ModelProto()
    whole.CopyFrom(model)
    for tensor in whole.graph.initializer:
        if tensor.name in scaled:
            values = scaled[tensor.name].detach().numpy() * units[tensor.name]
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))
    return whole
