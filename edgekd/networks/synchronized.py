"""Batch normalization over the whole batch where several processes share it; torch's SyncBatchNorm is for GPUs only.

It changes how modules compute, not what they hold: weights and their names stay. Of the layers that look across a batch
it knows batch normalization; where a user's own student draws random numbers (dropout), all shares get the same ones.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from edgekd.distributed import Ranks
from edgekd.teachers.graph import channel_moments

BatchNorm = nn.modules.batchnorm._BatchNorm  # what torch's batch normalizations have in common


def synchronize(network: nn.Module, ranks: Ranks) -> None:
    """Let every batch normalization of a network see the batches of all processes, as long as it trains."""
    for module in network.modules() if ranks.size > 1 else ():
        if isinstance(module, BatchNorm):
            module.forward = partial(_normalized, module, ranks)  # type: ignore[method-assign]


def _normalized(layer: BatchNorm, ranks: Ranks, inputs: Tensor) -> Tensor:
    """Inputs `[n, C, ...]`, an equal share of the batch, by the moments of the whole; computed in float32."""
    if not layer.training:
        return type(layer).forward(layer, inputs)
    mean, variance = ranks.moments(*channel_moments(inputs), 1 / ranks.size)
    _remember(layer, mean.detach(), variance.detach(), ranks.size * inputs.numel() // inputs.shape[1])
    shape = [1, -1] + [1] * (inputs.dim() - 2)
    scale = (variance + layer.eps).rsqrt() * (1.0 if layer.weight is None else layer.weight)
    out = (inputs.float() - mean.view(shape)) * scale.view(shape)
    return (out if layer.bias is None else out + layer.bias.view(shape)).to(inputs.dtype)


def _remember(layer: BatchNorm, mean: Tensor, variance: Tensor, count: int) -> None:
    """Move the running statistics as torch does, the variance unbiased: of `count` values per channel."""
    if layer.running_mean is None or layer.running_var is None or layer.num_batches_tracked is None:
        return
    layer.num_batches_tracked.add_(1)
    momentum = layer.momentum if layer.momentum is not None else 1 / float(layer.num_batches_tracked)
    layer.running_mean.lerp_(mean, momentum)
    layer.running_var.lerp_(variance * (count / (count - 1)), momentum)
