"""The text protocol: how an answer and its confidence are written, and how they are read back.

    <think>...</think><answer>42</answer><confidence>0.85</confidence>

The thought is optional. Reading is strict where leniency would hide a failure (an unclosed tag, a
confidence of "nan" or "7", an empty answer) and lenient where nothing hangs on it (white space,
text between and after the blocks). What cannot be read is ``Unparsed`` with its reason, never a
guess. The first answer wins, so a reply cannot hedge by answering twice.

Only ``str.find`` and one pattern with no nested repetition are used: reading is linear in the
length of the text, whatever a model writes.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache

from demur.schema import Reply, Unparsed

POST_COMPLETION = "<post_completion>"
"""Where a reply ends for whoever reads it, and its assessment begins (post-completion learning)."""
KEPT = 1 << 12
"""How many texts are remembered as they were read: a step's replies repeat each other."""
_TAGS = re.compile(r"</?(?:think|answer|confidence)>")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


@lru_cache(KEPT)
def parse(text: str) -> Reply | Unparsed:
    """Read one completion; never raises.

    ``Reply.spans`` holds the character offsets (start, end) of what stands between the tags of
    "answer" and "confidence", white space included; ``answer`` and ``thought`` are stripped. A
    leading thought is skipped as a whole, so an answer tried out inside it is not the answer. The
    confidence is the first one after the answer.
    """
    thought, start = opening_thought(text)
    if start < 0:
        return Unparsed("the thought is not closed")
    if text.find("<answer>", start) < 0:
        return Unparsed("there is no answer")
    answer_span = block(text, "answer", start)
    if answer_span is None or _TAGS.search(text, *answer_span):
        return Unparsed("the answer is not closed")
    answer = text[answer_span[0] : answer_span[1]].strip()
    if not answer:
        return Unparsed("the answer is empty")
    start = answer_span[1] + len("</answer>")
    if text.find("<confidence>", start) < 0:
        return Unparsed("there is no confidence after the answer")
    confidence_span = block(text, "confidence", start)
    if confidence_span is None:
        return Unparsed("the confidence is not closed")
    confidence = read_confidence(text[confidence_span[0] : confidence_span[1]])
    if confidence is None:
        return Unparsed("the confidence is not a finite number from 0 to 1")
    spans = {"answer": answer_span, "confidence": confidence_span}
    return Reply(answer, confidence, thought, spans)


def opening_thought(text: str) -> tuple[str | None, int]:
    """A thought that a text begins with, and where it goes on after it: -1 if it is not closed."""
    lead = len(text) - len(text.lstrip())
    if not text.startswith("<think>", lead):
        return None, 0
    span = block(text, "think", lead)
    if span is None:
        return None, -1
    return text[slice(*span)].strip(), span[1] + len("</think>")


def read_confidence(text: str) -> float | None:
    """Read a probability: "0.85" and "85%" are 0.85; "nan", "inf", "7" and words are ``None``."""
    text = text.strip()
    percent = text.endswith("%")
    if percent:
        text = text[:-1].rstrip()
    if not _NUMBER.fullmatch(text):
        return None
    value = float(text) / 100 if percent else float(text)
    if not 0.0 <= value <= 1.0:  # also refuses an overflow to infinity
        return None
    return abs(value)  # "-0" is 0


def read_assessment(text: str) -> tuple[float, float] | None:
    """Read ``<self_assessment>0.8 1.0</self_assessment>``: P(right) and P(could be read).

    ``None`` where there is none, or it is not two probabilities. The first one counts.
    """
    span = block(text, "self_assessment", 0)
    said = [] if span is None else text[span[0] : span[1]].split()
    if len(said) != 2:
        return None
    right, read = (read_confidence(part) for part in said)
    return None if right is None or read is None else (right, read)


def render_assessment(right: float, read: float) -> str:
    """Write an assessment, each probability at one decimal."""
    return f"<self_assessment>{right:.1f} {read:.1f}</self_assessment>"


def render(answer: str, confidence: float, thought: str | None = None) -> str:
    """Write a reply. A multiple of 0.1 is written with one decimal ("0.7", "1.0").

    ``parse`` gives the same answer and confidence back if the answer is stripped, not empty and
    free of the protocol's own tags. Raises ``ValueError`` if the confidence is no probability.
    """
    if not 0.0 <= confidence <= 1.0:
        raise ValueError(f"a confidence must be from 0 to 1, not {confidence!r}")
    tenths = confidence * 10
    on_grid = math.isclose(tenths, round(tenths), abs_tol=1e-9)
    number = f"{round(tenths) / 10:.1f}" if on_grid else repr(float(confidence))
    opening = "" if thought is None else f"<think>{thought}</think>"
    return f"{opening}<answer>{answer}</answer><confidence>{number}</confidence>"


def block(text: str, tag: str, start: int) -> tuple[int, int] | None:
    """Offsets of what stands between the first <tag> from ``start`` on and the next </tag>."""
    opening = text.find(f"<{tag}>", start)
    if opening < 0:
        return None
    inside = opening + len(tag) + 2
    end = text.find(f"</{tag}>", inside)
    return None if end < 0 else (inside, end)
