"""Trees against padded rows: losses and gradients of every kind, and models that are no trees."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import MODELS, VOCABULARY, tiny_model, tiny_policy
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    PreTrainedModel,
)

from demur.engine import attention
from demur.engine.forest import plant
from demur.engine.options import Engine
from demur.engine.probe import FallbackWarning, use_tree
from demur.engine.sampler import sample
from demur.engine.settings import autocast, out_of_memory, place
from demur.engine.tree import completion_logits, pack
from demur.errors import ConfigError, EngineError, TrainingError
from demur.learners.optimise import Loss, set_checkpointing
from demur.learners.policy_gradient import PolicyGradient, Supervised
from demur.learners.preference import Preference
from demur.schema import ExpectedScore, Sample, Sampling

CPU = torch.device("cpu")
LOSSES: list[Loss] = [
    PolicyGradient(kl=0.1, temperature=0.7),
    Supervised(),
    Preference(beta=0.5, smoothing=0.1),
]
WAYS: list[dict[str, Any]] = [{"short": 1000}, {"short": 0}, {"short": 1000, "budget": 44}]


def dialogues() -> list[Sample]:
    """Three groups; the third plays a second turn on top of its own first replies."""
    generator = torch.Generator().manual_seed(4)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(1, VOCABULARY, (count,), generator=generator).tolist())

    samples = []
    for group, (prompt, sizes) in enumerate([(12, (5, 9, 1, 5)), (3, (4, 4)), (8, (6, 7, 3))]):
        asked = tokens(prompt)
        for i, size in enumerate(sizes):
            said = samples[-1].completion_ids if i == 3 else tokens(size)  # once, the same reply
            paid = 1.0 if i % 2 else -0.7
            row = (paid,) * len(said)
            score = ExpectedScore(0, (3, 5, 9), (0.1, 0.5, 0.9), 0.3) if not i else None
            lps = (-3.5,) * len(said)
            samples.append(Sample(asked, said, lps, row, group, expected_score=score))
            if group == 2:
                later = tokens(4)
                samples.append(
                    Sample((*asked, *said, 7, 8), later, (-3.5,) * 4, (-paid,) * 4, group)
                )
    return samples


SAMPLES = dialogues()


def reference_of(kind: str) -> PreTrainedModel:
    model = tiny_model(kind)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(0.97)
    return model


def plain(model: PreTrainedModel) -> PreTrainedModel:
    return model


def with_lora(model: PreTrainedModel) -> PreTrainedModel:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    lora: Any = get_peft_model(
        model,
        LoraConfig(
            r=3,
            target_modules="all-linear",
            init_lora_weights=False,
            fan_in_fan_out=isinstance(model, GPT2LMHeadModel),
        ),
    )
    return lora.eval()


def with_checkpoints(model: PreTrainedModel) -> PreTrainedModel:
    set_checkpointing(model, True)
    return model


def learnt(
    model: PreTrainedModel, reference: PreTrainedModel, loss: Loss, engine: Engine, **how: Any
) -> tuple[float, torch.Tensor]:
    """The loss of all samples and its gradient, as one vector."""
    total, scale = 0.0, loss.scale(SAMPLES)
    model.zero_grad()
    for packed in pack(SAMPLES, pad_id=0, whole=loss.whole_groups, **how):
        with autocast(engine, CPU):
            given = None
            if loss.needs_reference:
                from demur.learners.optimise import _reference

                given = _reference(reference, packed, loss)
            logits = completion_logits(model, packed)
        value, _ = loss(logits, packed, SAMPLES, scale, given)
        value.backward()
        total += float(value.detach())
    gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return total, torch.cat(gradients)


def parts(model: PreTrainedModel, *vectors: torch.Tensor) -> dict[str, tuple[torch.Tensor, ...]]:
    """The pieces of flat gradients that belong to each parameter."""
    names = {n: p.numel() for n, p in model.named_parameters() if p.grad is not None}
    pieces = [v.split(list(names.values())) for v in vectors]
    return dict(zip(names, zip(*pieces, strict=True), strict=True))


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("made", [plain, with_lora, with_checkpoints])
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated")  # peft asks for it
def test_loss_and_gradient_are_those_of_padded_rows(
    kind: str, loss: Loss, made: Callable[[PreTrainedModel], PreTrainedModel]
) -> None:
    engine = Engine(precision="float32")
    rows, anchor = made(tiny_model(kind)), reference_of(kind)
    wanted, slope = learnt(rows, anchor, loss, engine, shared=False)
    assert slope.norm() > 1e-3
    trees, tree_anchor = made(tiny_model(kind)), reference_of(kind)
    for model in (trees, tree_anchor):
        assert use_tree(model)
    for how in WAYS:
        if loss.whole_groups and "budget" in how:
            how = {**how, "budget": 60}
        value, gradient = learnt(trees, tree_anchor, loss, engine, **how)
        assert value == pytest.approx(wanted, rel=1e-5, abs=1e-6)
        assert float((gradient - slope).norm() / slope.norm()) < 1e-5, how
        for name, (a, b) in parts(trees, gradient, slope).items():
            # beside the rounding of sums that all but cancel, as a key's bias under a softmax
            assert float((a - b).norm()) < 1e-5 * float(b.norm()) + 1e-7 * float(slope.norm()), name


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_where_there_is_no_flash_kernel_plain_products_do_the_same(
    kind: str, precision: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs on a GPU, run here."""
    engine, model, loss = Engine(precision=precision), tiny_model(kind), Supervised()
    assert use_tree(model)
    near = 1e-5 if precision == "float32" else 0.05
    for how in WAYS[:2]:
        value, slope = learnt(model, model, loss, engine, **how)
        with monkeypatch.context() as patch:
            patch.setattr(attention, "_has_flash", lambda q: False)
            again, gradient = learnt(model, model, loss, engine, **how)
        assert again == pytest.approx(value, rel=near)
        assert 0 < float((gradient - slope).norm() / slope.norm()) < near, "the same kernel ran"


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_bfloat16_agrees_within_its_rounding(kind: str, loss: Loss) -> None:
    """As close to float32 as padded rows in bfloat16 are."""
    half, full = Engine(precision="bfloat16"), Engine(precision="float32")
    model, anchor = tiny_model(kind), reference_of(kind)
    assert use_tree(model) and use_tree(anchor)
    exact, slope = learnt(model, anchor, loss, full, shared=False)
    rounded, rough = learnt(model, anchor, loss, half, shared=False)
    off = float((rough - slope).norm() / slope.norm())
    assert 1e-4 < off < 0.5
    for how in WAYS[:2]:
        value, gradient = learnt(model, anchor, loss, half, **how)
        assert abs(value - exact) < 2 * abs(rounded - exact) + 0.02 * abs(exact)
        assert float((gradient - slope).norm() / slope.norm()) < 1.5 * off


def test_checkpointing_keeps_less_and_drops_nothing_out() -> None:
    """What is kept for the backward pass shrinks, though GPT-2 comes with dropout."""

    def kept(model: PreTrainedModel) -> int:
        sizes = []

        def note(x: torch.Tensor) -> torch.Tensor:
            sizes.append(x.numel())
            return x

        (packed,) = pack(SAMPLES, pad_id=0)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            completion_logits(model, packed)
        return sum(sizes)

    model = tiny_model("gpt2")
    use_tree(model)
    before = kept(model)
    assert kept(with_checkpoints(model)) < 0.5 * before
    drops = [m for m in model.modules() if isinstance(m, torch.nn.Dropout)]
    assert drops and not any(m.training for m in drops)


# -- preferences ----------------------------------------------------------------------------------


def test_the_preference_loss_by_hand() -> None:
    """One group of two better replies and one worse, logits given; the formula in numpy."""
    rng = np.random.default_rng(0)
    replies = [((1, 2), 1.0), ((3,), -1.0), ((2, 2, 1), 1.0), ((4,), 0.0)]
    samples = [Sample((5,), ids, (), (sign,) * len(ids), 0) for ids, sign in replies]
    (packed,) = pack(samples, pad_id=0, shared=False)
    n, length = packed.targets.shape
    packed = replace(packed, slots=torch.arange(n * length).view(n, length))
    logits, ref = rng.normal(size=(n * length, 6)), rng.normal(size=(n, length))
    how = Preference(beta=0.3, smoothing=0.2)
    leaf = torch.tensor(logits, requires_grad=True)
    value, stats = how(leaf, packed, samples, how.scale(samples), torch.tensor(ref))
    score = {}
    for row, i in enumerate(packed.index):
        own = 0.0
        for t, token in enumerate(samples[i].completion_ids):
            x = logits[row * length + t]
            own += x[token] - np.log(np.exp(x).sum()) - ref[row, t]
        score[i] = 0.3 * own
    wanted = 0.0
    for better in (0, 2):
        margin = score[better] - score[1]
        wanted += 0.8 * np.log1p(np.exp(-margin)) + 0.2 * np.log1p(np.exp(margin))
    assert float(value.detach()) == pytest.approx(wanted / 2)
    assert float(stats["pairs"]) == 2
    (gradient,) = torch.autograd.grad(value, leaf)
    rows = {i: row for row, i in enumerate(packed.index)}
    assert not gradient[rows[3] * length :][:length].any(), "a reply of no sign takes no part"
    assert gradient[rows[0] * length, 1] < 0 < gradient[rows[1] * length, 3]


def test_preferences_without_a_pair_or_a_reference_are_refused() -> None:
    policy = tiny_policy()
    policy.optimise(1e-2)
    one = [Sample((3, 4), (5,), (0.0,), (1.0,), 0), Sample((3, 4), (6,), (0.0,), (-1.0,), 1)]
    with pytest.raises(TrainingError, match="keep_reference"):
        policy.update(one, Preference())
    policy.keep_reference()
    with pytest.raises(TrainingError, match="both a preferred and a rejected"):
        policy.update(one, Preference())


def test_preferences_are_learnt() -> None:
    policy = tiny_policy()
    policy.optimise(1e-2)
    policy.keep_reference()
    pair = [Sample((3, 4), (5, 6), (0.0,) * 2, (1.0,) * 2, 0),
            Sample((3, 4), (6, 5), (0.0,) * 2, (-1.0,) * 2, 0)]  # fmt: skip
    first = policy.update(pair, Preference())
    assert first["loss"] == pytest.approx(np.log(2), abs=1e-5) and first["margin"] == pytest.approx(
        0.0, abs=1e-5
    )
    for _ in range(10):
        last = policy.update(pair, Preference())
    assert last["margin"] > 0.5 and last["agreement"] == 1.0 and last["loss"] < first["loss"]


# -- models that cannot be trees ------------------------------------------------------------------


def bloom() -> PreTrainedModel:
    """ALiBi: distances are read off columns, not off positions."""
    torch.manual_seed(0)
    config = BloomConfig(
        vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3
    )
    return BloomForCausalLM(config).eval()


def gemma2() -> PreTrainedModel:
    """Scores are capped before the softmax."""
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        initializer_range=0.3,
    )
    config._attn_implementation = "eager"
    return Gemma2ForCausalLM(config).eval()


def gpt_neo() -> PreTrainedModel:
    """An attention of its own, which knows no interface."""
    torch.manual_seed(0)
    config = GPTNeoConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        attention_types=[[["global", "local"], 1]],
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    return GPTNeoForCausalLM(config).eval()


@pytest.mark.parametrize("make", [bloom, gemma2, gpt_neo])
def test_other_models_fall_back_to_padded_rows(make: Callable[[], PreTrainedModel]) -> None:
    model = make()
    with pytest.warns(FallbackWarning, match="padded rows are used") as caught:
        assert not use_tree(model)
    assert len(caught) == 1
    rows = sample(
        model, [[3, 4, 5, 6], [7, 8]], 2, Sampling(1.0, 5, 0), stop_ids=frozenset(), shared=False
    )
    samples = [
        Sample(tuple(p), tuple(r.ids), tuple(r.logprobs), (1.0,) * 5, 0)
        for p, drawn in zip([[3, 4, 5, 6], [7, 8]], rows, strict=True)
        for r in drawn
    ]
    for packed in pack(samples, pad_id=0, shared=False):
        logits = completion_logits(model, packed)
        for n, i in enumerate(packed.index):
            alone = torch.tensor([[*samples[i].prompt_ids, *samples[i].completion_ids]])
            wanted = model(input_ids=alone).logits[0, len(samples[i].prompt_ids) - 1 : -1]
            torch.testing.assert_close(logits[packed.slots[n]], wanted, rtol=1e-4, atol=1e-4)
            kept = torch.log_softmax(wanted, -1)[range(5), list(samples[i].completion_ids)]
            assert samples[i].logprobs == pytest.approx(kept.tolist(), abs=1e-4)


def test_an_attention_that_cannot_be_registered_falls_back(monkeypatch: Any) -> None:
    model = tiny_model("llama")

    def refuse(name: str) -> None:
        raise ValueError(f"no attention named {name}")

    monkeypatch.setattr(model, "set_attn_implementation", refuse)
    with pytest.warns(FallbackWarning, match="no attention named demur_tree"):
        assert not use_tree(model)


def test_a_tree_that_gives_other_numbers_is_not_used(monkeypatch: Any) -> None:
    """The probe compares numbers: an engine that is wrong, by whatever mistake, is not trusted."""
    right = attention.merged_parts

    def wrong(*args: Any) -> list[attention.Part]:
        return right(*args)[:-1]  # replies that do not see their prompt

    monkeypatch.setattr("demur.engine.tree.merged_parts", wrong)
    model = tiny_model("qwen3")
    before = model.config._attn_implementation
    with pytest.warns(FallbackWarning, match="its numbers differ by"):
        assert not use_tree(model)
    assert model.config._attn_implementation == before


@pytest.mark.parametrize("kind", MODELS)
def test_the_models_people_use_need_no_fallback(kind: str) -> None:
    model = tiny_model(kind)
    ids = torch.tensor([[3, 4, 5, 6, 7, 8]])
    before = model(input_ids=ids).logits
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert use_tree(model)
    assert torch.equal(model(input_ids=ids).logits, before), "others must find the model unchanged"


# -- forests --------------------------------------------------------------------------------------

SMALL = st.lists(st.integers(0, 2), min_size=1, max_size=5).map(tuple)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(SMALL, SMALL), min_size=1, max_size=9), st.booleans())
def test_a_token_sees_its_own_sequence_and_nothing_else(
    pairs: list[tuple[tuple[int, ...], tuple[int, ...]]], fine: bool
) -> None:
    sequences = [(*p, *c) for p, c in pairs]
    forest = plant(sequences, [len(p) for p, _ in pairs], fine=fine)
    for sequence, columns in zip(sequences, forest.columns, strict=True):
        assert tuple(forest.tokens[columns]) == sequence
        assert forest.positions[columns].tolist() == list(range(len(sequence)))
        for t, q in enumerate(columns.tolist()):
            seen = [k for k in range(len(forest)) if k <= q < forest.ends[k]]
            assert seen == columns[: t + 1].tolist()
    assert len(forest) <= sum(map(len, sequences))
    nodes = forest.nodes()
    assert sum(n.length for n in nodes) == len(forest)
    for node in nodes:
        above = [
            k for n in node.parents for k in range(nodes[n].start, nodes[n].start + nodes[n].length)
        ]
        assert above == [k for k in range(node.start) if forest.ends[k] > node.start]


# -- devices and memory ---------------------------------------------------------------------------


def test_devices() -> None:
    auto = place(Engine())
    assert auto.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert place(Engine(device="cpu")) == CPU
    for name in ("gpu", "tpu", "cuda:99"):
        with pytest.raises(ConfigError, match=name):
            place(Engine(device=name))
    with autocast(Engine(device="cpu"), CPU):
        assert not torch.is_autocast_enabled("cpu")
    with autocast(Engine(precision="bfloat16"), CPU):
        assert torch.is_autocast_enabled("cpu")


def test_a_sample_beyond_the_context_is_refused() -> None:
    policy = tiny_policy()
    policy.optimise(1e-3)
    ids = (5,) * (policy.context + 1)
    with pytest.raises(EngineError, match=f"longer than the {policy.context}"):
        policy.update([Sample((3,), ids, (0.0,) * len(ids), (1.0,) * len(ids), 0)], Supervised())


EXHAUST = """
import resource, sys, warnings
import torch
sys.path[:0] = {paths!r}
from tiny import tiny_policy
from demur.learners.policy_gradient import Supervised
from demur.schema import Message, Sample, Sampling

torch.set_num_threads(1)
policy = tiny_policy(**{shape})
policy.optimise(1e-3)
reply = tuple(range(2, 60))
samples = [
    Sample(tuple(5 + (g * 7 + i) % 50 for i in range(60)), reply[j:] + reply[:j], (0.0,) * 58,
           (1.0,) * 58, g)
    for g in range(40) for j in range(8)
]
warmed = policy.update(samples[:8], Supervised())
policy.reply([(Message("user", "1+1?"),)], 2, Sampling(1.0, 8, 0))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {room} * 2**20, -1))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    try:
        {work}
    except Exception as error:
        print("RAISED", type(error).__name__, error)
print("WARNED", len(caught), *(str(w.message) for w in caught))
"""


DRAW = (
    "asked = [(Message('user', 'a' * 40 + chr(98 + i % 20) * (i + 1)),) for i in range(60)]; "
    "print('DREW', len(policy.reply(asked, 8, Sampling(1.0, 40, 0))))"
)
# Eight KiB of keys and values a token, about 200 MiB in all: much more than what a process takes by
# the way. (The samples of an update are large enough for the smallest model.)
WIDE = {"hidden": 256, "layers": 4, "heads": 4, "kv_heads": 4}


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on address space")
@pytest.mark.parametrize(
    ("room", "shape", "work", "wanted"),
    [
        (64, {}, "print('LOSS', policy.update(samples, Supervised())['loss'])", "LOSS"),
        (100, WIDE, DRAW, "DREW"),
        (0, {}, "policy.update(samples, Supervised())", "RAISED EngineError out of memory"),
    ],
)  # fmt: skip
def test_out_of_memory(room: int, shape: dict[str, int], work: str, wanted: str) -> None:
    """A real limit on a real process: less at a time with a warning, or one clear error."""
    code = EXHAUST.format(paths=[p for p in sys.path if p], room=room, shape=shape, work=work)
    env = {**os.environ, "MALLOC_ARENA_MAX": "1"}  # an arena reserves 64 MiB at its first use
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, env=env
    )
    assert wanted in done.stdout, done.stdout + done.stderr
    assert "out of memory" in done.stdout.split("WARNED", 1)[1]


def test_other_errors_are_no_lack_of_memory() -> None:
    assert out_of_memory(MemoryError()) and not out_of_memory(RuntimeError("shape mismatch"))
