"""What a recipe may say of how it is computed: here, as an adapter, or on an engine elsewhere."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from demur.engine.options import SAMPLE_TOKENS, UPDATE_TOKENS, Engine, Precision

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


class Strict(BaseModel):
    """No unknown keys, no silent conversions, no infinities."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, hide_input_in_errors=True
    )


class EngineTable(Strict):
    """How the engine computes; see ``demur.engine.options.Engine``. The device is no part of it."""

    precision: Precision = "auto"
    sample_tokens: Count = SAMPLE_TOKENS
    update_tokens: Count = UPDATE_TOKENS
    checkpointing: bool = False

    def on(self, device: str) -> Engine:
        """The engine's options on a device."""
        return Engine(device, **self.model_dump())


class Lora(Strict):
    """Learn an adapter of this rank on a frozen model, scaled by ``alpha`` over the rank.

    ``alpha`` is twice the rank if left out. ``targets`` are names of linear layers; without any,
    all of them but the output's.
    """

    rank: Count = 16
    alpha: Positive | None = None
    targets: list[str] = Field(default=[])


class Remote(Strict):
    """How an engine elsewhere learns (``--policy tinker``); see ``demur.policies.tinker``.

    ``loss`` is the engine's own that policy gradient uses. ``reduction`` says how the engine adds
    up the tokens of a reply: their sum, as the protocol has it, or the mean over the sequence, as
    SkyRL's JAX backend does ("auto" takes every server of SkyRL's for that one). ``draws`` estimate
    what a demonstration's expected score is. An engine that cannot be reached for ``patience``
    seconds is given up.
    """

    loss: Literal["ppo", "importance_sampling", "cispo"] = "ppo"
    reduction: Literal["auto", "sum", "mean"] = "auto"
    draws: Count = 4
    patience: Positive = 60.0
