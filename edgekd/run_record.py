"""What later stages rely on in a run's record, run.json, and what its values may be.

It reads and writes no file: `run_folder` does; and it does not make a record: `provenance` does.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgekd.codes import IDS, Layout
from edgekd.tasks import KINDS, Task

SCHEMA = "edgekd.run/1"
_Count = Annotated[int, Field(ge=1)]
_Sides = Annotated[list[_Count], Field(min_length=2, max_length=2)]


class _Facts(BaseModel):
    """Keys of run.json that later stages rely on; it may hold others."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Teacher(_Facts):
    path: str
    sha256: str
    bytes: _Count | None  # none where the teacher is no file
    parameters: int | None
    input_name: str
    channels: _Count
    height: _Count
    width: _Count
    layout: Layout
    dtype: Literal["float32", "uint8", "int64", "int32"] = "float32"
    classes: _Count
    grid: _Sides | None = None  # h, w of an answer per pixel
    low: float | list[float]  # a list: one for each channel
    high: float | list[float]
    mean: list[float] | None
    std: list[float] | None
    task: Task = "classes"

    @model_validator(mode="after")
    def _pixels_have_a_grid(self) -> _Teacher:
        if KINDS[self.task].grid != (self.grid is not None):
            raise ValueError(f"task {self.task} and grid {self.grid} do not belong together")
        return self

    @model_validator(mode="after")
    def _ids_are_integers(self) -> _Teacher:
        if (self.layout == IDS) != self.dtype.startswith("int") or (
            self.layout == IDS and not isinstance(self.high, float)
        ):
            raise ValueError(f"layout {self.layout} and {self.dtype} up to {self.high} do not belong together")
        return self


class _Headers(_Facts):
    kind: Literal["shared", "plain"]
    count: Annotated[int, Field(ge=1, le=64)]


class _Parts(_Facts):
    chunks: Annotated[list[Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]], Field(min_length=1)]
    added: list[Annotated[int, Field(ge=0)]] = []
    rectified: bool = False
    grid: _Sides | None = None
    kernel: _Sides = [1, 1]

    @model_validator(mode="after")
    def _cut_once(self) -> _Parts:
        numbers = sorted(number for chunk in self.chunks for number in chunk)
        if numbers != list(range(len(numbers))) or any(place >= len(self.chunks) for place in self.added):
            raise ValueError("the chunks do not make up the representation")
        return self


class _Student(_Facts):
    name: str
    width: float
    headers: _Headers | None = None  # one for every teacher
    parts: _Parts | None = None  # of students side by side


class _Generator(_Facts):
    latent: _Count
    width: _Count


class _Recipe(_Facts):
    prior_share: Annotated[float, Field(ge=0, lt=1)] = 0.0


class _Settings(_Facts):
    seed: int
    recipe: _Recipe = _Recipe()


class RunRecord(_Facts):
    """What later stages rely on in a record of schema `edgekd.run/1`; the teacher's height and width are in pixels.

    Raises:
        ValidationError: something is missing or of another type.
    """

    started: str
    state: str
    teacher: _Teacher
    student: _Student
    generator: _Generator
    settings: _Settings
