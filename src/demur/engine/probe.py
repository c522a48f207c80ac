"""Whether a model can be computed as a tree: tried on the model itself, never assumed.

Anything may be a causal model, and some read columns where others read positions, or keep a state
that cannot branch. So before an engine is trusted with a model, a small tree goes through it both
ways. Where they differ, padded rows serve, with one warning that says why.
"""

from __future__ import annotations

import warnings

import torch
from transformers import PreTrainedModel

from demur.engine.attention import NAME
from demur.engine.sampler import sample
from demur.engine.tree import completion_logits, pack, token_logprobs
from demur.schema import Sample, Sampling

KNOWN_LAYERS = {"full_attention", "sliding_attention"}
_PROMPT, _REPLIES = (1, 2, 3, 4), ((2, 3, 1, 2), (2, 1, 4), (5, 2, 3))


class FallbackWarning(UserWarning):
    """The engine works on padded rows: right, and slower."""


def use_tree(model: PreTrainedModel) -> bool:
    """Set tree attention on a model and say whether it may be used; else warn, and leave it."""
    before = getattr(model.config, "_attn_implementation", None)
    try:
        why = _differs(model)
    except Exception as error:  # whatever a foreign model makes of it
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
    if why is None:
        return True
    if before and before != getattr(model.config, "_attn_implementation", None):
        model.set_attn_implementation(before)
    warnings.warn(
        f"{type(model).__name__} cannot be computed as a tree ({why}): padded rows are used, which "
        "give the same numbers more slowly",
        FallbackWarning,
        stacklevel=2,
    )
    return False


@torch.inference_mode()
def _differs(model: PreTrainedModel) -> str | None:
    """Why tree and rows disagree; ``None`` where they agree to rounding."""
    config = model.config.get_text_config()
    other = sorted({*(getattr(config, "layer_types", None) or [])} - KNOWN_LAYERS)
    if other:
        return f"layers of {other[0]}"
    vocabulary = int(config.vocab_size)
    prompt = tuple(i % vocabulary for i in _PROMPT)
    samples = [
        Sample(prompt, tuple(i % vocabulary for i in reply), (), (), 0) for reply in _REPLIES
    ]
    rows = _predictions(model, samples, shared=False, short=0)
    model.set_attn_implementation(NAME)
    for short in (0, 1000):
        trees = _predictions(model, samples, shared=True, short=short)
        if not _close(trees, rows, model.dtype):
            return f"its numbers differ by {float((trees - rows).abs().max()):.1g}"
    greedy = Sampling(0.0, 4, 0)
    drawn = sample(model, [prompt, prompt[:2]], 2, greedy, stop_ids=frozenset(), shared=True)
    for given, replies in zip((prompt, prompt[:2]), drawn, strict=True):
        again = [Sample(given, tuple(r.ids), (), (), 0) for r in replies]
        kept = torch.tensor([r.logprobs for r in replies])
        plain = _predictions(model, again, shared=False, short=0).cpu()
        if not _close(kept.flatten(), plain, model.dtype):
            return "its cache cannot branch"
    return None


def _predictions(
    model: PreTrainedModel, samples: list[Sample], shared: bool, short: int
) -> torch.Tensor:
    """Log-probabilities of every sample's tokens, in the order of the samples."""
    found: dict[int, torch.Tensor] = {}
    for packed in pack(samples, pad_id=0, shared=shared, short=short, device=model.device):
        logprobs = token_logprobs(completion_logits(model, packed), packed)
        for n, index in enumerate(packed.index):
            found[index] = logprobs[n, : len(samples[index].completion_ids)]
    return torch.cat([found[i] for i in range(len(samples))])


def _close(a: torch.Tensor, b: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether log-probabilities agree to the rounding of the model's weights."""
    within = 0.2 if dtype in (torch.bfloat16, torch.float16) else 1e-3
    return bool(torch.isfinite(a).all()) and torch.allclose(
        a.double(), b.double(), rtol=0, atol=within
    )
