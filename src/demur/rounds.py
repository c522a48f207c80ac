"""A step's round, played in one piece or in waves, of which one is scored while the next is played.

An engine elsewhere would else wait while games are scored here. Every wave is played by the weights
of the step, so the samples are those of a round in one piece, but for their random numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from demur.games import Game
from demur.games.rounds import Draw
from demur.policies.connection import apart
from demur.schema import Group, Reward, Sampling, Trainable, Verdict

STRIDE = 1_000_003
"""Between the seeds of two waves; a game counts its own rounds up by one."""


@dataclass
class Round:
    """The groups of a step with their verdicts and rewards, wave after wave."""

    groups: list[Group] = field(default_factory=list)
    verdicts: list[Sequence[Verdict]] = field(default_factory=list)
    rewards: list[Sequence[Reward]] = field(default_factory=list)

    def add(
        self,
        groups: Sequence[Group],
        verdicts: Sequence[Sequence[Verdict]],
        rewards: Sequence[Sequence[Reward]],
    ) -> None:
        """Add a wave; which group of it a move led to, or is about, is counted on."""
        first = len(self.groups)
        for group in groups:
            led = tuple(None if to is None else first + to for to in group.led)
            about = None if group.about is None else first + group.about
            self.groups.append(replace(group, led=led, about=about) if first else group)
        self.verdicts += verdicts
        self.rewards += rewards


def in_waves(
    game: Game, policy: Trainable, draws: Sequence[Draw], n: int, sampling: Sampling
) -> Iterator[tuple[list[Group], bool]]:
    """Play a round in as many waves as the policy likes, and say of each whether it is the last."""
    waves = max(1, min(policy.waves, len(draws)))
    bounds = [len(draws) * wave // waves for wave in range(waves + 1)]

    def play(wave: int) -> list[Group]:
        seeded = replace(sampling, seed=(sampling.seed + wave * STRIDE) % 2**31)
        return game(policy, draws[bounds[wave] : bounds[wave + 1]], n, seeded)

    if waves == 1:
        yield play(0), True
        return
    playing = apart(play, 0)  # in a thread that ends with the process: Ctrl-C waits for no engine
    for wave in range(waves):
        groups, last = playing.result(), wave == waves - 1
        if not last:
            playing = apart(play, wave + 1)
        yield groups, last
