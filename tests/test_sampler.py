"""The sampler against transformers.generate and against fresh forward passes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import MODELS, VOCABULARY, plain_logits, tiny_model
from transformers import PreTrainedModel

from demur.engine.attention import NAME
from demur.engine.history import History
from demur.engine.sampler import Drawn, sample
from demur.errors import DemurError, EngineError, TrainingError
from demur.schema import Sampling

PROMPTS = [[3, 9, 4, 17, 8, 2, 11], [6], [5, 30, 31, 7], [12, 13, 14, 15, 16, 17, 18, 19, 20, 21]]
NEW = 12


def draw(
    model: PreTrainedModel,
    prompts: list[list[int]],
    n: int = 1,
    temperature: float = 0.0,
    tokens: int = NEW,
    seed: int = 0,
    stops: frozenset[int] = frozenset(),
    **more: Any,
) -> list[list[Drawn]]:
    model.set_attn_implementation(NAME)
    how = Sampling(temperature, tokens, seed)
    return sample(model, prompts, n, how, stop_ids=stops, **more)


def generate(model: PreTrainedModel, prompts: list[list[int]], stop: int | None) -> list[list[int]]:
    """Greedy rows of transformers.generate on left-padded prompts, cut after the stop token."""
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    out = model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=NEW,
        do_sample=False,
        eos_token_id=stop,
        pad_token_id=0,
    )
    rows = out[:, width:].tolist()
    return [r[: r.index(stop) + 1] if stop in r else r for r in rows]


def ids_of(drawn: list[list[Drawn]]) -> list[list[list[int]]]:
    return [[row.ids for row in rows] for rows in drawn]


@pytest.mark.parametrize("kind", MODELS)
def test_greedy_is_what_transformers_generates(kind: str) -> None:
    model = tiny_model(kind)
    free = generate(model, PROMPTS, None)
    assert [len(row) for row in free] == [NEW] * 4
    assert len({tuple(row) for row in free}) == 4, "a model that says one thing tests nothing"
    assert ids_of(draw(model, PROMPTS)) == [[row] for row in free]
    stop = free[0][4]
    wanted = generate(model, PROMPTS, stop)
    drawn = draw(model, PROMPTS, stops=frozenset({stop}))
    assert ids_of(drawn) == [[row] for row in wanted]
    for (row,), expected in zip(drawn, wanted, strict=True):
        assert row.stopped == (expected[-1] == stop)
        assert stop not in row.ids[:-1]
    assert drawn[0][0].stopped and len(drawn[0][0].ids) <= 5


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_log_probabilities_are_those_of_a_fresh_forward_pass(kind: str, temperature: float) -> None:
    model = tiny_model(kind)
    stops = frozenset(range(40, VOCABULARY))  # often drawn, so rows leave the batch early
    drawn = draw(model, PROMPTS, 3, temperature, seed=4, stops=stops)
    lengths = {len(row.ids) for rows in drawn for row in rows}
    assert temperature == 0 or len(lengths) > 1
    for prompt, rows in zip(PROMPTS, drawn, strict=True):
        assert len(rows) == 3
        for row in rows:
            assert row.stopped == (row.ids[-1] in stops)
            assert row.stopped or len(row.ids) == NEW
            with torch.no_grad():
                logits = plain_logits(model, prompt, row.ids) / (temperature or 1.0)
            wanted = torch.log_softmax(logits, -1)[range(len(row.ids)), row.ids]
            assert row.logprobs == pytest.approx(wanted.tolist(), abs=1e-5)


@pytest.mark.parametrize("kind", ["qwen3", "mistral"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_budget_only_splits_the_work(kind: str, temperature: float) -> None:
    """Batches are cut otherwise, one prompt's rows too, and every row draws what it drew."""
    model = tiny_model(kind)
    prompts = [*PROMPTS, PROMPTS[0], [1, 2, 3]]
    whole = ids_of(draw(model, prompts, 3, temperature))
    sizes = set()
    for budget in (22, 60, 150):
        with Watched(model) as seen:
            assert ids_of(draw(model, prompts, 3, temperature, budget=budget)) == whole
        sizes.add(seen.batches)
    assert len(sizes) == 3, "the budgets were meant to split differently"


@pytest.mark.parametrize("kind", MODELS)
def test_rows_with_caches_of_their_own_draw_the_same(kind: str) -> None:
    model = tiny_model(kind)
    stops = frozenset(range(40, VOCABULARY))
    tree = draw(model, [*PROMPTS, PROMPTS[1]], 3, 1.0, stops=stops)
    rows = draw(tiny_model(kind), [*PROMPTS, PROMPTS[1]], 3, 1.0, stops=stops, shared=False)
    assert ids_of(rows) == ids_of(tree)
    for ours, theirs in zip(tree, rows, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5) and a.stopped == b.stopped


@pytest.mark.parametrize("shared", [True, False])
def test_a_budget_too_small_for_one_row_is_refused(shared: bool) -> None:
    model = tiny_model("llama")
    assert draw(model, [PROMPTS[3]], budget=22, shared=shared)
    with pytest.raises(EngineError, match=r"needs 10 \+ 12 tokens .* budget of sampling is 21"):
        draw(model, [PROMPTS[3]], budget=21, shared=shared)


def test_a_model_without_tree_attention_is_refused() -> None:
    with pytest.raises(EngineError, match="use_tree"):
        sample(tiny_model("llama"), PROMPTS, 1, Sampling(0.0, 4, 0), stop_ids=frozenset())


@pytest.mark.parametrize("kind", MODELS)
def test_later_turns_go_on_from_earlier_ones(kind: str) -> None:
    """Three turns of four dialogues: the same replies, and only what is new is read."""
    model = tiny_model(kind)
    history = History(10_000)
    dialogues = [list(p) for p in PROMPTS]
    for turn in range(3):
        alone = draw(model, dialogues, 2, 1.0, seed=turn, tokens=6)
        with Watched(model) as seen:
            drawn = draw(model, dialogues, 2, 1.0, seed=turn, tokens=6, history=history)
        assert ids_of(drawn) == ids_of(alone)
        for a, b in zip(drawn, alone, strict=True):
            assert a[1].logprobs == pytest.approx(b[1].logprobs, abs=1e-5)
        whole = sum(map(len, dialogues))
        # held: all of the turn before but the last token drawn; new: that one and the next question
        read = 3 * len(dialogues) if turn else whole
        assert seen.fed[0] == read
        dialogues = [[*d, *rows[1].ids, 40 + i, 41] for i, (d, rows) in
                     enumerate(zip(dialogues, drawn, strict=True))]  # fmt: skip
    assert history.reused > 60
    # the same questions again are no later turn: nothing is reused, and every bit is the same
    with Watched(model) as seen:
        again = draw(model, [list(p) for p in PROMPTS], 2, 1.0, tokens=6, history=history)
    assert again == draw(model, [list(p) for p in PROMPTS], 2, 1.0, tokens=6)
    assert seen.fed[0] == sum(map(len, PROMPTS))


def test_a_history_keeps_to_its_budget() -> None:
    model, history = tiny_model("llama"), History(200)
    for turn in range(6):
        draw(model, [[turn + 1, *PROMPTS[3]]], 4, 1.0, history=history)
    assert len(history.batches) == 3  # of 11 + 4 * 12 tokens each
    draw(model, [[40 - i, *PROMPTS[3]] for i in range(5)], 4, 1.0, history=history)
    assert not history.batches, "a batch beyond the whole budget is not kept"


class Watched:
    """The forward passes of a model: how many tokens each was fed."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.fed: list[int] = []

    @property
    def batches(self) -> int:
        """Passes whose columns begin with a position 0, that is prompts read."""
        return self.prefills

    def __enter__(self) -> Watched:
        self.prefills = 0

        def before(_: object, args: object, kwargs: dict[str, Any]) -> None:
            self.fed.append(kwargs["input_ids"].numel())
            self.prefills += int(kwargs["position_ids"][0, 0] == 0)

        self.handle = self.model.register_forward_pre_hook(before, with_kwargs=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.handle.remove()


def test_a_repeated_prompt_is_read_once_and_finished_rows_leave() -> None:
    model = tiny_model("llama")
    prompts = [PROMPTS[0], PROMPTS[1], PROMPTS[0], PROMPTS[2], PROMPTS[0]]
    stops = frozenset(range(36, VOCABULARY))
    with Watched(model) as seen:
        drawn = draw(model, prompts, 4, 1.0, stops=stops)
    assert [len(rows) for rows in drawn] == [4] * 5
    assert seen.fed[0] == sum(len(PROMPTS[i]) for i in range(3))
    fed = sum(len(row.ids) - 1 for rows in drawn for row in rows)
    assert sum(seen.fed[1:]) == fed, "a finished row was computed on"
    mine = ids_of(drawn)
    assert mine[0] != mine[2] and mine[2] != mine[4], "each of them draws for itself"


def test_the_same_seed_gives_the_same_samples() -> None:
    model = tiny_model("qwen3")
    first, again, other = (ids_of(draw(model, PROMPTS, 3, 1.0, seed=s)) for s in (1, 1, 2))
    assert first == again
    assert first != other


def test_draws_follow_the_whole_distribution() -> None:
    model, prompt, n, temperature = tiny_model("llama"), [4, 8, 15], 6000, 1.6
    rows = draw(model, [prompt], n, temperature, tokens=1)[0]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt])).logits[0, -1]
    wanted = torch.softmax(logits / temperature, -1)
    got = torch.bincount(torch.tensor([r.ids[0] for r in rows]), minlength=VOCABULARY) / n
    assert ((got - wanted).abs() < 5 * (wanted * (1 - wanted) / n).sqrt() + 1 / n).all()
    rare = wanted < 0.01  # truncation (top-k, top-p) would leave these out
    assert rare.sum() > 5 and got[rare].sum() == pytest.approx(float(wanted[rare].sum()), rel=0.3)


def test_where_a_row_ends() -> None:
    model = tiny_model("llama")
    first = draw(model, [PROMPTS[0]], tokens=3)[0][0]
    assert not first.stopped and len(first.ids) == 3
    at_once = draw(model, [PROMPTS[0]], stops=frozenset({first.ids[0]}))[0][0]
    assert at_once.ids == first.ids[:1] and at_once.stopped
    last = first.ids[2]
    if last not in first.ids[:2]:  # a stop token as the last one allowed is a stop
        assert draw(model, [PROMPTS[0]], tokens=3, stops=frozenset({last}))[0][0].stopped
    assert draw(model, [], 4) == []


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_broken_weights_are_one_clear_error(temperature: float, bad: float) -> None:
    model = tiny_model("llama")
    with torch.no_grad():
        model.lm_head.weight[7] = bad
    with pytest.raises(TrainingError, match="NaN or infinite logits") as caught:
        draw(model, PROMPTS, 2, temperature)
    assert isinstance(caught.value, DemurError) and "\n" not in str(caught.value)


def test_broken_weights_that_only_one_prompt_reaches() -> None:
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.embed_tokens.weight[30] = float("nan")
    assert draw(model, [[3, 4, 5]], tokens=1, temperature=1.0)
    with pytest.raises(TrainingError):
        draw(model, [[3, 4, 5], [3, 30]], tokens=1, temperature=1.0)


def test_a_forbidden_token_is_no_broken_weight() -> None:
    model = tiny_model("gpt2")
    with torch.no_grad():
        model.transformer.wte.weight[0] = -1e30  # a logit so low that its probability is 0
        model.transformer.ln_f.bias.fill_(3.0)
    rows = draw(model, [[3, 4, 5]], 4, 1.0)[0]
    assert all(0 not in row.ids for row in rows)
