"""Every published node test of every claimed operator passes, or stands in a short table with its reason."""

from __future__ import annotations

import fnmatch
import json
from collections import Counter
from pathlib import Path

import onnx
import pytest
import torch
from counting import counted
from node_cases import EXCLUDED, Outcome, cases, run

from edgekd.onnx_import.registry import claimed

RECORD = Path(__file__).parents[2] / "benchmarks" / "results" / "conformance.json"


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


def test_the_recorded_table_is_current(outcomes: list[Outcome]) -> None:
    recorded = json.loads(RECORD.read_text())
    if recorded["onnx"] != onnx.__version__:
        pytest.skip(f"recorded with the tests of ONNX {recorded['onnx']}")
    assert counted(cases(), outcomes) == recorded, f"run: python tests/conformance --json {RECORD}"


def test_every_exclusion_is_still_needed_by_some_case(outcomes: list[Outcome]) -> None:
    names = [o.name for o in outcomes if o.state == "excluded"]
    assert [p for p in EXCLUDED if not fnmatch.filter(names, p)] == []


def test_claims_do_not_overlap() -> None:
    seen: dict[tuple[str, str], int] = {}
    for claim in claimed():
        key = claim.domain, claim.op_type
        assert claim.since > seen.get(key, 0), f"two converters of {claim.op_type} for one opset"
        seen[key] = claim.until
