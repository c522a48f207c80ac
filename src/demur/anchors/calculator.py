"""A calculator: finds an arithmetic expression in a question and works it out exactly.

    expression = term (("+" | "-") term)*          term  = factor (("*" | "/" | "//" | "%") factor)*
    factor     = ("+" | "-") factor | power        power = atom (("^" | "**") factor)?
    atom       = number | "(" expression ")"

Nothing is evaluated as code: text becomes numbers and the signs above, or it is not read at all.
Values are fractions, so 1/3*3 is 1; a power or a value too large to be meant is refused.
"""

from __future__ import annotations

import re
from fractions import Fraction

LONGEST = 200  # characters of an expression
DEEPEST = 40  # nested brackets
LARGEST_POWER = 64
LARGEST = 10**60

_TOKEN = re.compile(r"\s*(?:(\d[\d,]*(?:\.\d+)?|\.\d+)|(\*\*|//|[-+*/%^()]))")
_SIGNS = str.maketrans({"\u00d7": "*", "\u00b7": "*", "\u00f7": "/", "\u2212": "-", "\u2013": "-"})
_SPOKEN = re.compile(r"[-+*/%^().,\d\s]*\d[-+*/%^().,\d\s]*")
_DATE = re.compile(r"\d{4}-\d\d-\d\d|\d\d?/\d\d?/\d{4}")


class NotArithmetic(ValueError):
    """A text that is no expression, or one that is too large to work out."""


def calculate(expression: str) -> Fraction:
    """The value of an expression.

    >>> calculate("2 + 3*(4 - 1)"), calculate("1/3*3"), calculate("-2^2")
    (Fraction(11, 1), Fraction(1, 1), Fraction(-4, 1))
    """
    text = expression.translate(_SIGNS).strip()
    if len(text) > LONGEST:
        raise NotArithmetic(f"an expression has {LONGEST} characters at most")
    tokens, at = [], 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise NotArithmetic(f"{text[at]!r} is no number and no sign")
        tokens.append(found[1] or found[2])
        at = found.end()
    reader = _Reader(tokens)
    value = reader.expression(0)
    if reader.at < len(tokens):
        raise NotArithmetic(f"{tokens[reader.at]!r} is out of place")
    return value


def written(value: Fraction) -> str:
    """A value as text: an integer, a decimal that ends, or a fraction.

    >>> written(Fraction(42)), written(Fraction(5, 4)), written(Fraction(1, 3))
    ('42', '1.25', '1/3')
    """
    if value.denominator == 1:
        return str(value.numerator)
    rest, tens = value.denominator, 0
    for prime in (2, 5):
        while rest % prime == 0:
            rest, tens = rest // prime, tens + 1
    if rest != 1:
        return f"{value.numerator}/{value.denominator}"
    shifted = abs(value.numerator) * 10**tens // value.denominator
    digits = f"{shifted:0{tens + 1}d}"
    sign = "-" if value < 0 else ""
    return f"{sign}{digits[:-tens]}.{digits[-tens:]}".rstrip("0")


def expression_in(question: str) -> str | None:
    """The one run of numbers and signs in a question that is an expression.

    ``None`` where there is none with a sign between numbers, where two could be meant, or where it
    is a date.

    >>> expression_in("What is 12 * 7?"), expression_in("Bob has 3 cats and 2 dogs.")
    ('12 * 7', None)
    """
    text = question.translate(_SIGNS)
    runs = [run for found in _SPOKEN.finditer(text) if (run := _apart(text, found))]
    asked = [run for run in runs if re.search(r"\d\s*\)*\s*[-+*/%^]+\s*[-+(]*\s*[\d.]", run)]
    return asked[0] if len(asked) == 1 and not _DATE.fullmatch(asked[0]) else None


def _apart(text: str, found: re.Match[str]) -> str:
    """The run without what surrounds it; empty where it is a part of a word, as in 1_000 or 2x."""
    run = found[0].strip(" \t\n,.")
    start = found.start() + found[0].index(run)
    end = start + len(run)
    touching = text[max(0, start - 1) : start] + text[end : end + 1]
    return "" if re.search(r"\w", touching) else run


class _Reader:
    def __init__(self, tokens: list[str]) -> None:
        self.tokens, self.at = tokens, 0

    def _next(self, *signs: str) -> str | None:
        if self.at < len(self.tokens) and self.tokens[self.at] in signs:
            self.at += 1
            return self.tokens[self.at - 1]
        return None

    def expression(self, depth: int) -> Fraction:
        value = self._term(depth)
        while sign := self._next("+", "-"):
            other = self._term(depth)
            value = _small(value + other if sign == "+" else value - other)
        return value

    def _term(self, depth: int) -> Fraction:
        value = self._factor(depth)
        while sign := self._next("*", "/", "//", "%"):
            other = self._factor(depth)
            if sign == "*":
                value = _small(value * other)
            elif other == 0:
                raise NotArithmetic("division by zero")
            elif sign == "/":
                value = _small(value / other)
            else:
                value = Fraction(value // other) if sign == "//" else value % other
        return value

    def _factor(self, depth: int) -> Fraction:
        if depth > DEEPEST:
            raise NotArithmetic(f"more than {DEEPEST} brackets and signs inside each other")
        if sign := self._next("+", "-"):
            value = self._factor(depth + 1)
            return -value if sign == "-" else value
        base = self._atom(depth)
        if not self._next("^", "**"):
            return base
        power = self._factor(depth + 1)
        if power.denominator != 1 or abs(power) > LARGEST_POWER:
            raise NotArithmetic(f"a power must be a whole number up to {LARGEST_POWER}")
        if base == 0 and power < 0:
            raise NotArithmetic("division by zero")
        return _small(base ** int(power))

    def _atom(self, depth: int) -> Fraction:
        if self._next("("):
            value = self.expression(depth + 1)
            if not self._next(")"):
                raise NotArithmetic("a bracket is not closed")
            return value
        if self.at >= len(self.tokens):
            raise NotArithmetic("the expression ends where a number should stand")
        token = self.tokens[self.at]
        if not token[-1].isdigit():
            raise NotArithmetic(f"{token!r} stands where a number should")
        self.at += 1
        return _small(Fraction(token.replace(",", "")))


def _small(value: Fraction) -> Fraction:
    if abs(value.numerator) > LARGEST or value.denominator > LARGEST:
        raise NotArithmetic("the value is too large")
    return value
