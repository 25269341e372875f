"""Attention, RotaryEmbedding and the cache update they come with."""

from __future__ import annotations

# mypy: no-warn-return-any
# (what emit returns is up to torch)
import math
import operator as python
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from edgekd.onnx_import.node import NodeView
from edgekd.onnx_import.registry import operator
from edgekd.onnx_import.tensors import dtype_of
from edgekd.onnx_import.values import Unconvertible, Value


@dataclass(frozen=True)
class Rules:
    """Attributes of Attention. `scale` None means 1 / sqrt(head size); a window of -1 is unbounded."""

    scale: float | None
    causal: bool
    softcap: float
    left: int
    right: int
    shown: int
    precision: torch.dtype | None


@operator("Attention", since=23)
def attention(node: NodeView) -> tuple[Value | None, ...]:
    """Scaled dot-product attention over heads, by torch's fused kernel where nothing unusual is asked."""
    q, k, v = (_heads(node, i, "kv_num_heads" if i else "q_num_heads") for i in range(3))
    _check_heads(node, q, k, v)
    optional = [None if node.optional(i) is None else node.tensor(i) for i in range(3, 7)]
    mask, past_key, past_value, lengths = optional
    if past_key is not None and past_value is not None:
        k, v = node.emit(torch.cat, (past_key, k), 2), node.emit(torch.cat, (past_value, v), 2)
    rules = _rules(node)
    wants_scores = len(node.output_names) > 3 and bool(node.output_names[3])
    plain = not (rules.causal or rules.softcap or lengths is not None or wants_scores or rules.precision)
    if plain and max(rules.left, rules.right) < 0 and _fits(node, mask, k):
        grouped = node.shape(q)[1] != node.shape(k)[1]
        y = node.emit(F.scaled_dot_product_attention, q, k, v, mask, 0.0, False, scale=rules.scale, enable_gqa=grouped)
        scores: Any = None
    else:
        settings = (rules.scale, rules.softcap, rules.causal, rules.left, rules.right, rules.shown, rules.precision)
        both = node.emit(explicit_attention, q, k, v, mask, past_key, lengths, settings)
        y, scores = (node.emit(python.getitem, both, i) for i in (0, 1))
    y = node.emit(merged_heads, y) if node.rank(node.value(0)) == 3 else y
    return y, k, v, scores


def _heads(node: NodeView, position: int, attribute: str) -> Any:
    """`[batch, heads, length, size]`, also from `[batch, length, heads * size]`."""
    x = node.tensor(position)
    if node.rank(x) == 4:
        return x
    count = node.integer(attribute, 0)
    if count < 1:
        raise Unconvertible(f"{attribute} is missing")
    return node.emit(split_heads, x, count)


def _check_heads(node: NodeView, *tensors: Value) -> None:
    """Refuse head counts that do not divide, or are 0: torch's kernel divides by them without looking."""
    q, k, v = (node.shape(x)[1] for x in tensors)
    known = isinstance(q, int) and isinstance(k, int) and k > 0 and k == v
    if not known or q == 0 or q % k:  # type: ignore[operator]
        raise Unconvertible("the heads of query, key and value do not fit together")


def split_heads(x: Tensor, count: int) -> Tensor:
    """`[batch, length, heads * size]` to `[batch, heads, length, size]`."""
    return torch.unflatten(x, -1, (count, -1)).transpose(1, 2)


def merged_heads(x: Tensor) -> Tensor:
    """`[batch, heads, length, size]` to `[batch, length, heads * size]`."""
    return x.transpose(1, 2).flatten(2)


def _rules(node: NodeView) -> Rules:
    precision = node.integer("softmax_precision", 0)
    return Rules(
        node.number("scale", 0.0) if node.has("scale") else None,
        bool(node.integer("is_causal", 0)),
        node.number("softcap", 0.0),
        node.integer("left_window_size", -1),
        node.integer("right_window_size", -1),
        node.integer("qk_matmul_output_mode", 0),
        dtype_of(precision) if precision else None,
    )


def _fits(node: NodeView, mask: Any, k: Any) -> bool:
    """Whether a mask is as long as the keys are and has no row that hides every key (unknown for booleans)."""
    if mask is None:
        return True
    own, keys = node.shape(mask)[-1:], node.shape(k)[2]
    return node.dtype(mask) != torch.bool and bool(own) and isinstance(own[0], int) and own[0] == keys


Settings = tuple[float | None, float, bool, int, int, int, torch.dtype | None]


def explicit_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    past: Tensor | None,
    lengths: Tensor | None,
    settings: Settings,
) -> tuple[Tensor, Tensor]:
    """Attention step by step, as the operator's definition has it: the result and the scores it is asked to show."""
    scale, softcap, causal, left, right, shown, precision = settings
    groups = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(groups, 1) if groups > 1 else x for x in (k, v))
    root = math.sqrt(1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    raw = (q * root) @ (k * root).transpose(-1, -2)
    capped = softcap * torch.tanh(raw / softcap) if softcap else raw
    allowed = _allowed(q, k, past, lengths, (causal, left, right))
    biased = capped
    if mask is not None:
        missing = k.shape[2] - mask.shape[-1]
        if mask.dtype == torch.bool:
            allowed = allowed & F.pad(mask, (0, missing), value=False)
        else:
            biased = capped + F.pad(mask, (0, missing), value=-math.inf)
    biased = biased.masked_fill(~allowed, -math.inf)
    hidden = torch.isneginf(biased).all(-1, keepdim=True)
    weights = torch.softmax(biased.to(precision or biased.dtype), -1).masked_fill(hidden, 0.0).to(q.dtype)
    return weights @ v, (raw, capped, biased, weights)[shown]


def _allowed(
    q: Tensor, k: Tensor, past: Tensor | None, lengths: Tensor | None, window: tuple[bool, int, int]
) -> Tensor:
    """Which keys each query may attend, by position alone: `[batch or 1, 1, queries, keys]`."""
    causal, left, right = window
    offset = torch.full((1,), 0 if past is None else past.shape[2], device=q.device)
    key = torch.arange(k.shape[2], device=q.device)
    allowed = torch.ones((1, 1, q.shape[2], k.shape[2]), dtype=torch.bool, device=q.device)
    if lengths is not None:
        offset = lengths - q.shape[2] if past is None else offset
        allowed = allowed & (key < lengths[:, None, None, None])
    place = (offset[:, None] + torch.arange(q.shape[2], device=q.device))[:, None, :, None]
    if causal:
        allowed = allowed & (key <= place)
    if left >= 0:
        allowed = allowed & (key >= place - left)
    if right >= 0:
        allowed = allowed & (key <= place + right)
    return allowed


@operator("RotaryEmbedding", since=23)
def rotary_embedding(node: NodeView) -> Value:
    """Pairs of features turned by an angle that grows with the position."""
    x = node.tensor(0)
    flat = node.rank(x) == 3
    x = _heads(node, 0, "num_heads") if flat else x
    places = None if node.optional(3) is None else node.tensor(3)
    pairs = bool(node.integer("interleaved", 0))
    args = (node.tensor(1), node.tensor(2), places, node.integer("rotary_embedding_dim", 0), pairs)
    turned = node.emit(rotated, x, *args)
    return node.emit(merged_heads, turned) if flat else turned


def rotated(x: Tensor, cos: Tensor, sin: Tensor, places: Tensor | None, width: int, pairs: bool) -> Tensor:
    """Turn the first `width` features of `[batch, heads, length, size]` (all for 0)."""
    width = width or x.shape[-1]
    turning, rest = x[..., :width], x[..., width:]
    if places is not None:
        cos, sin = cos[places.long()], sin[places.long()]
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    if pairs:
        a, b = turning[..., 0::2], turning[..., 1::2]
        turned = torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)
    else:
        a, b = turning.chunk(2, -1)
        turned = torch.cat([a * cos - b * sin, a * sin + b * cos], -1)
    return torch.cat([turned, rest], -1)


@operator("TensorScatter", since=24)
def tensor_scatter(node: NodeView) -> Value:
    """A cache with new entries written at a position per sample."""
    cache, update = node.tensor(0), node.tensor(1)
    axis = node.axis(cache, node.integer("axis", -2))
    starts = None if node.optional(2) is None else node.tensor(2)
    return node.emit(cache_updated, cache, update, starts, axis, node.text("mode", "linear") == "circular")


def cache_updated(cache: Tensor, update: Tensor, starts: Tensor | None, axis: int, circular: bool) -> Tensor:
    """Write `update` into `cache` along `axis` from `starts` on, wrapping around if circular."""
    steps = torch.arange(update.shape[axis], device=cache.device)
    first = torch.zeros(cache.shape[0], dtype=torch.int64, device=cache.device) if starts is None else starts
    places = first[:, None] + steps
    places = places % cache.shape[axis] if circular else places
    shape = [1] * cache.ndim
    shape[0], shape[axis] = places.shape
    return cache.scatter(axis, places.reshape(shape).expand_as(update), update)
