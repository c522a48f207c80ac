"""How sure a model is of its answer by its own probabilities, not by what it says.

Over the tokens of the answer, with p the probability of the token written (RLSF, arXiv 2507.21931,
and its alternatives):

| kind | is |
|---|---|
| disparity | mean of p - (the highest probability of another token): how decided it was |
| probability | mean of p |
| sequence | product of p: the probability of the whole answer |
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from demur.errors import ConfigError, UnknownName
from demur.learners.samples import Pieces, answer_tokens
from demur.schema import Completion, Said

KINDS = ("disparity", "probability", "sequence")
Own = Callable[[Completion, Said, str], float | None]


def span_confidence(
    completion: Completion, reply: Said, pieces: Pieces, kind: str = "disparity"
) -> float | None:
    """The confidence of the answer's span, from 0 to 1; ``None`` where there is no such span.

    A negative disparity (another token was likelier throughout) is 0. Raises ``UnknownName``, and
    ``ConfigError`` where the completion was sampled without what the kind needs.
    """
    if kind not in KINDS:
        raise UnknownName("confidence", kind, KINDS)
    at = answer_tokens(completion, reply, pieces)
    if not at:
        return None
    if len(completion.logprobs) != len(completion.token_ids):
        raise ConfigError("confidence in an answer needs a policy that gives log-probabilities")
    if kind == "sequence":
        return math.exp(sum(completion.logprobs[t] for t in at))
    if kind == "probability":
        return sum(math.exp(completion.logprobs[t]) for t in at) / len(at)
    if len(completion.gaps) != len(completion.token_ids):
        raise ConfigError("disparity needs completions that were sampled with gaps")
    return max(0.0, sum(completion.gaps[t] for t in at) / len(at))


def own_confidence(pieces: Pieces) -> Own:
    """``span_confidence`` of one policy, whose tokens ``pieces`` spells."""
    return lambda completion, reply, kind: span_confidence(completion, reply, pieces, kind)


def server_confidence(completion: Completion, reply: Said, kind: str) -> float | None:
    """``span_confidence`` of an answer whose server gave its tokens; ``None`` where it did not."""
    if not completion.pieces:
        return None
    spelt = replace(completion, token_ids=tuple(range(len(completion.pieces))))
    return span_confidence(spelt, reply, lambda *_: list(completion.pieces), kind)
