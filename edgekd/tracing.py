"""A torch module to an ONNX model: traced, simplified, and checked against torch in ONNX Runtime.

The only torch code that `edgekd.export` needs, imported by it only when a float model has to be written. It does not
quantize, and it writes no file.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from torch import Tensor, nn

from edgekd import __version__, onnx_file
from edgekd.codes import vocabulary
from edgekd.devices import ModelLimits
from edgekd.errors import EdgekdError
from edgekd.inference import agreement, by_class, fed, fed_shape, in_parts, open_session, typed
from edgekd.quiet import quiet
from edgekd.run_folder import atomic, scratch
from edgekd.tasks import Task

SIMPLIFIER = (sys.executable, "-m", "onnxsim")
"""Command that takes an ONNX file and writes a simpler one. A process of its own, because it can crash and hang."""
SIMPLIFIER_SECONDS = 120.0
_TOLERANCE = 1e-3  # largest difference, as a share of the largest number torch answers
_LEAST_AGREEMENT = 0.999


@dataclass(frozen=True)
class Port:
    """The one input and the outputs of a model to be written.

    Attributes:
        entry, leaving: their names.
        shape: of one example as torch takes it.
        layout: NHWC where the file takes `[N, H, W, C]` and torch takes `[N, C, H, W]`; answers per pixel likewise.
        task: how the output is read, if it is logits: what they choose must not change either.
        beside: names of further outputs of the same shape.
        dtype: of the input, as the file takes it.
        finest: smallest difference of answers that anybody sees: of images half a step between grey levels.
    """

    entry: str
    leaving: str
    shape: tuple[int, ...]
    layout: str = "NCHW"
    task: Task | None = None
    beside: tuple[str, ...] = ()
    dtype: str = "float32"
    finest: float = 0.0


def of_student(
    teacher: Mapping[str, Any], leaving: str, task: Task | None = None, beside: tuple[str, ...] = ()
) -> Port:
    """The input and outputs of what takes what a teacher takes: images as float32, token ids in the teacher's type.

    Args:
        teacher: what a run's record tells of it.
        leaving, task, beside: see `Port`.
    """
    shape = (teacher["channels"], teacher["height"], teacher["width"])
    dtype = "float32" if vocabulary(teacher["layout"], teacher["high"]) is None else teacher["dtype"]
    return Port(teacher["input_name"], leaving, shape, teacher["layout"], task, beside, dtype)


@dataclass(frozen=True)
class Traced:
    """A model as it may be written.

    Attributes:
        model: without notes.
        simplifier: `onnxsim` and its version, or None when it went unsimplified.
        check: `images`, `max_abs`, `scale` and, for logits, `agreement`: ONNX Runtime against torch.
        warning: what the user should know, or "".
    """

    model: ModelProto
    simplifier: str | None
    check: dict[str, Any]
    warning: str

    def write(self, path: Path, notes: Mapping[str, str]) -> None:
        """Write the file with its notes, atomically; equal models and notes give equal bytes."""
        onnx_file.set_metadata(self.model, dict(notes))
        with atomic(path) as file:
            file.write(self.model.SerializeToString(deterministic=True))


class _ChannelsLast(nn.Module):
    """Takes, and if it is of pixels answers, `[N, H, W, C]` for a network that has `[N, C, H, W]`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        out: Tensor | tuple[Tensor, ...] = self.network(images.permute(0, 3, 1, 2))
        return out.permute(0, 2, 3, 1) if isinstance(out, Tensor) and out.dim() == 4 else out


def trace(network: nn.Module, port: Port, limits: ModelLimits, examples: NDArray[np.float32]) -> Traced:
    """Export a network in evaluation mode, within a target's limits, and prove the result on examples.

    Args:
        network: takes one tensor and returns one, or as many as the port has outputs.
        port: names and shapes.
        limits: opset and highest IR version of the target.
        examples: float32 `[N, *port.shape]` to compare ONNX Runtime with torch on.

    Raises:
        EdgekdError: the exporter failed, or its result is above the opset, or answers otherwise than torch does.
    """
    network = network.eval()
    model = _exported(_ChannelsLast(network) if port.layout == "NHWC" else network, port, limits)
    simpler, warning = simplified(model)
    expected = answers(network, examples)
    shown = fed(examples, port.layout)
    if simpler is not None:
        _finish(simpler, limits)
        try:
            check = compared(simpler, port, shown, expected)
            return Traced(simpler, f"onnxsim {importlib.metadata.version('onnxsim')}", check, "")
        except EdgekdError as error:
            warning = f"went on unsimplified, what onnxsim wrote is wrong ({error})"
    return Traced(model, None, compared(model, port, shown, expected), f"{port.leaving} model: {warning}")


def _exported(network: nn.Module, port: Port, limits: ModelLimits) -> ModelProto:
    shape = fed_shape(port.shape, port.layout)
    try:
        with quiet(), torch.no_grad():
            program = torch.onnx.export(
                network,
                (torch.zeros(2, *shape, dtype=getattr(torch, port.dtype)),),  # a batch of one would be a constant
                dynamo=True,
                opset_version=limits.opset,
                input_names=[port.entry],
                output_names=[port.leaving, *port.beside],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                external_data=False,
                verbose=False,
            )
    except Exception as error:
        raise EdgekdError(
            f"torch cannot export it: {onnx_file.first_line(error)}", where=f"{port.leaving} model"
        ) from error
    assert program is not None
    model: ModelProto = program.model_proto
    _finish(model, limits)
    if onnx_file.opset(model) > limits.opset:
        what = f"torch exports it with opset {onnx_file.opset(model)}, the target takes {limits.opset}"
        raise EdgekdError(what, where=f"{port.leaving} model", hint="choose a target with a higher opset")
    return model


def _finish(model: ModelProto, limits: ModelLimits) -> None:
    _pool_globally(model)
    onnx_file.tidy(model)
    model.ir_version = min(model.ir_version, limits.ir_version)
    model.producer_name, model.producer_version = "edgekd", __version__


def _pool_globally(model: ModelProto) -> None:
    """Write a mean over height and width as GlobalAveragePool, in place.

    The exporter writes ReduceMean for torch's adaptive pooling to 1x1, and only the pooling has an INT8 kernel: with it
    a small ResNet is 2 % faster and its INT8 graph has no float island.
    """
    axes = {
        name: sorted(onnx.numpy_helper.to_array(t).ravel().tolist()) for name, t in onnx_file.constants(model).items()
    }
    ranks = {
        v.name: len(onnx_file.dimensions(v) or ()) for v in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    for node in model.graph.node:
        means = node.op_type == "ReduceMean" and len(node.input) == 2 and onnx_file.attribute(node, "keepdims", 1) == 1
        if means and ranks.get(node.input[0]) == 4 and axes.get(node.input[1]) in ([-2, -1], [2, 3]):
            node.op_type = "GlobalAveragePool"
            del node.input[1:], node.attribute[:]
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def simplified(model: ModelProto) -> tuple[ModelProto | None, str]:
    """What onnxsim makes of a model, or None and the reason why not."""
    with scratch() as folder:
        before, after = folder / "before.onnx", folder / "after.onnx"
        onnx.save(model, before)
        command = [*SIMPLIFIER, str(before), str(after)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SIMPLIFIER_SECONDS, check=False)  # noqa: S603
            if done.returncode == 0:
                return onnx_file.load(after), ""
            said = (done.stderr.strip().splitlines() or [""])[-1]
            reason = f"onnxsim ended with {done.returncode}{': ' + said if said else ''}"
        except subprocess.TimeoutExpired:
            reason = f"onnxsim did not end within {SIMPLIFIER_SECONDS:.0f} s"
        except (OSError, EdgekdError) as error:
            reason = f"onnxsim: {error}"
    return None, f"went on unsimplified, {reason}"


@torch.no_grad()
def answers(network: nn.Module, examples: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a network says to float32 `[N, ...]`, in batches and without gradients; several outputs side by side."""
    found = [network(torch.from_numpy(part)) for part in in_parts(examples)]
    return torch.cat([one if isinstance(one, Tensor) else torch.cat(one, dim=1) for one in found]).numpy()


def compared(
    model: ModelProto, port: Port, shown: NDArray[np.float32], expected: NDArray[np.float32]
) -> dict[str, Any]:
    """ONNX Runtime's answers of a model next to torch's.

    Raises:
        EdgekdError: they differ by more than rounding, or choose other classes.
    """
    with scratch() as folder:
        path = folder / "model.onnx"
        onnx.save(model, path)
        session = open_session(path)
        outputs = [port.leaving, *port.beside]
        parts = (session.run(outputs, {port.entry: typed(part, port.dtype)}) for part in in_parts(shown))
        answered = np.concatenate([np.concatenate(part, axis=1) if port.beside else part[0] for part in parts])
    found = by_class(answered, port.layout)
    scale, worst = float(np.abs(expected).max()), float(np.abs(found - expected).max())
    check: dict[str, Any] = {"examples": len(shown), "max_abs": worst, "scale": scale}
    if port.task is not None:
        columns = found.shape[1] // len(outputs)
        check["agreement"] = agreement(found[:, :columns], expected[:, :columns], port.task)
    most = max(_TOLERANCE * scale, port.finest)
    if not worst <= most or check.get("agreement", 1.0) < _LEAST_AGREEMENT:
        told = ", ".join(f"{key} {value:.4g}" for key, value in check.items())
        allowed = f"max_abs up to {most:.4g}, agreement from {_LEAST_AGREEMENT}"
        raise EdgekdError(f"ONNX Runtime and torch differ ({told})", where=f"{port.leaving} model", allowed=allowed)
    return check
