"""How the learning rate goes over the updates of a stage, whoever takes them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """The rate rises linearly over ``warmup`` updates to ``rate``.

    Where ``decay`` is given it then falls linearly to a tenth over that many.
    """

    rate: float
    warmup: int = 0
    decay: int = 0

    def at(self, taken: int) -> float:
        """The rate of the next update, after so many were taken."""
        if taken < self.warmup:
            return self.rate * (taken + 1) / self.warmup
        if self.decay:
            return self.rate * max(0.1, 1.0 - 0.9 * (taken - self.warmup) / self.decay)
        return self.rate
