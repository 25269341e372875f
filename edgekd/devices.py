"""Devices and calibration recipes as typed, validated records, out of `targets/`, `calibration/` or a user's files."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from edgekd import shipped
from edgekd.config import Record, validated


class Runtime(Record):
    """How ONNX Runtime runs on the device."""

    provider: str = "CPUExecutionProvider"
    provider_options: dict[str, str] = Field(default={})
    intra_op_threads: int = Field(default=1, ge=1)
    inter_op_threads: int = Field(default=1, ge=1)
    session_config: dict[str, str] = Field(default={})
    plugin: str = Field(default="", description="module of a plug-in wheel that registers the provider")
    device: Literal["", "cpu", "gpu", "npu"] = Field(default="", description="which of the plug-in's devices; any")
    wheel: str = Field(default="", description="what to install where the provider is missing")


class Quantization(Record):
    """The precision and the QDQ flavour the device runs fast."""

    precision: Literal["int8", "fp16", "fp32"] = Field(default="int8", description="what the device runs fastest")
    int8_refused: str = Field(default="", description="why INT8 is not for this device; empty where it is")
    fp16_refused: str = Field(default="", description="why half precision is not for this device; empty where it is")
    activation: Literal["uint8", "int8", "uint16", "int16"] = "uint8"
    weight: Literal["int8", "uint8"] = "int8"
    per_channel: bool = True
    per_channel_operators: tuple[str, ...] = Field(
        default=(), description="the only ones whose weights have a scale per channel; empty: all that can"
    )
    reduce_range: bool = Field(default=False, description="weights of 7 bits, so that sums of 16 bits do not saturate")
    activation_symmetric: bool = False
    weight_symmetric: bool = True
    quantize_bias: bool = Field(default=True, description="biases as int32; false: they stay in float")
    dedicated_pairs: bool = Field(default=False, description="a DequantizeLinear for every reader of a tensor")
    minimum_range: float | None = Field(default=None, gt=0, description="ranges narrower than this are widened")
    float_operators: tuple[str, ...] = Field(default=(), description="operators that are left in float")
    float_channels: int = Field(
        default=0, ge=0, description="a convolution of one group that reads fewer channels is left in float: quicker so"
    )

    @model_validator(mode="after")
    def _precision_is_allowed(self) -> Quantization:
        refused = {"int8": self.int8_refused, "fp16": self.fp16_refused, "fp32": ""}
        if refused[self.precision]:
            raise ValueError(f"precision is {self.precision}, which {self.precision}_refused says is not for it")
        if self.per_channel_operators and not self.per_channel:
            raise ValueError("per_channel_operators is set only with per_channel")
        return self


class ModelLimits(Record):
    """What the device's runtime accepts, and which of it edgekd writes."""

    opset: int = Field(default=18, ge=13, le=23, description="of the files that export writes")
    opset_ceiling: int | None = Field(default=None, ge=13, description="highest that is read; none: opset")
    ir_version: int = Field(default=10, ge=7, description="highest that is read")
    static_shapes: bool = Field(default=False, description="every dimension must be fixed; files get a batch of one")
    max_rank: int | None = Field(default=None, ge=1, description="of any tensor")
    denied_operators: tuple[str, ...] = Field(default=(), description="operators that the runtime does not run")
    checker: Literal["nnapi", "coreml-mlprogram", "coreml-neuralnetwork"] | None = Field(
        default=None, description="list of operators in ONNX Runtime's own usability checker"
    )
    ort_format: Literal["none", "fixed", "runtime"] = Field(
        default="none", description="also write an .ort file, with optimizations fixed or saved for the runtime"
    )

    @model_validator(mode="after")
    def _ceiling_is_above(self) -> ModelLimits:
        if self.opset_ceiling is not None and self.opset_ceiling < self.opset:
            raise ValueError("opset_ceiling must not be below opset")
        return self

    @property
    def highest_opset(self) -> int:
        """The highest opset that the device reads."""
        return self.opset_ceiling or self.opset


class Machine(Record):
    """What a device must be for its figures to be its own. A time taken elsewhere is no time of this device."""

    architecture: Literal["any", "x86_64", "aarch64", "wasm"] = "any"
    flags: tuple[str, ...] = Field(default=(), description="that /proc/cpuinfo must list")
    flags_absent: tuple[str, ...] = Field(default=(), description="that it must not list")


class Protocol(Record):
    """How to measure, and how long."""

    processes: int = Field(default=5, ge=1)
    warmup_runs: int = Field(default=10, ge=1)
    warmup_seconds: float = Field(default=0.3, ge=0)
    stable: float = Field(default=0.02, gt=0, le=1, description="warm until block medians differ by no larger share")
    runs: int = Field(default=100, ge=10)
    seconds: float = Field(default=1.0, gt=0)
    affinity: tuple[int, ...] = Field(default=(), description="cores to stay on; any")
    io_binding: bool = Field(default=True, description="inputs and outputs lie in memory allocated before")


class Place(Record):
    """Where a target's measurements are made."""

    kind: Literal["local", "ssh", "adb", "qemu", "web"] = "local"
    host: str = Field(default="", description="ssh: user@host; adb: the serial number; qemu, web: the program")
    port: int | None = Field(default=None, ge=1, le=65535, description="of ssh")
    options: tuple[str, ...] = Field(default=(), description="further words for the program")
    python: str = Field(default="python3", description="the interpreter over there, which needs onnxruntime")
    folder: str = Field(default="", description="ssh, adb: for files; qemu: the system's root; web: onnxruntime-web")
    timeout: float | None = Field(default=None, gt=0, description="seconds for one process; what the protocol needs")
    simulated: bool = Field(default=False, description="its times are the host's, and say nothing about the device")

    @model_validator(mode="after")
    def _somewhere(self) -> Place:
        if self.kind == "ssh" and (not self.host or self.host.startswith("-")):
            raise ValueError("ssh needs a host, such as user@raspberrypi")
        if self.kind == "qemu" and not self.simulated:
            raise ValueError("an emulator's times are no device's: set simulated = true")
        return self


class Target(Record):
    """A device, as told by a file of `targets/`."""

    schema_version: Literal[1] = Field(alias="schema")
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    title: str
    machine: Machine = Machine()
    runtime: Runtime = Runtime()
    model: ModelLimits = ModelLimits()
    quantization: Quantization = Quantization()
    bench: Protocol = Protocol()
    runner: Place = Place()


class CalibrationRecipe(Record):
    """How activation ranges are found, as told by a file of `calibration/`."""

    schema_version: Literal[1] = Field(alias="schema")
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    title: str
    method: Literal["minmax", "moving-average", "percentile", "entropy", "mse"]
    samples: int = Field(default=512, ge=1, le=65536, description="how many samples to calibrate on")
    minimum: int = Field(default=8, ge=1, description="fewer samples than this are refused")
    symmetric: bool = Field(default=False, description="ranges are made symmetric about zero")
    balanced: bool = Field(default=False, description="generated images of every class alike, as the model sees them")
    percentile: float | None = Field(default=None, gt=50, le=100, description="share of values kept, in percent")
    bins: int | None = Field(default=None, ge=256, le=65536, description="histogram bins over the range of all samples")

    @model_validator(mode="after")
    def _keys_belong(self) -> CalibrationRecipe:
        if (self.percentile is not None) != (self.method == "percentile"):
            raise ValueError("percentile is set for, and only for, method 'percentile'")
        if (self.bins is not None) != (self.method in ("percentile", "entropy", "mse")):
            raise ValueError("bins is set for, and only for, methods 'percentile', 'entropy' and 'mse'")
        if self.samples < self.minimum:
            raise ValueError("samples must not be below minimum")
        return self


def load_target(name: str) -> Target:
    """A shipped target by name, or a user's `.toml` file.

    Raises:
        UnknownName: no such target.
        BadSetting: the file is not a valid target.
    """
    path = shipped.find("targets", name)
    return validated(Target, {"name": path.stem, **shipped.read_toml(path)}, path)


def load_recipe(name: str) -> CalibrationRecipe:
    """A shipped calibration recipe by name, or a user's `.toml` file. Raises as `load_target` does."""
    path = shipped.find("calibration", name)
    return validated(CalibrationRecipe, {"name": path.stem, **shipped.read_toml(path)}, path)
