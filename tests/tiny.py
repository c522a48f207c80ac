"""Real models and tokenizers, made small: nothing here is pretrained or downloaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from demur.policies.local import LocalPolicy
from demur.recipe import Recipe
from demur.runlog import RunFolder, read_metrics
from demur.train import train
from demur.world.pretrain import PretrainConfig, build_model
from demur.world.tokenizer import build_tokenizer

VOCABULARY = 48
WINDOW = 5  # of the sliding attention of the Gemma and Mistral shapes

_SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,  # far from uniform, so that greedy choices are no ties
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
}

MODELS = ("qwen3", "llama", "gpt2", "gemma3", "mistral")


def tiny_model(kind: str) -> PreTrainedModel:
    """A random model of a family; the same every time."""
    torch.manual_seed(5)
    model: PreTrainedModel
    if kind == "qwen3":
        model = Qwen3ForCausalLM(Qwen3Config(**_SHAPE, tie_word_embeddings=True))
    elif kind == "llama":
        model = LlamaForCausalLM(LlamaConfig(**_SHAPE))
    elif kind == "gemma3":  # every other layer attends to a window only
        types = ["sliding_attention", "full_attention"]
        config = Gemma3TextConfig(**_SHAPE, sliding_window=WINDOW, layer_types=types)
        model = Gemma3ForCausalLM(config)
    elif kind == "mistral":  # every layer does
        model = MistralForCausalLM(MistralConfig(**_SHAPE, sliding_window=WINDOW))
    else:
        model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=VOCABULARY,
                n_embd=32,
                n_layer=2,
                n_head=4,
                n_positions=128,
                initializer_range=0.3,
                bos_token_id=None,
                eos_token_id=None,
                pad_token_id=0,
            )
        )
    return model.eval()


def tiny_policy(name: str = "tiny", **shape: int) -> LocalPolicy:
    """The embedded world's tokenizer over an untrained model of its shape."""
    tokenizer = build_tokenizer()
    tiny = {"hidden": 32, "layers": 2, "heads": 2, "kv_heads": 1, "inner": 64}
    config = PretrainConfig(**{**tiny, **shape})
    return LocalPolicy(build_model(config, tokenizer), tokenizer, name)


def endless_policy(context: int = 128) -> LocalPolicy:
    """A model that says "a" whatever it is asked and never stops.

    The last layer norm gives one constant vector, to which only the embedding of "a" is near.
    """
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=128,
            n_embd=16,
            n_layer=1,
            n_head=2,
            n_positions=context,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    with torch.no_grad():
        final = model.transformer.ln_f
        final.weight.zero_()
        final.bias.fill_(1.0)
        model.transformer.wte.weight[tokenizer.convert_tokens_to_ids("a")] = 5.0
    return LocalPolicy(model, tokenizer, "endless")


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer: one character may need several tokens."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|end|>"],
        show_progress=False,
    )
    core.train_from_iterator(["<answer>the answer</answer><confidence>0.5</confidence>"], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|end|>", clean_up_tokenization_spaces=False
    )
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    return tokenizer


def byte_policy(spare: int = 10) -> LocalPolicy:
    """A random model over :func:`byte_tokenizer`: no level of confidence is a single token.

    It has ``spare`` rows of embeddings more than there are tokens, as many models do.
    """
    tokenizer = byte_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer) + spare,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=None,
        eos_token_id=None,
    )
    torch.manual_seed(0)
    return LocalPolicy(LlamaForCausalLM(config), tokenizer, "bytes")


def plain_logits(
    model: PreTrainedModel, prompt: Sequence[int], completion: Sequence[int]
) -> torch.Tensor:
    """Logits that predict each token of a completion, (L, V): one row, no mask, no cache."""
    ids = torch.tensor([[*prompt, *completion]])
    logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits[0]
    return logits[len(prompt) - 1 : -1]


def stopped_at(
    step: int,
    recipe: Recipe,
    policy: Callable[[], LocalPolicy],
    folder: Path,
    *,
    seed: int,
    look: Callable[[Path], None] = lambda killed: None,
) -> list[dict[str, Any]]:
    """The log of a run that was killed when it had logged ``step``, and then resumed.

    It is the same as that of the run in one go, which stands in ``folder / "whole"``. ``look`` sees
    the folder of the killed run, ``folder / "broken"``, as it was left.
    """

    class Killed(Exception):
        pass

    def kill(line: dict[str, object]) -> None:
        if line["step"] == step:
            raise Killed

    whole, broken = folder / "whole", folder / "broken"
    train(recipe, policy(), RunFolder(whole, {"x": 1}), seed=seed)
    with pytest.raises(Killed):
        train(recipe, policy(), RunFolder(broken, {"x": 1}), seed=seed, watch=kill)
    look(broken)
    train(recipe, policy(), RunFolder(broken, {"x": 1}, resume=True), seed=seed)
    first, second = (
        [{k: v for k, v in line.items() if k != "seconds"} for line in read_metrics(path)]
        for path in (whole / "metrics.jsonl", broken / "metrics.jsonl")
    )
    assert first == second and len(first) > step
    return second
