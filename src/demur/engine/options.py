"""What may be chosen about how the engine computes; no torch here, so that recipes load fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["auto", "float32", "bfloat16"]
SAMPLE_TOKENS = 48_000
UPDATE_TOKENS = 12_000


@dataclass(frozen=True)
class Engine:
    """Where and how to compute.

    ``device`` is auto (a CUDA GPU if there is one, else the CPU), cpu, cuda or cuda:N.
    ``precision`` auto is bfloat16 autocast on a GPU and float32 on a CPU; weights and optimiser are
    float32 either way. ``sample_tokens`` bounds the KV cache of a batch (prompts once, every row's
    reply; as much again twice is kept for later turns) and ``update_tokens`` the tokens of one
    forward pass, beyond which gradients are accumulated; with ``checkpointing`` activations are
    computed again instead of kept.
    """

    device: str = "auto"
    precision: Precision = "auto"
    sample_tokens: int = SAMPLE_TOKENS
    update_tokens: int = UPDATE_TOKENS
    checkpointing: bool = False
