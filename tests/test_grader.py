"""One equivalence for votes, rewards and metrics."""

from __future__ import annotations

import importlib
from decimal import Decimal
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demur.errors import ConfigError, UnknownName
from demur.tasks.grader import GRADERS, NO_ANSWER, canonical, classes, modal, same

KEYED = [name for name, grader in GRADERS.items() if grader.key is not None]


def test_exact_folds_case_and_white_space() -> None:
    assert same("  New\n York ", "new york")
    assert same("STRASSE", "straße")
    assert not same("new york", "newyork")
    assert not same("1000", "1,000")


@pytest.mark.parametrize(
    "text",
    ["1000", "1,000", "1e3", "1000.0", "$1,000", "$ 1000", "1000%", "1000 %", "+1000", "1000.",
     " 01,000.00 ", "1E+3", "10000e-1", "0.1e4", "$1,000.000", "+$1000"],
)  # fmt: skip
def test_number_forms_of_a_thousand(text: str) -> None:
    assert same(text, "1000", "number")
    assert same("1000", text, "number")


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("1000", "-1000"),
        ("1000", "1001"),
        ("10,00", "1000"),
        ("1,0000", "10000"),
        ("3 4", "34"),
        ("nan", "0"),
        ("inf", "1e999"),
        ("", "0"),
        (".", "0"),
        ("$", "0"),
        ("9007199254740993", "9007199254740992"),
        ("0.1", "0.10000000000000001"),
        ("1e5", "1e-5"),
        ("five", "5"),
    ],
)
def test_different_numbers(a: str, b: str) -> None:
    assert not same(a, b, "number")


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("-5", "\u22125"),
        ("-$5", "$-5"),
        ("0", "-0.00"),
        ("0e5", "0"),
        ("Paris ", "paris"),
        ("nan", "NaN"),
        ("0.5", ".50"),
    ],
)
def test_same_numbers_or_words(a: str, b: str) -> None:
    assert same(a, b, "number")


@given(st.integers(-(10**30), 10**30))
def test_number_agrees_with_python_integers(value: int) -> None:
    assert same(f"{value:,}", f"{value}.0", "number")
    assert not same(str(value), str(value + 1), "number")


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(0.5, 2))
def test_number_agrees_with_python_floats(value: float, factor: float) -> None:
    assert same(repr(value), format(Decimal(repr(value)), "f"), "number")
    other = value * factor
    if other != value:
        assert not same(repr(value), repr(other), "number")


answers = st.one_of(
    st.text(max_size=6),
    st.sampled_from(["1000", "1,000", "1e3", "$1000", "a", " A", "nan", "5e0", "5", "-0", "0"]),
)


@pytest.mark.parametrize("grader", KEYED)
@given(st.lists(answers, min_size=1, max_size=6))
def test_an_equivalence_and_its_key_agree(grader: str, items: list[str]) -> None:
    labels = classes(items, grader)
    for a, label_a in zip(items, labels, strict=True):
        assert same(a, a, grader)
        assert canonical(canonical(a, grader), grader) == canonical(a, grader)
        for b, label_b in zip(items, labels, strict=True):
            equal = same(a, b, grader)
            assert equal == same(b, a, grader)
            assert equal == (canonical(a, grader) == canonical(b, grader)) == (label_a == label_b)


def test_classes_and_modal() -> None:
    votes = ["1000", None, "7", "1,000", None, "1e3"]
    assert classes(votes, "number") == [0, NO_ANSWER, 1, 0, NO_ANSWER, 0]
    assert modal(votes, "number") == ("1000", 0.5)
    assert modal(votes, "exact") == (None, pytest.approx(1 / 3))


def test_no_answer_is_a_class_and_ties_go_to_the_first_seen() -> None:
    assert modal(["b", "a", "a", "b"]) == ("b", 0.5)
    assert modal([None, "a"]) == (None, 0.5)
    assert modal(["a", None]) == ("a", 0.5)
    assert modal([None, None]) == (None, 1.0)
    with pytest.raises(ValueError, match="without votes"):
        modal([])


def test_unknown_grader_names_the_near_match() -> None:
    for call in (lambda: same("a", "a", "numbr"), lambda: classes(["a"], "numbr")):
        with pytest.raises(UnknownName, match="did you mean 'number'"):
            call()


def test_math_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ConfigError, match=r"pip install demur\[math\]"):
        same("1/2", "0.5", "math")
    with pytest.raises(ConfigError, match="classes"):
        canonical("1/2", "math")


def test_math_is_symmetric_and_uses_representatives(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {("$1/2$", "$0.5$")}  # one direction only, as math-verify may answer
    library = SimpleNamespace(
        parse=lambda text, parsing_timeout: text,
        verify=lambda gold, answer, timeout_seconds: (gold, answer) in known,
    )
    monkeypatch.setattr(importlib, "import_module", lambda name: library)
    assert same("1/2", "0.5", "math") and same("0.5", "1/2", "math")
    assert not same("1/3", "0.5", "math")
    assert classes(["0.5", "1/3", None, "1/2"], "math") == [0, 1, NO_ANSWER, 0]
    assert modal(["0.5", "1/3", None, "1/2"], "math") == ("0.5", 0.5)


def test_math_verify_itself() -> None:
    pytest.importorskip("math_verify")
    assert same(r"\frac{1}{2}", "0.5", "math")
    assert same("$2x$", "x + x", "math")
    assert not same("1/3", "0.5", "math")
