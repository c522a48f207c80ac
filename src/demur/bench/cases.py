"""What is measured: models of random weights, and prompts and replies of fixed lengths."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from demur.engine.options import Engine
from demur.learners.policy_gradient import PolicyGradient
from demur.policies.local import LocalPolicy
from demur.schema import Sample

VOCABULARY = 2048
CONTEXT = 2048
SPECIAL = ("<pad>", "<end>", "<unk>")
LOSS = PolicyGradient()


@dataclass(frozen=True)
class Shape:
    """A Qwen3-shaped model of random weights."""

    hidden: int
    layers: int
    heads: int
    inner: int
    vocabulary: int = VOCABULARY

    @property
    def weights(self) -> int:
        """Weights of the layers' matrices; neither norms nor embeddings."""
        return self.layers * (4 * self.hidden**2 + 3 * self.hidden * self.inner)


SHAPES = {
    "1M": Shape(128, 4, 4, 384),
    "3M": Shape(192, 5, 6, 576),
    "9M": Shape(320, 6, 5, 960),
    "30M": Shape(512, 9, 8, 1536),
    "100M": Shape(768, 12, 12, 2304, 16_384),
    "500M": Shape(1536, 18, 12, 4608, 32_768),
}
USUAL = ("1M", "9M")
ON_GPU = ("100M", "500M")


@dataclass(frozen=True)
class Case:
    """Prompts x group replies each, prompt + completion tokens.

    >>> str(Case(8, 16, 200, 24))
    '8x16,200+24'
    """

    prompts: int
    group: int
    prompt: int
    completion: int

    def __str__(self) -> str:
        return f"{self.prompts}x{self.group},{self.prompt}+{self.completion}"

    @property
    def replies(self) -> int:
        """How many replies or samples there are."""
        return self.prompts * self.group


SAMPLING = (Case(32, 16, 40, 14), Case(8, 16, 200, 24), Case(4, 16, 400, 100))
UPDATE = (Case(16, 16, 40, 16), Case(8, 16, 200, 24), Case(4, 16, 200, 100))
STEP = (Case(8, 16, 200, 24), Case(32, 16, 40, 14))


def build(shape: Shape) -> Qwen3ForCausalLM:
    """The model of a shape, the same weights every time."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        head_dim=shape.hidden // shape.heads,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    model = Qwen3ForCausalLM(config)
    model.eval()
    return model


def words(vocabulary: int) -> PreTrainedTokenizerFast:
    """A tokenizer of one word a token, but for padding, the end and the unknown; no template."""
    known = {token: i for i, token in enumerate(SPECIAL)}
    known |= {f"w{i}": i for i in range(len(SPECIAL), vocabulary)}
    core = Tokenizer(models.WordLevel(known, unk_token=SPECIAL[2]))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=SPECIAL[0], eos_token=SPECIAL[1], unk_token=SPECIAL[2]
    )
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    return tokenizer


def learner(shape: Shape, shared: bool, device: str) -> LocalPolicy:
    """A policy with an optimiser that hardly moves; it never ends a reply early."""
    policy = LocalPolicy(
        build(shape),
        words(shape.vocabulary),
        shared_prefix=None if shared else False,
        engine=Engine(device),
    )
    policy.stop_ids = frozenset()
    policy.optimise(1e-9)
    return policy


def prompts(case: Case, vocabulary: int = VOCABULARY) -> list[tuple[int, ...]]:
    """Random prompts of the case's length."""
    generator = torch.Generator().manual_seed(1)
    drawn = torch.randint(3, vocabulary, (case.prompts, case.prompt), generator=generator)
    return [tuple(row) for row in drawn.tolist()]


def groups(case: Case, vocabulary: int = VOCABULARY) -> list[Sample]:
    """Random groups of samples: half of the replies paid, half not."""
    generator = torch.Generator().manual_seed(2)
    samples = []
    for group, prompt in enumerate(prompts(case, vocabulary)):
        drawn = torch.randint(3, vocabulary, (case.group, case.completion), generator=generator)
        for i, reply in enumerate(drawn.tolist()):
            samples.append(
                Sample(
                    prompt_ids=prompt,
                    completion_ids=tuple(reply),
                    logprobs=(-7.6,) * case.completion,
                    advantages=(1.0 if i % 2 else -1.0,) * case.completion,
                    group=group,
                )
            )
    return samples


def operations(shape: Shape, case: Case) -> float:
    """Floating-point operations that an update of packed trees cannot do without.

    Two a weight and token forward and four backward (arXiv 2001.08361), each prompt once; logits
    of the completions only; attention between the pairs of tokens that may see each other.
    """
    tree = case.prompt + case.group * (case.completion - 1)
    own = case.completion - 1
    pairs = case.prompt * (case.prompt + 1) / 2
    pairs += case.group * (own * case.prompt + own * (own + 1) / 2)
    forward = 2 * shape.weights * tree + 4 * shape.layers * shape.hidden * pairs
    forward += 2 * shape.hidden * shape.vocabulary * case.group * case.completion
    return 3 * forward * case.prompts
