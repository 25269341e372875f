from __future__ import annotations

import pytest

from edgekd import units


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *[("300kB", 300_000), ("300 KB", 300_000), ("300 KiB", 307_200), ("1.5 MB", 1_500_000), ("1MiB", 1_048_576)],
        *[("712", 712), ("712 B", 712), (712, 712), (" 0.5 kB ", 500)],
    ],
)
def test_sizes(text, expected):
    assert units.read_size(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2 ms", 2), ("500us", 0.5), ("500 µs", 0.5), ("500 μs", 0.5), ("1.5s", 1500), ("10 ns", 1e-5)],
)
def test_times(text, expected):
    assert units.read_time(text) == pytest.approx(expected)


@pytest.mark.parametrize(("text", "expected"), [("75000", 75_000), (75, 75), ("75k", 75_000), ("1.2 M", 1_200_000)])
def test_counts(text, expected):
    assert units.read_count(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("0.9", 0.9), (0.9, 0.9), ("90 %", 0.9), ("90%", 0.9), (1, 1), (".5", 0.5)]
)
def test_shares(text, expected):
    assert units.read_share(text) == pytest.approx(expected)


@pytest.mark.parametrize(("text", "expected"), [("0.27", 0.27), ("27 %", 0.27), ("1.5x", 1.5)])
def test_ratios(text, expected):
    assert units.read_ratio(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (units.read_size, "300 kg", "'300 kg' is not a size; allowed: 300 kB"),
        (units.read_size, "-3 kB", "is not a size"),
        (units.read_size, "1e3", "is not a size"),
        (units.read_size, "nan", "is not a size"),
        (units.read_size, "9" * 400, "is beyond any size"),
        (units.read_size, float("inf"), "is not a size"),
        (units.read_size, True, "is not a size"),
        (units.read_size, None, "is not a size"),
        (units.read_size, "", "is not a size"),
        (units.read_time, "2", "is not a time; allowed: 2 ms"),
        (units.read_time, 2, "is not a time"),
        (units.read_time, "2 kB", r"is not a time; .*units: ns, us"),
        (units.read_count, "3 ms", "is not a count"),
        (units.read_share, "90", "more than the whole"),
        (units.read_share, "101 %", "more than the whole"),
        (units.read_share, "0.9x", "is not a share"),
        (units.read_ratio, "half", "is not a ratio"),
    ],
)
def test_what_cannot_be_read(read, text, message):
    with pytest.raises(ValueError, match=message):
        read(text)


@pytest.mark.parametrize(
    ("write", "value", "expected"),
    [
        (units.write_size, 712, "712 B"),
        (units.write_size, 299_100, "299.1 kB"),
        (units.write_size, 999_960, "1.000 MB"),
        (units.write_size, 1_178_631, "1.179 MB"),
        (units.write_count, 290_124, "290.1 k"),
        (units.write_count, 22_705_920, "22.71 M"),
        (units.write_count, 3e12, "3000 G"),
        (units.write_time, 0.0421, "42.1 µs"),
        (units.write_time, 0.4, "0.400 ms"),
        (units.write_time, 712.4, "712 ms"),
        (units.write_time, 2500, "2.50 s"),
        (units.write_share, 0.9125, "91.25 %"),
        (units.write_level, 6 / 7, "86 %"),
        (units.write_ratio, 0.2683, "0.268x"),
    ],
)
def test_writing(write, value, expected):
    assert write(value) == expected
