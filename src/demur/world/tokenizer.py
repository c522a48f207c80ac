"""The seed model's tokenizer: one token a character, one a tag, one a confidence level.

A standard fast tokenizer file, so ``AutoTokenizer`` loads it with no code of ours. The eleven
levels 0.0 ... 1.0 are single tokens, as the tags are: the policy's whole distribution over its
stated confidence is then one softmax, and the expected score of DESIGN is exact.
"""

from __future__ import annotations

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

ROLES = ("<|pad|>", "<|unk|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
TAGS = tuple(
    f"<{slash}{tag}>"
    for tag in ("think", "answer", "confidence", "post_completion", "self_assessment")
    for slash in ("", "/")
)
LEVELS = tuple(f"{k / 10:.1f}" for k in range(11))
CHARACTERS = ("\n", *(chr(c) for c in range(32, 127)))
CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}"
    "{% if m.role == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


RESPONSE_TEMPLATE = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|assistant|>",
    "fields": {"content": {"close": "<|end|>", "content": "text"}},
}
"""How a server reads a reply of this model: whole, thought and all, without the tags of turns.

Without it ``transformers serve`` takes the form of Qwen's own chat models for granted.
"""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Make the tokenizer from nothing; the same every time."""
    vocabulary = {token: i for i, token in enumerate((*ROLES, *TAGS, *LEVELS, *CHARACTERS))}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<|unk|>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    core.decoder = decoders.Fuse()
    core.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ROLES])
    core.add_tokens([AddedToken(t, special=False, normalized=False) for t in (*TAGS, *LEVELS)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<|pad|>",
        unk_token="<|unk|>",
        eos_token="<|end|>",
        padding_side="left",
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.response_template = RESPONSE_TEMPLATE
    return tokenizer


def token_id(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    """The id of one token of this vocabulary."""
    found = tokenizer.convert_tokens_to_ids(token)
    assert isinstance(found, int)
    return found
