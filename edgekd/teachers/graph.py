"""A teacher whose ONNX graph runs as a differentiable torch module.

It answers logits, features and the statistics of its layers, with exact gradients to the images. It never trains.
Token ids have no gradient: of those it answers logits and features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from onnx import numpy_helper
from torch import Tensor, nn

from edgekd.errors import BadModel
from edgekd.inference import fed_shape
from edgekd.onnx_file import constants, dimensions, load, real_inputs
from edgekd.onnx_import import import_onnx
from edgekd.teachers import Answer, Moments, Signal, Statistics
from edgekd.teachers.codes import rounded
from edgekd.teachers.normalized import LEAST_BALANCE, balance, shades
from edgekd.teachers.points import biases, channel_axes
from edgekd.teachers.spec import TeacherSpec, normalization_nodes


class GraphTeacher(nn.Module):
    """The `gradient` access level.

    Args:
        spec: what `read_spec` found in the file.

    Raises:
        BadModel: operators the importer does not know, all of them named; integer arithmetic on a uint8 image, through
            which no gradient passes; a batch that cannot be made free.
    """

    order: Sequence[int] | None

    def __init__(self, spec: TeacherSpec) -> None:
        super().__init__()
        self.spec, self.order = spec, None
        model = load(spec.path)
        self._ids = spec.vocabulary is not None
        nodes = [] if self._ids else normalization_nodes(model)  # what has no gradient is not held to statistics
        features = [spec.features_name] if spec.features_name else []
        points = [node.input[0] for node in nodes] or (() if self._ids else spec.folded_points)
        self._channels = [1] * len(nodes) or channel_axes(model, points)
        wanted = [spec.logits_name, *features, *points]
        sides = fed_shape((spec.channels, spec.height, spec.width), spec.layout)
        self._row = len(dimensions(real_inputs(model)[0]) or sides) == 2
        sides = (math.prod(sides),) if self._row else sides
        self.module = import_onnx(model, wanted, shape=(None, *sides), as_floats=spec.dtype == "uint8")
        if not self.module.meta["batch_free"]:
            what = f"its graph works for a batch of {spec.batch} only, and the batch could not be made free"
            raise BadModel(what, where=spec.path, hint="export it with a free batch dimension")
        self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs
        fixed = constants(model)
        for index, node in enumerate(nodes):
            for name, place in (("mean", 3), ("variance", 4)):
                value = numpy_helper.to_array(fixed[node.input[place]])
                self.register_buffer(f"running_{name}_{index}", torch.tensor(value, dtype=torch.float32))
        self.signals = frozenset({Signal.LABELS, Signal.SCORES})
        self.signals |= set() if self._ids else {Signal.GRADIENT}
        self.signals |= {Signal.FEATURES} if features else set()
        self.signals |= {Signal.STATISTICS} if nodes else set()
        if points and not nodes:
            self.signals |= {Signal.STATISTICS_PRIOR}
            with torch.no_grad():
                shown = self(shades((spec.channels, spec.height, spec.width), spec.low, spec.high))
            if balance(shown.folded, biases(model, points)) < LEAST_BALANCE:
                self.signals -= {Signal.STATISTICS_PRIOR}

    def forward(self, images: Tensor) -> Answer:
        """Answer images `[N, C, H, W]` in the value range of the spec; inputs of integers are shown whole numbers."""
        logits, *others = self.module(self._fed(images))
        features = self._features(others.pop(0)) if self.spec.features_name else None
        if not self.signals & {Signal.STATISTICS, Signal.STATISTICS_PRIOR}:
            return Answer(self.by_class(logits), features)
        by_channel = (tensor.movedim(axis, 1) for tensor, axis in zip(others, self._channels, strict=True))
        moments = tuple(Moments(*channel_moments(tensor)) for tensor in by_channel)
        if Signal.STATISTICS_PRIOR in self.signals:
            return Answer(self.by_class(logits), features, folded=moments)
        statistics = tuple(self._beside_running(index, layer) for index, layer in enumerate(moments))
        return Answer(self.by_class(logits), features, statistics)

    def inside(self, images: Tensor, names: Sequence[str]) -> list[Tensor]:
        """Tensors of the graph, as they are for images `[N, C, H, W]`; without gradients."""
        fed, floats = self._fed(images), self.spec.dtype == "uint8"
        shape = (None, *fed.shape[1:])
        with torch.no_grad():
            found: list[Tensor] = list(import_onnx(load(self.spec.path), names, shape=shape, as_floats=floats)(fed))
        return found

    def _fed(self, images: Tensor) -> Tensor:
        """Images as the graph takes them."""
        if self.spec.dtype == "uint8":
            images = rounded(images, self.spec.low, self.spec.high)
        images = images.round().to(getattr(torch, self.spec.dtype)) if self._ids else images
        fed = images.permute(0, 2, 3, 1) if self.spec.layout == "NHWC" else images
        return fed.flatten(1) if self._row else fed

    def _features(self, found: Tensor) -> Tensor:
        """`[N, F]`, or the map as it is where pixels are answered."""
        return found if self.spec.grid is not None and found.dim() == 4 else found.flatten(1)

    def by_class(self, logits: Tensor) -> Tensor:
        """float32 `[N, K]` or `[N, K, h, w]`, whichever axes the tensor in the graph has, classes in their order."""
        if self.spec.grid is None:
            logits = logits.float().flatten(1)
        elif self.spec.layout == "NHWC":
            logits = logits.float().reshape(-1, *self.spec.grid, self.spec.classes).permute(0, 3, 1, 2)
        else:
            logits = logits.float().reshape(-1, *self.spec.answer_shape)
        return logits if self.order is None else logits[:, list(self.order)]

    def _beside_running(self, index: int, layer: Moments) -> Statistics:
        mean, variance = (self.get_buffer(f"running_{name}_{index}") for name in ("mean", "variance"))
        return Statistics(layer.mean, layer.variance, mean, variance)


def channel_moments(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance per channel of `[N, C, ...]`, each `[C]` in float32 or better, with gradients.

    Ten times as fast on a CPU as `torch.var_mean`, which took a third of a generator step.
    """
    mean, variance = _ChannelMoments.apply(inputs)  # type: ignore[no-untyped-call]  # missing in torch's stubs
    return mean, variance


class _ChannelMoments(torch.autograd.Function):
    """The kernel of batch normalization computes both moments in one pass, whatever the memory format."""

    EPSILON = 1e-5
    """Keeps the inverse deviation of a constant channel finite; taken off again."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> tuple[Tensor, Tensor]:
        wide = torch.promote_types(inputs.dtype, torch.float32)
        ones = inputs.new_ones(inputs.shape[1], dtype=wide)
        kernel = torch.native_batch_norm
        _, mean, inverse = kernel(inputs, ones, ones, None, None, True, 0.0, _ChannelMoments.EPSILON)
        ctx.save_for_backward(inputs, mean)
        return mean, (inverse**-2 - _ChannelMoments.EPSILON).clamp_min(0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, mean_gradient: Tensor, variance_gradient: Tensor) -> Tensor:
        inputs, mean = ctx.saved_tensors
        slope = 2 * variance_gradient * (inputs.shape[1] / inputs.numel())
        offset = mean_gradient * (inputs.shape[1] / inputs.numel()) - slope * mean
        shape = [1, -1] + [1] * (inputs.dim() - 2)
        slope, offset = (value.to(inputs.dtype).view(shape) for value in (slope, offset))
        return torch.addcmul(offset, inputs, slope)
