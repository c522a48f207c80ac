"""When two answers are the same answer: the one equivalence behind votes, rewards and metrics.

Systems that compare votes as strings while their rewards test equivalence count "1000" and "1,000"
as two camps and then reward both. Here ``same``, ``canonical``, ``classes`` and ``modal`` all rest
on one ``Grader`` a name, so that cannot happen. "No answer" (``None``) is a class of votes of its
own: dropping such votes before counting makes a majority out of whatever is left.
"""

from __future__ import annotations

import importlib
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from demur.errors import ConfigError, UnknownName

NO_ANSWER = -1
"""The class index of ``None`` in ``classes``."""

KEPT = 1 << 14
"""How many keys of answers are remembered: a step asks for the same ones over and over."""

MATH_SECONDS = 3
"""How long math-verify may work on one expression before the answers count as different."""

_NUMERAL = re.compile(
    r"(?:\$\s*)?([+-]?)(?:\s*\$)?\s*"
    r"([0-9]{1,3}(?:,[0-9]{3})+|[0-9]*)(?:\.([0-9]*))?(?:[eE]([+-]?[0-9]{1,6}))?(?:\s*%)?"
)
_OPTION = re.compile(
    r"(?:(?:option|choice|answer)\s+)?(?:\(([a-z])\)|([a-z]))(?:[.:)](?:\s.*)?|\s*)|\(([a-z])\)\s.+",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Grader:
    """An equivalence of answers.

    ``key`` maps an answer to text that is equal for exactly the equivalent answers; it is ``None``
    where only pairs can be compared.
    """

    same: Callable[[str, str], bool]
    key: Callable[[str], str] | None = None


@lru_cache(KEPT)
def _words(answer: str) -> str:
    """Fold case and collapse white space."""
    return " ".join(answer.split()).casefold()


@lru_cache(KEPT)
def _number(answer: str) -> str:
    """Write a finite number as sign, digits and exponent, exactly; other text as its words.

    "$1,000", "1e3", "1000.0" and "1000%" all give "1e3". Digits are kept, not rounded to a float,
    so two long integers that share a float stay apart. A key is itself a numeral of that value, so
    no words can collide with it.
    """
    match = _NUMERAL.fullmatch(answer.strip().replace("\u2212", "-"))
    if match is None:
        return _words(answer)
    sign, whole, fraction, exponent = match.groups(default="")
    digits = whole.replace(",", "") + fraction
    if not digits:
        return _words(answer)
    significant = digits.lstrip("0").rstrip("0")
    if not significant:
        return "0"
    trailing = len(digits) - len(digits.rstrip("0"))
    power = int(exponent or "0") - len(fraction) + trailing
    return f"{'-' if sign == '-' else ''}{significant}e{power}"


@lru_cache(KEPT)
def _choice(answer: str) -> str:
    """The letter of an option, however it is written; other text as its words.

    >>> _choice("(b)"), _choice("B. Paris"), _choice("Option B"), _choice("(B) x"), _choice("Oslo")
    ('(b)', '(b)', '(b)', '(b)', 'oslo')
    """
    match = _OPTION.fullmatch(answer.strip())
    return _words(answer) if match is None else f"({(match[1] or match[2] or match[3]).casefold()})"


def _math_same(a: str, b: str) -> bool:
    """Compare two expressions with math-verify, in both directions so that it is symmetric."""
    try:
        library = importlib.import_module("math_verify")
    except ImportError:
        raise ConfigError(
            "the grader 'math' needs math-verify, which is not installed: "
            "run `pip install demur[math]`"
        ) from None
    if _words(a) == _words(b):
        return True
    # A text such as 9^{9^{9^9}} would compute forever. math-verify's timeouts rest on signals,
    # which work in the main thread only. It looks for LaTeX inside dollar signs.
    limit = MATH_SECONDS if threading.current_thread() is threading.main_thread() else None
    left, right = (
        library.parse(f"${text.strip().strip('$')}$", parsing_timeout=limit) for text in (a, b)
    )
    return bool(
        library.verify(left, right, timeout_seconds=limit)
        or library.verify(right, left, timeout_seconds=limit)
    )


def _keyed(key: Callable[[str], str]) -> Grader:
    return Grader(same=lambda a, b: key(a) == key(b), key=key)


GRADERS: dict[str, Grader] = {
    "exact": _keyed(_words),
    "number": _keyed(_number),
    "choice": _keyed(_choice),
    "math": Grader(same=_math_same),
}
"""Every grader by name."""


def get_grader(name: str) -> Grader:
    """Look a grader up; raises ``UnknownName``."""
    try:
        return GRADERS[name]
    except KeyError:
        raise UnknownName("grader", name, GRADERS) from None


def same(a: str, b: str, grader: str = "exact") -> bool:
    """Whether two answers are the same answer."""
    return get_grader(grader).same(a, b)


def canonical(answer: str, grader: str = "exact") -> str:
    """Text that is equal for exactly the answers that are the same.

    Raises ``ConfigError`` for a grader that can only compare pairs ("math"): use ``classes``.
    """
    key = get_grader(grader).key
    if key is None:
        raise ConfigError(
            f"the grader {grader!r} compares pairs and has no canonical form: use classes()"
        )
    return key(answer)


def classes(answers: Sequence[str | None], grader: str = "exact") -> list[int]:
    """Give each answer the index of its equivalence class, numbered by first appearance.

    ``None`` gets ``NO_ANSWER`` (-1). Where only pairs can be compared, an answer is compared with
    the first member of each class.
    """
    found = get_grader(grader)
    if found.key is not None:
        index: dict[str, int] = {}
        key = found.key
        return [
            NO_ANSWER if answer is None else index.setdefault(key(answer), len(index))
            for answer in answers
        ]
    first_members: list[str] = []
    labels: list[int] = []
    for answer in answers:
        if answer is None:
            labels.append(NO_ANSWER)
            continue
        for label, member in enumerate(first_members):
            if found.same(answer, member):
                labels.append(label)
                break
        else:
            labels.append(len(first_members))
            first_members.append(answer)
    return labels


def modal(answers: Sequence[str | None], grader: str = "exact") -> tuple[str | None, float]:
    """The most common answer (as first written) and its share of all votes.

    "No answer" is a class of votes like any other, so the answer may be ``None``. A tie goes to the
    class seen first. Raises ``ValueError`` without votes.
    """
    if not answers:
        raise ValueError("there is no modal answer without votes")
    labels = classes(answers, grader)
    counts: dict[int, int] = {}
    for label in labels:  # a dict keeps first-seen order, and max() keeps the first of equals
        counts[label] = counts.get(label, 0) + 1
    winner = max(counts, key=lambda label: counts[label])
    return answers[labels.index(winner)], counts[winner] / len(labels)
