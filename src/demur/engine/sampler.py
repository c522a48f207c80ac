"""Sampling: read each prompt once, branch to its rows, let finished rows leave.

Sampling is by temperature alone (no top-k, no top-p), and the log-probability of every token under
that same distribution is kept, so importance ratios against it are unbiased. Temperature 0 is
greedy decoding; its log-probabilities are those of temperature 1.

Every row has random numbers of its own, so what it draws does not depend on which rows stand beside
it: batches are cut to a token budget, and cutting them otherwise gives the same replies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel

from demur.engine.decode import Decoder, RowsDecoder, TreeDecoder
from demur.engine.history import History
from demur.engine.options import SAMPLE_TOKENS
from demur.errors import EngineError, TrainingError
from demur.schema import Sampling


@dataclass
class Drawn:
    """Token ids, their log-probabilities and whether the row ended by itself."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    stopped: bool = False


Batch = list[tuple[tuple[int, ...], list[int]]]  # prompts, each with the rows that it has here


@torch.inference_mode()
def sample(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    n: int,
    sampling: Sampling,
    *,
    stop_ids: frozenset[int],
    shared: bool = True,
    budget: int = SAMPLE_TOKENS,
    history: History | None = None,
) -> list[list[Drawn]]:
    """Draw ``n`` completions for each prompt (token ids), in the order of the prompts.

    With ``shared`` False every row has a cache of its own. ``history`` is read and added to.
    Raises ``EngineError`` where the budget cannot hold one row, and ``TrainingError`` where the
    model gives NaN instead of logits.
    """
    owners: dict[tuple[int, ...], list[int]] = {}
    for index, prompt in enumerate(prompts):
        owners.setdefault(tuple(prompt), []).append(index)
    wanted = [(p, [i * n + j for i in at for j in range(n)]) for p, at in owners.items()]
    random = torch.Generator().manual_seed(sampling.seed)
    uniform = torch.rand(
        (len(prompts) * n, sampling.max_tokens), generator=random, dtype=torch.float64
    )
    rows = [Drawn() for _ in range(len(prompts) * n)]
    for batch in _batches(wanted, sampling.max_tokens, budget, shared):
        names = [p for p, _ in batch]
        counts = [len(at) for _, at in batch]
        decoder: Decoder
        if shared:
            decoder = TreeDecoder(model, names, counts, sampling.max_tokens, history)
        else:
            decoder = RowsDecoder(model, names, counts)
        chosen = [i for _, at in batch for i in at]
        mine = [rows[i] for i in chosen]
        ranks = torch.tensor([i % n for i in chosen]) if sampling.branch else None
        _write(decoder, mine, counts, uniform[chosen], sampling, stop_ids, model.device, ranks)
        if isinstance(decoder, TreeDecoder) and history is not None:
            history.add(decoder.remember([row.ids for row in mine]))
    return [rows[i * n : (i + 1) * n] for i in range(len(prompts))]


def _batches(wanted: Batch, extra: int, budget: int, shared: bool) -> Iterator[Batch]:
    """Cut the rows into batches whose keys and values fit the budget."""
    batch: Batch = []
    used = 0
    for prompt, rows in sorted(wanted, key=lambda pair: len(pair[0])):
        each = extra if shared else len(prompt) + extra  # tokens that a row costs
        once = len(prompt) if shared else 0  # and its prompt beside
        if once + each > budget:
            raise EngineError(
                f"one reply needs {len(prompt)} + {extra} tokens and the token budget of sampling "
                f"is {budget}; set engine.sample_tokens (with evaluate: sample_tokens) to at "
                f"least {len(prompt) + extra}, or ask for fewer tokens"
            )
        left = list(rows)
        while left:
            alike = shared or not batch or len(batch[0][0]) == len(prompt)
            fit = (budget - used - once) // each
            if batch and (not alike or fit < len(left)):
                yield batch
                batch, used = [], 0
                continue
            taken, left = left[:fit], left[fit:]
            batch.append((prompt, taken))
            used += once + each * len(taken)
    if batch:
        yield batch


def _write(
    decoder: Decoder,
    rows: Sequence[Drawn],
    counts: Sequence[int],
    uniform: Tensor,
    sampling: Sampling,
    stop_ids: frozenset[int],
    device: torch.device,
    ranks: Tensor | None,
) -> None:
    owners = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).to(device)
    logits = decoder.begin().index_select(0, owners)
    uniform = uniform.to(device)
    alive = torch.arange(len(rows), device=device)
    stops = torch.tensor(sorted(stop_ids), device=device)
    for step in range(sampling.max_tokens):
        first = ranks.to(device) if ranks is not None and not step else None
        tokens, logprobs = _pick(logits, sampling.temperature, uniform[alive, step], first)
        ended = torch.isin(tokens, stops)
        over = ended.tolist()
        for row, token, logprob, end in zip(
            alive.tolist(), tokens.tolist(), logprobs.tolist(), over, strict=True
        ):
            rows[row].ids.append(token)
            rows[row].logprobs.append(logprob)
            rows[row].stopped = end
        if sampling.gaps:
            for row, gap in zip(alive.tolist(), _gaps(logits, tokens).tolist(), strict=True):
                rows[row].gaps.append(gap)
        if step + 1 == sampling.max_tokens or all(over):
            break
        if any(over):
            order = decoder.leave(~ended)
            alive, tokens = alive[order], tokens[order]
        logits = decoder.step(tokens)


def _gaps(logits: Tensor, tokens: Tensor) -> Tensor:
    """By how much each token (B,) is more probable than any other, at temperature 1."""
    p = logits.softmax(-1)
    mine = p.gather(1, tokens[:, None])
    others = p.scatter(1, tokens[:, None], 0.0).max(-1, keepdim=True).values
    return (mine - others).squeeze(1)


def _pick(
    logits: Tensor, temperature: float, uniform: Tensor, ranks: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One token a row and its log-probability under the sampling distribution, both (B,).

    A token is where the cumulated probability passes the row's uniform number, or that of the
    row's rank in probability where ``ranks`` are given. Raises ``TrainingError`` where the logits
    of a row are no distribution (NaN or infinite).
    """
    scaled = logits / temperature if temperature else logits
    total = scaled.logsumexp(-1)
    if bool((~total.isfinite()).any()):  # one bad logit makes NaN of its whole row
        raise TrainingError(
            "the model gave NaN or infinite logits while it sampled, so its weights are broken; "
            "copy the model folder again or, in training, lower the learning rate and start from "
            "the last checkpoint kept, with --model and a new --out"
        )
    if ranks is not None:
        places = ranks.clamp(max=logits.shape[1] - 1)
        best = logits.topk(int(places.max()) + 1).indices
        tokens = best.gather(1, places[:, None]).squeeze(1)
    elif temperature == 0:
        tokens = logits.argmax(dim=-1)
    else:
        mass = (scaled - total[:, None]).exp_().cumsum(-1, dtype=torch.float64)
        # strictly below the total, so that a token of no probability is never reached
        aim = torch.minimum(uniform * mass[:, -1], torch.nextafter(mass[:, -1], mass.new_zeros(())))
        tokens = torch.searchsorted(mass, aim[:, None], right=True).squeeze(1)
    return tokens, scaled.gather(1, tokens[:, None]).squeeze(1) - total
