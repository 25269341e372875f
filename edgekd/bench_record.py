"""What the record of a measurement is made of, as a published schema: `edgekd schema bench`.

A reader takes keys it does not know; within `edgekd.bench/1` keys are only added, never renamed or removed. It reads
and writes no file.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA = "edgekd.bench/1"
_Amount = Annotated[float, Field(ge=0)]
_Count = Annotated[int, Field(ge=0)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Ends = Annotated[list[_Amount], Field(min_length=2, max_length=2)]


class _Facts(BaseModel):
    """It may hold other keys."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="allow")


class Environment(_Facts):
    """The machine: what must be equal for two records to be comparable."""

    cpu: str
    isa: list[str]
    cores: int | None
    governor: str | None
    machine: str
    system: str
    onnxruntime: str


class Input(_Facts):
    """One input as it was fed: shape with the batch, numpy dtype, range of the random values."""

    name: str
    shape: list[int]
    dtype: str
    low: float
    high: float


class Latency(_Facts):
    """Time of one inference in ms."""

    p50: _Amount = Field(description="median over the samples of all processes")
    p50_interval: _Ends | None = Field(description="95 %, bootstrap over processes; null for a single one")
    p90: _Amount
    p95: _Amount
    p99: _Amount | None = Field(description="null below 1000 samples")
    min: _Amount
    samples: _Count
    processes: _Count


class Memory(_Facts):
    """Bytes of the measuring process, the highest of all processes."""

    peak: _Count
    added: _Count = Field(description="peak over what Python and the imports took")
    baseline: _Count


class Process(_Facts):
    """One fresh process."""

    load_ms: _Amount
    first_run_ms: _Amount
    warmup_runs: _Count
    stable: bool = Field(description="the medians of the warm-up's last two blocks agreed")
    peak_bytes: _Count | None


class Apart(_Facts):
    """Students in files of their own, with the head that joins them."""

    students: _Count
    one_by_one: Latency = Field(description="one student after the other, then the head")
    parallel: Latency = Field(description="a thread for each student, then the head")


class Model(_Facts):
    """One file."""

    file: str
    sha256: str
    bytes: _Count
    gzip_bytes: _Count
    parameters: _Count
    macs: _Count | None
    batch: _Count
    inputs: list[Input]
    latency_ms: Latency | None
    load_ms: _Amount | None
    first_run_ms: _Amount | None
    memory_bytes: Memory | None
    agreement: _Share | None = None
    accuracy: _Share | None = None
    fallback: _Share | None = Field(default=None, description="share of nodes that another provider runs")
    apart: Apart | None = Field(default=None, description="the same students as files of their own, if exported so")
    processes: list[Process] = []
    samples_us: list[list[_Amount]] = []


class BenchRecord(_Facts):
    """A record of schema `edgekd.bench/1`, as `edgekd bench --json` and bench.json hold it; a baseline is one too."""

    schema_: Literal["edgekd.bench/1"] = Field(alias="schema")
    measured: str = Field(description="ISO 8601, UTC")
    target: dict[str, Any]
    environment: Environment
    protocol: dict[str, Any]
    simulated: bool = Field(default=False, description="times are a simulator's, and say nothing about the device")
    not_measured: str | None = None
    models: dict[str, Model]
    ratios: dict[str, dict[str, float | None]] = {}
    noise: dict[str, dict[str, _Amount]] = Field(
        default={}, description="per label, of p50, p90 and load: how far an A/A run was from 1"
    )


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a bench record."""
    found = BenchRecord.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"urn:{SCHEMA}"} | found
