"""LSTM, GRU and RNN: torch's own kernels where the definition agrees, a loop over the steps otherwise."""

from __future__ import annotations

# mypy: no-warn-return-any
# (what emit returns is up to torch)
import functools
import operator as python
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from edgekd.onnx_import.node import NodeView
from edgekd.onnx_import.registry import operator
from edgekd.onnx_import.values import Unconvertible, Value

_GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
"""torch's order of the gates, by their place in ONNX's: iofc to ifco, zrh to rzh."""
_USUAL = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}


@operator("LSTM", "GRU", "RNN", since=7)
def recurrent(node: NodeView) -> tuple[Value | None, ...]:
    """One layer, forward, reverse or both; without sequence lengths, clipping or coupled gates."""
    _check(node)
    direction = node.text("direction", "forward")
    directions = 2 if direction == "bidirectional" else 1
    x = node.tensor(0)
    if node.integer("layout", 0):
        x = node.emit(torch.transpose, x, 0, 1)
    runs = []
    for d in range(directions):
        backwards = direction == "reverse" or d == 1
        ordered = node.emit(torch.flip, x, (0,)) if backwards else x
        results = node.emit(_kernel(node), ordered, _states(node, d), _weights(node, d), *_extras(node, d))
        parts = [node.emit(python.getitem, results, i) for i in range(3)]
        parts[0] = node.emit(torch.flip, parts[0], (0,)) if backwards else parts[0]
        runs.append(parts)
    return _outputs(node, runs)


def _check(node: NodeView) -> None:
    refused = [name for name in ("clip", "input_forget") if node.number(name, 0.0) or node.integer(name, 0)]
    if refused:
        raise Unconvertible(f"{', '.join(refused)} is not supported")
    if node.optional(4) is not None and not _is_full(node):
        raise Unconvertible("sequence lengths are not supported")
    given = [name.lower() for name in node.texts("activations") or []]
    usual = [name.lower() for name in _USUAL[node.op_type]]
    fits = all(given[i] == usual[i % len(usual)] for i in range(len(given)))
    if not fits and not (node.op_type == "RNN" and set(given) == {"relu"}):
        raise Unconvertible(f"activations {', '.join(given)} are not supported")


def _is_full(node: NodeView) -> bool:
    """Whether all sequences are given as long as the input is."""
    lengths, steps = node.value(4), node.shape(node.value(0))[1 if node.integer("layout", 0) else 0]
    return isinstance(lengths, Tensor) and isinstance(steps, int) and bool((lengths == steps).all())


def _kernel(node: NodeView) -> Callable[..., Any]:
    if node.op_type == "LSTM":
        return lstm if node.optional(7) is None else lstm_with_peepholes
    if node.op_type == "RNN":
        return rnn_relu if "relu" in str(node.texts("activations")).lower() else rnn_tanh
    return gru if node.integer("linear_before_reset", 0) else gru_reset_first


def _extras(node: NodeView, direction: int) -> list[Any]:
    if node.op_type == "LSTM" and node.optional(7) is not None:
        return [node.emit(torch.select, node.tensor(7), 0, direction)]
    return []


def _weights(node: NodeView, direction: int) -> list[Tensor | fx.Node]:
    """Input weights, recurrent weights and their biases of one direction, gates in torch's order."""
    order = _GATES[node.op_type]
    w, r = (node.emit(torch.select, node.tensor(i), 0, direction) for i in (1, 2))
    if node.optional(3) is None:
        rows = node.shape(node.value(1))[1]
        biases = [node.emit(torch.zeros, (rows,), dtype=node.dtype(w), device=None)] * 2
    else:
        both = node.emit(torch.chunk, node.emit(torch.select, node.tensor(3), 0, direction), 2)
        biases = [node.emit(python.getitem, both, i) for i in range(2)]
    return [node.emit(reordered, value, order) for value in (w, r, *biases)]


def reordered(gates: Tensor, order: tuple[int, ...]) -> Tensor:
    """Blocks of rows in another order."""
    parts = gates.chunk(len(order))
    return torch.cat([parts[i] for i in order])


def _states(node: NodeView, direction: int) -> list[Tensor | fx.Node | None]:
    """Initial hidden (and cell) state of one direction, `[batch, hidden]`, or None for zeros."""
    states: list[Tensor | fx.Node | None] = []
    for position in (5, 6) if node.op_type == "LSTM" else (5,):
        if node.optional(position) is None:
            states.append(None)
        else:
            state = node.tensor(position)
            axis = 1 if node.integer("layout", 0) else 0
            states.append(node.emit(torch.select, state, axis, direction))
    return states


def _outputs(node: NodeView, runs: list[list[Any]]) -> tuple[Value | None, ...]:
    sequence, *states = ([run[i] for run in runs] for i in range(3))
    batch_first = node.integer("layout", 0)
    y = node.emit(torch.stack, sequence, 1)
    y = node.emit(torch.permute, y, (2, 0, 1, 3)) if batch_first else y
    count = 2 if node.op_type == "LSTM" else 1
    return y, *(node.emit(torch.stack, state, 1 if batch_first else 0) for state in states[:count])


def _start(x: Tensor, state: Tensor | None, weights: Sequence[Tensor]) -> Tensor:
    """An initial state `[batch, hidden]`: zeros, or what is given, repeated over the batch if it is one."""
    hidden = weights[1].shape[1]
    if state is None:
        return x.new_zeros(x.shape[1], hidden)
    return state.expand(x.shape[1], hidden)


def _first(x: Tensor, states: Sequence[Tensor | None], weights: Sequence[Tensor]) -> Tensor:
    return _start(x, states[0], weights)[None].contiguous()


def _outlined(kernel: Callable[..., tuple[Tensor, ...]]) -> Callable[..., tuple[Tensor, ...]]:
    """Try one step only where there is no data: hundreds of steps on *meta* tensors take seconds, and show no more."""

    @functools.wraps(kernel)
    def run(x: Tensor, *others: Any) -> tuple[Tensor, ...]:
        if not x.is_meta or x.shape[0] < 2:
            return kernel(x, *others)
        y, *last = kernel(x[:1], *others)
        return y.new_empty(x.shape[0], *y.shape[1:]), *last

    return run


@_outlined
def lstm(x: Tensor, states: list[Tensor | None], weights: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs `[steps, batch, hidden]`, last hidden state and last cell state."""
    start = [_start(x, state, weights)[None].contiguous() for state in states]
    y, h, c = torch.lstm(x, start, weights, True, 1, 0.0, False, False, False)
    return y, h[0], c[0]


@_outlined
def gru(x: Tensor, states: list[Tensor | None], weights: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs `[steps, batch, hidden]` and the last hidden state, twice."""
    y, h = torch.gru(x, _first(x, states, weights), weights, True, 1, 0.0, False, False, False)
    return y, h[0], h[0]


@_outlined
def rnn_tanh(x: Tensor, states: list[Tensor | None], weights: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs `[steps, batch, hidden]` and the last hidden state, twice."""
    y, h = torch.rnn_tanh(x, _first(x, states, weights), weights, True, 1, 0.0, False, False, False)
    return y, h[0], h[0]


@_outlined
def rnn_relu(x: Tensor, states: list[Tensor | None], weights: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs `[steps, batch, hidden]` and the last hidden state, twice."""
    y, h = torch.rnn_relu(x, _first(x, states, weights), weights, True, 1, 0.0, False, False, False)
    return y, h[0], h[0]


@_outlined
def gru_reset_first(x: Tensor, states: list[Tensor | None], weights: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """A GRU whose reset gate acts before the recurrent product, step by step."""
    w, r, w_bias, r_bias = weights
    gates = F.linear(x, w, w_bias)
    r_gates, r_new = torch.split(r, [2 * r.shape[1], r.shape[1]])
    b_gates, b_new = torch.split(r_bias, [2 * r.shape[1], r.shape[1]])
    h = _start(x, states[0], weights)
    outputs = []
    for step in gates.unbind(0):
        given, candidate = torch.split(step, [2 * r.shape[1], r.shape[1]], -1)
        reset, update = torch.sigmoid(given + F.linear(h, r_gates, b_gates)).chunk(2, -1)
        new = torch.tanh(candidate + F.linear(reset * h, r_new, b_new))
        h = new + update * (h - new)
        outputs.append(h)
    return torch.stack(outputs), h, h


@_outlined
def lstm_with_peepholes(
    x: Tensor, states: list[Tensor | None], weights: list[Tensor], peepholes: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """An LSTM whose gates also see the cell state, step by step."""
    w, r, w_bias, r_bias = weights
    p_in, p_out, p_forget = peepholes.chunk(3)
    h, c = (_start(x, state, weights) for state in states)
    outputs = []
    for step in F.linear(x, w, w_bias + r_bias).unbind(0):
        i, f, g, o = (step + F.linear(h, r)).chunk(4, -1)
        c = torch.sigmoid(f + p_forget * c) * c + torch.sigmoid(i + p_in * c) * torch.tanh(g)
        h = torch.sigmoid(o + p_out * c) * torch.tanh(c)
        outputs.append(h)
    return torch.stack(outputs), h, c
