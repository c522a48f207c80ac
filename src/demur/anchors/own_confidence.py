"""The policy's own confidence as judge (RLSF, arXiv 2507.21931): an anchor inside the policy.

It costs nothing and knows nothing: where the start is badly calibrated there is little to gain, and
rewards of this kind are known to peak after some steps and then to fall below the start.
"""

from __future__ import annotations

from collections.abc import Callable

from demur.anchors.base import FreeAnchor
from demur.schema import Completion, Group, Said, Unparsed, Verdict

Own = Callable[[Completion, Said, str], float | None]


class OwnConfidence(FreeAnchor):
    """How sure the policy was of its answer's tokens, by ``kind``: see ``learners.confidence``.

    A reply that could not be read gets 0. Where no reply of a group has an answer to look at, it
    abstains.
    """

    name = "own_confidence"

    def __init__(self, own: Own, kind: str = "disparity") -> None:
        self._own, self._kind = own, kind

    def judge(self, group: Group) -> list[Verdict]:
        """The confidence of each reply's answer."""
        found = [
            None
            if isinstance(episode.reply, Unparsed)
            else self._own(episode.turns[-1].completion, episode.reply, self._kind)
            for episode in group.episodes
        ]
        if all(value is None for value in found):
            return [None] * len(found)
        return [0.0 if value is None else value for value in found]
