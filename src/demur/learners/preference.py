"""Direct preference optimisation: pairs of replies to one prompt, without a reward (DPO).

For a chosen reply w and a rejected one l, with sums over their tokens and a frozen reference:

    margin = beta * [ (log pi(w) - log ref(w)) - (log pi(l) - log ref(l)) ]
    loss   = -(1 - s) log sigmoid(margin) - s log sigmoid(-margin)         (arXiv 2305.18290, eq. 7)

averaged over the pairs; s is the label smoothing of its conservative form (0: as published). With a
``weight`` the margin has to exceed that times what the pair's samples carry (ODPO, arXiv
2402.10571; RLSF gives pairs exp(conf_1 - conf_2)).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from demur.engine.tree import Packed, token_logprobs
from demur.errors import TrainingError
from demur.schema import Sample


@dataclass(frozen=True)
class Preference:
    """DPO over groups: each sample of positive advantage is preferred to each of negative.

    The first token's advantage is read; where it is 0 the sample takes no part.
    """

    beta: float = 0.1
    weight: float = 0.0
    smoothing: float = 0.0
    temperature: float = 1.0

    @property
    def needs_reference(self) -> bool:
        """Log-probabilities of a frozen reference are part of the formula."""
        return True

    @property
    def whole_groups(self) -> bool:
        """A pair is compared, so both of its replies have to be in one forward pass."""
        return True

    def scale(self, samples: Sequence[Sample]) -> Tensor:
        """1 / (number of pairs in the batch), for every sample; raises where there is no pair."""
        pairs = sum(len(a) * len(b) for a, b in _sides(samples, range(len(samples))).values())
        if not pairs:
            raise TrainingError(
                "no group holds both a preferred and a rejected reply, so there is nothing to "
                "compare; give samples of both signs of advantage in one group"
            )
        return torch.full((len(samples),), 1.0 / pairs, dtype=torch.float64)

    def __call__(
        self,
        logits: Tensor,
        packed: Packed,
        samples: Sequence[Sample],
        scale: Tensor,
        reference: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of one micro-batch and sums to be logged; arguments as for ``PolicyGradient``."""
        if reference is None:
            raise TrainingError("a preference loss needs keep_reference() first")
        gap = token_logprobs(logits, packed, self.temperature) - reference
        score = self.beta * torch.where(packed.valid, gap, 0.0).sum(1)
        pairs = [
            (i, j)
            for better, worse in _sides(samples, packed.index).values()
            for i in better
            for j in worse
        ]
        if not pairs:
            return score.sum() * 0.0, {}
        at = torch.tensor(pairs, device=logits.device)
        margin = score[at[:, 0]] - score[at[:, 1]]
        asked = [self.weight * samples[packed.index[i]].margin for i, _ in pairs]
        over = margin - margin.new_tensor(asked)
        each = -(1 - self.smoothing) * logsigmoid(over) - self.smoothing * logsigmoid(-over)
        return each.sum() * scale[0].to(each), {
            "margin_sum": margin.detach().sum(),
            "agreement_sum": (margin.detach() > 0).to(margin.dtype).sum(),
            "pairs": margin.new_tensor(float(len(pairs))),
            "tokens": packed.valid.sum(),
        }


def _sides(
    samples: Sequence[Sample], index: Sequence[int]
) -> dict[int, tuple[list[int], list[int]]]:
    """By group: places (in ``index``) of its preferred and of its rejected samples."""
    found: dict[int, tuple[list[int], list[int]]] = {}
    for place, i in enumerate(index):
        sample = samples[i]
        sign = sample.advantages[0] if sample.advantages else 0.0
        if sign:
            found.setdefault(sample.group, ([], []))[0 if sign > 0 else 1].append(place)
    return found
