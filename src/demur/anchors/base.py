"""What an anchor is: whoever says how likely an answer is right.

An anchor sees a group of finished episodes and gives one verdict an episode, on its last reply. It
never sees a reward. A reply that could not be read gets 0.0 if the anchor judges the group at all;
where it has nothing to go by it abstains with ``None``, which is excluded, not paid 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from demur.schema import Group, Reply, Verdict


@runtime_checkable
class Anchor(Protocol):
    """Judges groups.

    ``budget`` counts what has been asked of the world so far: labels or ratings. ``outside`` says
    whether the verdicts carry evidence about the truth from beyond the policy and the people in
    the dialogue. ``state`` and ``restore`` carry the count over a resumed run, as JSON values.
    """

    name: str

    @property
    def budget(self) -> int:
        """Labels or calls used so far."""
        ...

    @property
    def outside(self) -> bool:
        """Whether the verdicts know more than the policy and the dialogue do."""
        ...

    def judge(self, group: Group) -> list[Verdict]:
        """One verdict an episode, in order."""
        ...

    def state(self) -> dict[str, object]:
        """What a resumed run must know."""
        ...

    def restore(self, state: dict[str, object]) -> None:
        """Take up a saved state."""
        ...


@runtime_checkable
class Asking(Protocol):
    """An anchor that asks somebody, and would rather ask about a whole round at once."""

    def prepare(self, groups: Sequence[Group]) -> None:
        """Ask what ``judge`` will need to know of these groups."""
        ...


class FreeAnchor:
    """Base of the anchors that ask nothing of the world and remember nothing."""

    budget: int = 0
    outside: bool = False

    def state(self) -> dict[str, object]:
        """Nothing to remember."""
        return {}

    def restore(self, state: dict[str, object]) -> None:
        """Nothing to take up."""


def answers_of(group: Group) -> list[str | None]:
    """The answer of each episode's last reply; ``None`` where it could not be read."""
    replies = (episode.reply for episode in group.episodes)
    return [reply.answer if isinstance(reply, Reply) else None for reply in replies]
