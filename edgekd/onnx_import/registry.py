"""Which ONNX operators are understood, from which opset on, and by which function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgekd.onnx_import.node import NodeView
    from edgekd.onnx_import.values import Value

    Converter = Callable[[NodeView], Value | tuple[Value | None, ...]]


@dataclass(frozen=True)
class Claim:
    """One operator, understood for opsets `since` to `until`, both inclusive.

    A `carried` operator takes quantized tensors as floats that hold integers, or looks at sizes alone; the others get
    the integers. One that `moves` only rearranges elements: what it makes of a carried tensor is carried too.
    """

    op_type: str
    domain: str
    since: int
    until: int
    convert: Converter
    carried: bool
    moves: bool


_claims: dict[tuple[str, str], list[Claim]] = {}


def operator(
    *op_types: str, domain: str = "", since: int = 1, until: int = 10_000, carried: bool = False, moves: bool = False
) -> Callable[[Converter], Converter]:
    """Declare that the decorated function converts these operators for these opsets."""

    def declare(convert: Converter) -> Converter:
        for op_type in op_types:
            _claims.setdefault((domain, op_type), []).append(
                Claim(op_type, domain, since, until, convert, carried, moves)
            )
        return convert

    return declare


def find(op_type: str, domain: str, opset: int) -> Claim | None:
    """The claim on an operator at an opset, or None."""
    domain = "" if domain == "ai.onnx" else domain
    fitting = [claim for claim in _claims.get((domain, op_type), ()) if claim.since <= opset <= claim.until]
    return max(fitting, key=lambda claim: claim.since) if fitting else None


def claimed() -> list[Claim]:
    """Every claim, by operator and opset."""
    return sorted((c for claims in _claims.values() for c in claims), key=lambda c: (c.domain, c.op_type, c.since))
