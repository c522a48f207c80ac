"""The packed tree against padded rows and against one plain forward pass a sample."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny import MODELS, VOCABULARY, WINDOW, plain_logits, tiny_model
from torch import Tensor
from transformers import PreTrainedModel

from demur.engine.attention import NAME
from demur.engine.tree import completion_logits, pack, token_logprobs
from demur.errors import EngineError
from demur.schema import Sample

# (group, prompt length, completion lengths): prompts of one token, completions of one token, two
# groups that share a prompt, branches beyond the sliding window
GROUPS = [(0, 7, (5, 1, 9)), (1, 1, (4, 2)), (2, 12, (1,)), (3, 12, (3, 3, 8, 1)), (4, 1, (1, 1))]


def make_samples() -> list[Sample]:
    generator = torch.Generator().manual_seed(1)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(1, VOCABULARY, (count,), generator=generator).tolist())

    samples = []
    prompts = {length: tokens(length) for _, length, _ in GROUPS}
    for group, length, completions in GROUPS:
        for size in completions:
            row = (0.0,) * size
            samples.append(Sample(prompts[length], tokens(size), row, row, group))
    order = torch.randperm(len(samples), generator=generator).tolist()
    return [samples[i] for i in order]  # a group need not lie together


SAMPLES = make_samples()


def packed_logits(model: PreTrainedModel, **how: Any) -> list[Tensor]:
    """Each sample's logits (L, V), in the order of ``SAMPLES``."""
    found: dict[int, Tensor] = {}
    if how.get("shared", True):
        model.set_attn_implementation(NAME)
    for packed in pack(SAMPLES, pad_id=0, **how):
        logits = completion_logits(model, packed)
        for n, index in enumerate(packed.index):
            size = int(packed.valid[n].sum())
            assert tuple(packed.targets[n, :size].tolist()) == SAMPLES[index].completion_ids
            assert index not in found
            found[index] = logits[packed.slots[n, :size]]
    assert sorted(found) == list(range(len(SAMPLES)))
    return [found[i] for i in range(len(SAMPLES))]


WAYS: list[dict[str, Any]] = [
    {"short": 1000},  # a mask a tree
    {"short": 0},  # merged from parts
    {"short": 20},  # some of each
    {"short": 1000, "budget": 40},
    {"short": 0, "budget": 21},  # the longest sample alone
    {"shared": False},
    {"shared": False, "budget": 30},
]


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("how", WAYS, ids=str)
def test_logits_are_those_of_a_plain_forward_pass(kind: str, how: dict[str, Any]) -> None:
    model = tiny_model(kind).double()
    with torch.no_grad():
        for sample, got in zip(SAMPLES, packed_logits(model, **how), strict=True):
            wanted = plain_logits(model, sample.prompt_ids, sample.completion_ids)
            # transformers keeps norms and rotations in float32
            torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["gemma3", "mistral"])
def test_the_window_matters_here(kind: str) -> None:
    """Otherwise the test above would pass without any window in the mask."""
    model = tiny_model(kind).double()
    long = next(s for s in SAMPLES if len(s.prompt_ids) > 2 * WINDOW)
    with torch.no_grad():
        near = plain_logits(model, long.prompt_ids, long.completion_ids)
        model.config.sliding_window = 100
        far = plain_logits(model, long.prompt_ids, long.completion_ids)
    assert (near - far).abs().max() > 1e-2


@pytest.mark.parametrize("kind", MODELS)
def test_gradients_are_those_of_plain_forward_passes(kind: str) -> None:
    model = tiny_model(kind).double()

    def gradient(rows: list[Tensor]) -> Tensor:
        model.zero_grad()
        total = torch.zeros((), dtype=torch.float64)
        for weight, (sample, logits) in enumerate(zip(SAMPLES, rows, strict=True), start=1):
            picked = torch.log_softmax(logits.double(), -1)
            chosen = picked[range(len(sample.completion_ids)), list(sample.completion_ids)]
            total = total + chosen.sum() * (-1.0) ** weight * weight
        total.backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    wanted = gradient([plain_logits(model, s.prompt_ids, s.completion_ids) for s in SAMPLES])
    for how in WAYS:
        got = gradient(packed_logits(model, **how))
        assert float((got - wanted).norm() / wanted.norm()) < 1e-6, how


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_log_probabilities_and_their_gradient(temperature: float) -> None:
    (packed,) = pack(SAMPLES, pad_id=0, short=1000)
    generator = torch.Generator().manual_seed(0)
    shape = (len(packed.kept), VOCABULARY)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(packed.slots.shape, generator=generator, dtype=torch.float64)
    weights = weights * packed.valid
    plain = torch.log_softmax(logits[packed.slots] / temperature, -1)
    plain = plain.gather(-1, packed.targets[..., None]).squeeze(-1)
    (wanted,) = torch.autograd.grad((plain * weights).sum(), logits)
    ours = token_logprobs(logits, packed, temperature)
    torch.testing.assert_close(ours, plain)
    (got,) = torch.autograd.grad((ours * weights).sum(), logits)
    torch.testing.assert_close(got, wanted)


def test_what_is_shared_is_computed_once() -> None:
    prompt, later = (1, 2, 3, 4), (7, 5, 1, 1, 8, 9)
    replies = [(5, 6, 7), (5, 6, 8), (5, 6, 7), later]
    samples = [Sample(prompt, r, (), (), 0) for r in replies]
    samples.append(Sample((*prompt, *later, 9, 9), (3, 3), (), (), 1))  # the next turn after it
    (fine,) = pack(samples, pad_id=0, short=1000)
    # the prompt, "5 6", and "7 5 1 1 8" + "9 9 9 3": what is fed, less each sample's last token
    assert fine.ids.numel() == 4 + 2 + 5 + 4
    (coarse,) = pack(samples, pad_id=0, short=0)
    assert coarse.ids.numel() == 4 + 2 + 5 + 4
    apart = [Sample((1, 2, 3, 9), (5, 6), (), (), 0), *samples[:1]]  # prompts that only begin alike
    (packed,) = pack(apart, pad_id=0, short=1000)
    assert packed.ids.numel() == 5 + 6


@pytest.mark.parametrize("how", WAYS[:3] + WAYS[5:6], ids=str)
def test_a_forward_pass_keeps_to_the_budget(how: dict[str, Any]) -> None:
    for budget in (21, 30, 45):
        packs = list(pack(SAMPLES, pad_id=0, **{**how, "budget": budget}))
        assert len(packs) > 1
        assert all(packed.ids.numel() <= budget for packed in packs)


@pytest.mark.parametrize("shared", [True, False])
def test_a_budget_too_small_for_one_sample_is_refused(shared: bool) -> None:
    with pytest.raises(EngineError, match=r"a single sample needs 19 tokens .* budget is 18"):
        list(pack(SAMPLES, pad_id=0, shared=shared, budget=18))
    with pytest.raises(EngineError, match="a group that has to stay whole"):
        list(pack(SAMPLES, pad_id=0, shared=shared, budget=20, whole=True))


@pytest.mark.parametrize("shared", [True, False])
def test_a_group_that_is_to_stay_whole_does(shared: bool) -> None:
    apart = [  # a group may have several prompts
        replace(sample, group=sample.group % 3) if sample.group > 2 else sample
        for sample in SAMPLES
    ]
    for samples in (SAMPLES, apart):
        budget = 42 if shared else 140
        passes = list(pack(samples, pad_id=0, shared=shared, budget=budget, whole=True))
        assert len(passes) > 1
        groups = [{samples[i].group for i in packed.index} for packed in passes]
        assert sum(map(len, groups)) == len({s.group for s in samples}), "a group was cut"


def test_an_empty_completion_is_carried_and_counts_for_nothing() -> None:
    model = tiny_model("llama").double()
    model.set_attn_implementation(NAME)
    empty = Sample(SAMPLES[0].prompt_ids, (), (), (), SAMPLES[0].group)
    for shared in (True, False):
        (packed,) = pack([empty, SAMPLES[0], empty], pad_id=0, shared=shared)
        row = packed.index.index(1)
        size = len(SAMPLES[0].completion_ids)
        assert sorted(packed.valid.sum(1).tolist()) == [0, 0, size]
        with torch.no_grad():
            got = completion_logits(model, packed)[packed.slots[row, :size]]
            wanted = plain_logits(model, SAMPLES[0].prompt_ids, SAMPLES[0].completion_ids)
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
