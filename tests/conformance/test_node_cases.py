"""Every published node test of every claimed operator passes, or stands in a short table with its reason."""

from __future__ import annotations

import fnmatch
from collections import Counter

import pytest
import torch
from node_cases import EXCLUDED, Outcome, cases, run

from edgekd.onnx_import.registry import claimed


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = [run(case) for case in cases()]
    torch.set_num_threads(threads)
    return found


def test_no_claimed_operator_fails(outcomes: list[Outcome]) -> None:
    failed = [f"{o.name}: {o.reason}" for o in outcomes if o.state == "failed"]
    assert not failed, "\n" + "\n".join(failed)


def test_the_counted_table(outcomes: list[Outcome], record_property: pytest.RecordProperty) -> None:
    counts = Counter(o.state for o in outcomes)
    for state, count in counts.items():
        record_property(state, count)
    assert counts["passed"] >= 1250
    assert sum(counts.values()) == len(outcomes)


def test_every_exclusion_is_still_needed_by_some_case(outcomes: list[Outcome]) -> None:
    names = [o.name for o in outcomes if o.state == "excluded"]
    assert [p for p in EXCLUDED if not fnmatch.filter(names, p)] == []


def test_claims_do_not_overlap() -> None:
    seen: dict[tuple[str, str], int] = {}
    for claim in claimed():
        key = claim.domain, claim.op_type
        assert claim.since > seen.get(key, 0), f"two converters of {claim.op_type} for one opset"
        seen[key] = claim.until
