"""The packed tree against padded rows and against one plain forward pass a sample."""

from __future__ import annotations

import pytest
import torch
from tiny import MODELS, VOCABULARY, WINDOW, plain_logits, tiny_model
from torch import Tensor
from transformers import PreTrainedModel

from demur.engine.tree import completion_logits, pack
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


def packed_logits(model: PreTrainedModel, shared: bool, budget: int) -> list[Tensor]:
    """Each sample's logits (L, V), in the order of ``SAMPLES``."""
    found: dict[int, Tensor] = {}
    for packed in pack(SAMPLES, pad_id=0, shared=shared, budget=budget):
        logits = completion_logits(model, packed)
        assert logits.dtype == torch.float32
        for n, index in enumerate(packed.index):
            size = int(packed.valid[n].sum())
            assert tuple(packed.targets[n, :size].tolist()) == SAMPLES[index].completion_ids
            assert index not in found
            found[index] = logits[n, :size]
    assert sorted(found) == list(range(len(SAMPLES)))
    return [found[i] for i in range(len(SAMPLES))]


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("budget", [100_000, 40, 1])
def test_logits_are_those_of_a_plain_forward_pass(kind: str, shared: bool, budget: int) -> None:
    model = tiny_model(kind).double()
    with torch.no_grad():
        for sample, got in zip(SAMPLES, packed_logits(model, shared, budget), strict=True):
            wanted = plain_logits(model, sample.prompt_ids, sample.completion_ids)
            torch.testing.assert_close(got.double(), wanted, rtol=1e-5, atol=1e-5)


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
    for shared, budget in ((True, 100_000), (True, 40), (False, 100_000)):
        got = gradient(packed_logits(model, shared, budget))
        assert float((got - wanted).norm() / wanted.norm()) < 1e-5


def test_a_shared_prompt_is_computed_once() -> None:
    trees = list(pack(SAMPLES, pad_id=0))
    assert len(trees) == 1 and len(trees[0].ids) == len(GROUPS)
    widths = [length + sum(size - 1 for size in sizes) for _, length, sizes in GROUPS]
    assert trees[0].ids.shape[1] == max(widths)
    padded = list(pack(SAMPLES, pad_id=0, shared=False))
    assert sum(len(p.ids) for p in padded) == len(SAMPLES)


@pytest.mark.parametrize("shared", [True, False])
def test_a_forward_pass_keeps_to_the_budget(shared: bool) -> None:
    for budget in (1, 30, 60):
        packs = list(pack(SAMPLES, pad_id=0, shared=shared, budget=budget))
        assert len(packs) > 1
        for packed in packs:
            assert packed.ids.numel() <= budget or len(packed.ids) == 1


def test_an_empty_completion_is_carried_and_counts_for_nothing() -> None:
    model = tiny_model("llama").double()
    empty = Sample(SAMPLES[0].prompt_ids, (), (), (), SAMPLES[0].group)
    both = [empty, SAMPLES[0], empty]
    (packed,) = pack(both, pad_id=0)
    assert packed.valid.sum(1).tolist() == [0, len(SAMPLES[0].completion_ids), 0]
    with torch.no_grad():
        got = completion_logits(model, packed)[1]
        wanted = plain_logits(model, SAMPLES[0].prompt_ids, SAMPLES[0].completion_ids)
    torch.testing.assert_close(got.double(), wanted, rtol=1e-5, atol=1e-5)
