"""What the machine offers to training: a device, fast bfloat16, memory that stays. It measures nothing."""

from __future__ import annotations

import ctypes
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor

from edgekd.errors import CannotLoad

Device = Literal["auto", "cpu", "cuda"]
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def chosen_device(name: Device) -> torch.device:
    """A device by name; `auto` is a CUDA GPU where there is one.

    Raises:
        CannotLoad: there is no such device.
    """
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        built = "sees none" if torch.version.cuda else "is built without CUDA"
        raise CannotLoad(f"no CUDA GPU: torch {built}", where="--device cuda", hint="leave it out, or say --device cpu")
    if name == "cpu" or not there:
        return torch.device("cpu")
    torch.backends.cudnn.benchmark = True  # sizes are the same round for round
    return torch.device("cuda")


def working_on(device: torch.device) -> AbstractContextManager[object]:
    """Within it, new tensors lie on the device; on a CPU, where they do so anyway, it costs nothing."""
    return nullcontext() if device.type == "cpu" else device


def bfloat16_is_fast(device: torch.device) -> bool:
    """Whether it multiplies bfloat16 in hardware; else autocast would only cost precision."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def keep_freed_memory() -> bool:
    """Let glibc hold on to large blocks that are freed: every round asks for the same ones again.

    Handed back to the system they come as fresh pages, which cost a tenth of a generator step.

    Returns:
        Whether it took effect: without glibc it does not.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    kept, mapped = mallopt(_M_TRIM_THRESHOLD, 2**31 - 1), mallopt(_M_MMAP_THRESHOLD, 2**25)
    return bool(kept and mapped)


def random_states(device: torch.device) -> dict[str, Tensor]:
    """The state of torch's random numbers, by device type."""
    states = {"cpu": torch.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state()} if device.type == "cuda" else {})


def set_random_states(states: dict[str, Tensor], device: torch.device) -> None:
    """Take up what `random_states` gave; of a device that is not used here it is left out."""
    torch.set_rng_state(states["cpu"].cpu())
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"].cpu())
