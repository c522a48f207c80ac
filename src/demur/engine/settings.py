"""The device, the precision and the memory that the engine's options ask for."""

from __future__ import annotations

import ctypes
import sys
from contextlib import AbstractContextManager, nullcontext

import torch

from demur.engine.options import Engine
from demur.errors import ConfigError

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def place(engine: Engine) -> torch.device:
    """The device to compute on; raises ``ConfigError`` for one that is not there."""
    if engine.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(engine.device)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"no device {engine.device!r}: give auto, cpu, cuda or cuda:0")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"{engine.device} is not there ({torch.cuda.device_count()} CUDA devices are); "
            "use --device cpu, or install a CUDA build of torch"
        )
    return device


def autocast(engine: Engine, device: torch.device) -> AbstractContextManager[object]:
    """What forward passes run in."""
    half = engine.precision == "bfloat16" or (engine.precision == "auto" and device.type == "cuda")
    return torch.autocast(device.type, torch.bfloat16) if half else nullcontext()


def keep_memory() -> None:
    """Let the C library keep what it frees, for the next allocation of this process.

    By default glibc maps every large tensor anew, and the kernel then clears its pages one by one:
    a tenth to a third of an update on a CPU (docs/results/engine.md). Elsewhere nothing is done.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not in every C library
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that an allocation failed, on a GPU or in main memory."""
    said = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError)
        and ("can't allocate memory" in said or "not enough memory" in said)
    )
