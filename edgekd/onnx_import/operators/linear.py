"""Gemm, MatMul and Einsum."""

from __future__ import annotations

# mypy: no-warn-return-any
# (what emit returns is up to torch)
import torch
import torch.nn.functional as F
from torch import Tensor, fx

from edgekd.onnx_import.node import NodeView
from edgekd.onnx_import.registry import operator
from edgekd.onnx_import.values import Value


@operator("Gemm")
def gemm(node: NodeView) -> Value:
    """alpha A B + beta C, either transposed; the usual dense layer becomes one F.linear."""
    a, b = node.tensor(0), node.tensor(1)
    c = None if node.optional(2) is None else node.tensor(2)
    alpha, beta = node.number("alpha", 1.0), node.number("beta", 1.0)
    a = node.emit(torch.t, a) if node.integer("transA", 0) else a
    transposed = node.integer("transB", 0)
    weight = b if transposed else node.emit(torch.t, b)
    bias = c if c is not None and beta == 1.0 and _is_row(node, c, weight) else None
    if alpha == 1.0 and transposed:
        product = node.emit(F.linear, a, weight, bias)
    elif alpha == 1.0 and bias is not None:
        return node.emit(torch.addmm, bias, a, b)
    else:
        product, bias = node.emit(torch.matmul, a, node.emit(torch.t, b) if transposed else b), None
        product = product if alpha == 1.0 else node.emit(torch.mul, product, _scale(node, product, alpha))
    if c is None or bias is not None:
        return product
    return node.emit(torch.add, product, c if beta == 1.0 else node.emit(torch.mul, c, _scale(node, c, beta)))


def _is_row(node: NodeView, c: Tensor | fx.Node, weight: Tensor | fx.Node) -> bool:
    return node.shape(c) == node.shape(weight)[:1] and node.dtype(c) in (torch.float32, torch.float64)


def _scale(node: NodeView, of: Value, factor: float) -> float | int:
    """Integer products stay integers."""
    dtype = node.dtype(of)
    return int(factor) if dtype is not None and not dtype.is_floating_point else factor


@operator("MatMul")
def matmul(node: NodeView) -> Value:
    """numpy's matrix product."""
    return node.emit(torch.matmul, node.tensor(0), node.tensor(1))


@operator("Einsum", since=12)
def einsum(node: NodeView) -> Value:
    """Einstein's summation."""
    operands = [node.tensor(i) for i in range(len(node.inputs))]
    return node.emit(torch.einsum, node.text("equation").replace(" ", ""), *operands)
