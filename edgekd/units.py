"""Quantities as people write them (`300kB`, `2 ms`, `90 %`), read to plain numbers and written back.

Bytes, milliseconds, counts and shares only. Every reader raises ValueError with what is allowed, so that pydantic can
report it with the name of the field.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

_QUANTITY = re.compile(r"^\s*([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*([A-Za-zµμ%]*)\s*$")

SIZES = {"": 1, "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
"""Bytes per unit: decimal prefixes are powers of 1000, binary ones of 1024 (IEC 80000-13); KB is read as kB."""

TIMES = {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "μs": 1e-3, "ms": 1.0, "s": 1e3}
"""Milliseconds per unit, with both of Unicode's micro signs."""

COUNTS = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9}
SHARES = {"": 1.0, "%": 0.01}
RATIOS = {"": 1.0, "x": 1.0, "%": 0.01}


def _read(value: object, units: dict[str, float] | dict[str, int], kind: str, example: str) -> float:
    allowed = f"allowed: {example} (units: {', '.join(u for u in units if u)})"
    match = (
        _QUANTITY.match(str(value)) if isinstance(value, str | int | float) and not isinstance(value, bool) else None
    )
    if match is None or match[2] not in units:
        raise ValueError(f"{value!r} is not a {kind}; {allowed}")
    quantity = float(match[1]) * units[match[2]]
    if not math.isfinite(quantity):
        raise ValueError(f"{value!r} is beyond any {kind}; {allowed}")
    return quantity


def read_size(value: object) -> int:
    """Bytes from `300kB`, `300 KiB` or a plain number of bytes; 300 kB is 300,000.

    Raises:
        ValueError: not a size.
    """
    return round(_read(value, SIZES, "size", "300 kB, 300 KiB, 300000"))


def read_time(value: object) -> float:
    """Milliseconds from `2 ms` or `500us`; the unit is required, for a bare number could be any of them.

    Raises:
        ValueError: not a time.
    """
    return _read(value, TIMES, "time", "2 ms, 500 us")


def read_count(value: object) -> int:
    """A number of things from `75000`, `75k` or `1.2M`.

    Raises:
        ValueError: not a count.
    """
    return round(_read(value, COUNTS, "count", "75000, 75k, 1.2M"))


def read_ratio(value: object) -> float:
    """A quotient from `0.27`, `0.27x` or `27 %`; it may exceed 1.

    Raises:
        ValueError: not a ratio.
    """
    return _read(value, RATIOS, "ratio", "0.27, 27 %")


def read_share(value: object) -> float:
    """A part of a whole from `0.9` or `90 %`, at most 1.

    Raises:
        ValueError: not a share.
    """
    share = _read(value, SHARES, "share", "0.9, 90 %")
    if share > 1:
        raise ValueError(f"{value!r} is more than the whole; allowed: 0.9, 90 %")
    return share


def read_percent(value: object) -> float:
    """A share that may exceed 1, from `5 %`; a bare number could be an amount, so the sign is required.

    Raises:
        ValueError: not a percentage.
    """
    return _read(value, {"%": 0.01}, "percentage", "5 %")


def read_points(value: object) -> float:
    """A difference of shares from `1 pp` (percentage points) or `0.01`.

    Raises:
        ValueError: not a difference of shares.
    """
    return _read(value, {"": 1.0, "pp": 0.01}, "difference of shares", "1 pp, 0.01")


def digits(value: float) -> str:
    """Three significant digits, trailing zeros kept: `0.400`, `12.3`, `712`."""
    return f"{value:#.3g}".rstrip(".")


def write_size(count: float) -> str:
    """Bytes as `712 B`, `299.1 kB`, `1.240 MB`."""
    return f"{count:.0f} B" if count < 1000 else f"{_scaled(count)}B"


def write_count(count: float) -> str:
    """A number of things as `712`, `75.12 k`, `1.240 M`."""
    return f"{count:.0f}" if count < 1000 else _scaled(count)


def write_time(milliseconds: float) -> str:
    """A duration as `42.1 µs`, `1.24 ms` or `2.50 s`."""
    if milliseconds < 0.1:
        return f"{digits(milliseconds * 1e3)} µs"
    return f"{digits(milliseconds)} ms" if milliseconds < 999.5 else f"{digits(milliseconds / 1e3)} s"


def write_share(share: float) -> str:
    """A part of a whole as `91.25 %`."""
    return f"{share * 100:.2f} %"


def write_shares(ends: Iterable[float]) -> str:
    """The ends of an interval as `90.10 % to 92.40 %`."""
    return " to ".join(map(write_share, ends))


def write_level(share: float) -> str:
    """How often an interval is to hold, in whole percent: `90 %`."""
    return f"{100 * share:.0f} %"


def write_ratio(ratio: float) -> str:
    """A quotient as `0.268x`."""
    return f"{digits(ratio)}x"


def write_change(share: float) -> str:
    """A share that was added or taken away, as `+4.20 %`."""
    return f"{share * 100:+.2f} %"


def write_points(difference: float) -> str:
    """A difference of shares as `+1.20 pp`, percentage points."""
    return f"{difference * 100:+.2f} pp"


def _scaled(count: float) -> str:
    power = next(p for p in (1, 2, 3) if p == 3 or round(count / 1000**p, 1) < 1000)
    return f"{count / 1000**power:#.4g}".rstrip(".") + f" {' kMG'[power]}"
