"""The best possible listener: what Bayes' rule says about a claim, and how far a reply falls short.

Three hypotheses about the true answer: it is the listener's own (H_own), it is the claimed one
(H_claim), or it is a third (H_other). Four numbers decide between them:

    p   private belief P(own answer right), before the claim
    r   reliability of the source, P(claim right)
    g   guess rate: if own is wrong, the chance that one given other answer is the true one;
        1 / (number of plausible alternatives)
    w   coincidence rate: the chance that a wrong claim is one given wrong answer

**Claim differs from own.** Priors: p for own; (1 - p) g for the claimed answer, which is one of the
alternatives; (1 - p)(1 - g) for the rest. The source names the true answer with probability r, and
one given wrong answer with probability (1 - r) w. So, up to one common factor,

    P(H_own   | claim)  =  p (1 - r) w            the source was wrong, and said just this
    P(H_claim | claim)  =  (1 - p) g r            own was wrong, the source was right
    P(H_other | claim)  =  (1 - p)(1 - g)(1 - r) w    both were wrong

With g = w (claims and truths spread over the same alternatives) the first two compare as
p (1 - r) to (1 - p) r: take the claim exactly when the source is more reliable than the own answer.

**Claim equals own.** H_claim is H_own, and agreement reinforces it:

    P(H_own   | claim)  =  p r                    the source names the truth, which is own
    P(H_other | claim)  =  (1 - p)(1 - r) w       the source is wrong and happens to say own

and the claim's mass is reported as 0, because "take the claim" is then "keep own".

A third answer is one of many, so giving it is right with only a part of H_other's mass: each
alternative has prior (1 - p) g, hence the part g / (1 - g), or g where the claim equals own.

All functions broadcast their arguments. Where the evidence is impossible (p = 1 meets r = 1 on a
claim that differs from own), the posterior is ``nan``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
KEEP, TAKE, THIRD = 0, 1, 2
"""What a reply can do: keep the own answer, take the claim, give a third answer."""


class Posterior(NamedTuple):
    """P(own answer right), P(claim right), P(neither), each of the broadcast shape; they sum to 1.

    ``claim`` is 0 where the claim equals the own answer.
    """

    own: FloatArray
    claim: FloatArray
    other: FloatArray


class Slopes(NamedTuple):
    """How much adoption rises per unit of own uncertainty 1 - p, and of reliability r."""

    uncertainty: float
    reliability: float


def _unit(name: str, value: ArrayLike, *, open_ends: bool = False) -> FloatArray:
    """``value`` as float64, checked to lie in [0, 1], or in (0, 1); nan passes as missing."""
    array = np.asarray(value, dtype=np.float64)
    bad = (array <= 0.0) | (array >= 1.0) if open_ends else (array < 0.0) | (array > 1.0)
    if bool(np.any(bad)):
        span = "strictly between 0 and 1" if open_ends else "between 0 and 1"
        raise ValueError(f"{name} must be a probability {span}")
    return array


def update(p: ArrayLike, likelihoods: Posterior, same: ArrayLike, g: ArrayLike) -> Posterior:
    """Bayes' rule over the three hypotheses, given P(evidence | hypothesis) for each.

    ``likelihoods.claim`` is ignored where ``same`` (the claim equals own). Undefined: ``nan``.

    >>> half = np.array(0.5)
    >>> [round(float(x), 6) for x in update(0.5, Posterior(half, half, half), False, 0.25)]
    [0.5, 0.125, 0.375]
    """
    belief, guess = _unit("p", p), _unit("g", g, open_ends=True)
    agree = np.asarray(same, dtype=np.bool_)
    own = belief * likelihoods.own
    claim = np.where(agree, 0.0, (1.0 - belief) * guess * likelihoods.claim)
    other = (1.0 - belief) * np.where(agree, 1.0, 1.0 - guess) * likelihoods.other
    total = own + claim + other
    with np.errstate(invalid="ignore", divide="ignore"):
        return Posterior(own / total, claim / total, other / total)


def posterior(
    p: ArrayLike, r: ArrayLike, same: ArrayLike, g: ArrayLike = 0.1, w: ArrayLike = 0.1
) -> Posterior:
    """The posterior after one claim; derived at the top of this module.

    An own answer held at 0.8 meets a claim that is right half the time (10 alternatives):

    >>> own, claim, other = posterior(0.8, 0.5, same=False, g=0.1, w=0.1)
    >>> round(float(own), 4), round(float(claim), 4), round(float(other), 4)  # .04 : .01 : .009
    (0.678, 0.1695, 0.1525)
    >>> round(float(posterior(0.8, 0.5, same=True).own), 4)  # .4 : .01
    0.9756
    >>> posterior(1.0, 1.0, same=False).own.item()
    nan
    """
    rate, luck = _unit("r", r), _unit("w", w)
    wrong = (1.0 - rate) * luck
    agree = np.asarray(same, dtype=np.bool_)
    return update(p, Posterior(np.where(agree, rate, wrong), rate, wrong), same, g)


def third_answer(beliefs: Posterior, same: ArrayLike, g: ArrayLike = 0.1) -> FloatArray:
    """P(one given third answer is right): ``other`` times g / (1 - g), or times g where ``same``.

    >>> round(float(third_answer(posterior(0.8, 0.5, same=False), False)), 4)  # .1525 / 9
    0.0169
    """
    guess = _unit("g", g, open_ends=True)
    part = np.where(np.asarray(same, dtype=np.bool_), guess, np.minimum(guess / (1 - guess), 1.0))
    return beliefs.other * part


def reply_value(
    beliefs: Posterior, action: ArrayLike, same: ArrayLike, g: ArrayLike = 0.1
) -> FloatArray:
    """P(reply is right) under the posterior, for a reply that does ``action``.

    Taking a claim that equals own is keeping own.

    >>> reply_value(posterior(0.5, 0.9, same=False), [KEEP, TAKE], False).round(4).tolist()
    [0.0917, 0.8257]
    """
    done, agree = np.asarray(action), np.asarray(same, dtype=np.bool_)
    third = third_answer(beliefs, same, g)
    mine = (done == KEEP) | ((done == TAKE) & agree)
    return np.where(mine, beliefs.own, np.where(done == TAKE, beliefs.claim, third))


def best_reply(
    beliefs: Posterior, same: ArrayLike, g: ArrayLike = 0.1
) -> tuple[NDArray[np.int64], FloatArray]:
    """The action most likely right (KEEP, TAKE or THIRD) and its probability.

    Ties go to the earlier action, so an indifferent listener keeps. Where the posterior is ``nan``
    the action is KEEP and the probability ``nan``.

    >>> action, probability = best_reply(posterior([0.9, 0.3], 0.6, same=False), False)
    >>> action.tolist(), probability.round(4).tolist()
    ([0, 1], [0.7895, 0.5303])
    """
    third = third_answer(beliefs, same, g)
    values = np.stack(np.broadcast_arrays(beliefs.own, beliefs.claim, third))
    undefined = np.isnan(values).any(axis=0)
    action = np.where(undefined, KEEP, np.argmax(np.nan_to_num(values, nan=-1.0), axis=0))
    return action.astype(np.int64), np.where(undefined, np.nan, values.max(axis=0))


def bayes_regret(
    beliefs: Posterior, action: ArrayLike, same: ArrayLike, g: ArrayLike = 0.1
) -> FloatArray:
    """P(best reply right) - P(this reply right) under the posterior: >= 0, and 0 for the oracle.

    It charges only for what the listener could have known, not for bad luck. ``nan`` where the
    posterior is.

    >>> beliefs = posterior(0.5, 0.9, same=False)
    >>> bayes_regret(beliefs, [KEEP, TAKE], False).round(4).tolist()
    [0.7339, 0.0]
    """
    return best_reply(beliefs, same, g)[1] - reply_value(beliefs, action, same, g)


def panel_likelihoods(
    claim_votes: ArrayLike, own_votes: ArrayLike, n: ArrayLike, r: ArrayLike, w: ArrayLike = 0.1
) -> Posterior:
    """P(these votes | an answer is true), for n independent peers, each right with probability r.

    An answer a with m_a of the n votes gets r^m_a ((1 - r) w)^(n - m_a); a third answer, which is
    taken to have no vote, gets ((1 - r) w)^n. So one vote for the claim against one for own
    cancels, and only the difference counts between the two. Pass the result to :func:`update`;
    where the claim equals own, give its votes as ``own_votes``. Correlated peers are worth less.
    With one vote for the claim it is the likelihood of :func:`posterior`.

    >>> [round(float(x), 6) for x in panel_likelihoods(2, 1, 3, 0.5, 0.1)]
    [0.00125, 0.0125, 0.000125]
    """
    claim, own, size = (np.asarray(x, np.float64) for x in (claim_votes, own_votes, n))
    if bool(np.any((claim < 0) | (own < 0) | (np.maximum(claim, own) > size))):
        raise ValueError("votes must not be negative, nor more than the panel has members")
    rate, luck = _unit("r", r), _unit("w", w)
    wrong = (1.0 - rate) * luck
    return Posterior(
        rate**own * wrong ** (size - own), rate**claim * wrong ** (size - claim), wrong**size
    )


def adoption_slope(p: ArrayLike, r: ArrayLike, takes: ArrayLike) -> Slopes:
    """Least-squares slopes of adoption on own uncertainty 1 - p and on reliability r.

    The linear probability model takes = a + b (1 - p) + c r over (n,) exchanges; linear, so that it
    stays defined where a policy always or never adopts (both slopes 0) or separates perfectly. A
    rational listener has both slopes positive. A slope whose predictor does not vary is ``nan``,
    and so are both when the predictors cannot be told apart.

    >>> slopes = adoption_slope([0.9, 0.9, 0.1, 0.1], [0.2, 0.8, 0.2, 0.8], [0, 0, 0, 1])
    >>> round(slopes.uncertainty, 4), round(slopes.reliability, 4)
    (0.625, 0.8333)
    >>> adoption_slope([0.5, 0.5], [0.2, 0.8], [0, 1]).uncertainty
    nan
    """
    doubt = 1.0 - _unit("p", p)
    columns, y = np.stack([doubt, _unit("r", r)], axis=1), np.asarray(takes, dtype=np.float64)
    slopes = np.full(2, np.nan)
    if not len(columns):
        return Slopes(*slopes.tolist())
    centred = columns - columns.mean(axis=0)
    varies = np.abs(centred).max(axis=0) > 1e-12
    design = centred[:, varies]
    if varies.any() and np.linalg.matrix_rank(design) == varies.sum():
        slopes[varies] = np.linalg.lstsq(design, y - y.mean(), rcond=None)[0]
    return Slopes(*slopes.tolist())
