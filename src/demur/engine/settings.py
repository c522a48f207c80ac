"""Where and how the engine computes: device, precision, budgets."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch

from demur.engine import sampler, tree
from demur.errors import ConfigError

Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class Engine:
    """Settings of the engine.

    ``device`` is auto (a CUDA GPU if there is one, else the CPU), cpu, cuda or cuda:N.
    ``precision`` auto is bfloat16 autocast on a GPU and float32 on a CPU; weights and optimiser are
    float32 either way. ``sample_tokens`` bounds the KV cache and ``update_tokens`` the tokens of
    one forward pass; with ``checkpointing`` activations are computed again instead of kept.
    """

    device: str = "auto"
    precision: Precision = "auto"
    sample_tokens: int = sampler.TOKEN_BUDGET
    update_tokens: int = tree.TOKEN_BUDGET
    checkpointing: bool = False

    def place(self) -> torch.device:
        """The device to compute on; raises ``ConfigError`` for one that is not there."""
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            device = torch.device(self.device)
        except RuntimeError:
            device = torch.device("meta")
        if device.type not in ("cpu", "cuda"):
            raise ConfigError(f"no device {self.device!r}: give auto, cpu, cuda or cuda:0")
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise ConfigError(
                f"{self.device} is not there ({torch.cuda.device_count()} CUDA devices are); "
                "use --device cpu, or install a CUDA build of torch"
            )
        return device

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """What forward passes run in."""
        half = self.precision == "bfloat16" or (self.precision == "auto" and device.type == "cuda")
        return torch.autocast(device.type, torch.bfloat16) if half else nullcontext()


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that an allocation failed, on a GPU or in main memory."""
    said = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError)
        and ("can't allocate memory" in said or "not enough memory" in said)
    )
