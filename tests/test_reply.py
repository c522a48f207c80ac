"""The text protocol: what is read, what is refused, and that nothing is ever raised."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demur.reply import parse, read_confidence, render
from demur.schema import Reply, Unparsed

TAGS = ["<think>", "</think>", "<answer>", "</answer>", "<confidence>", "</confidence>"]


def read(text: str) -> Reply:
    reply = parse(text)
    assert isinstance(reply, Reply), reply
    return reply


def test_full_form() -> None:
    text = " <think> carry the 1 </think>\n<answer> 42 </answer><confidence>0.85</confidence>\n"
    reply = read(text)
    assert (reply.answer, reply.confidence, reply.thought) == ("42", 0.85, "carry the 1")
    start, end = reply.spans["answer"]
    assert text[start:end] == " 42 "
    assert text[slice(*reply.spans["confidence"])] == "0.85"


def test_thought_is_optional() -> None:
    assert read("<answer>a b</answer><confidence>1</confidence>").thought is None
    assert read("<think></think><answer>x</answer><confidence>1</confidence>").thought == ""


def test_first_answer_and_first_confidence_win() -> None:
    reply = read(
        "<answer>4</answer><confidence>0.2</confidence>"
        "<answer>5</answer><confidence>0.9</confidence>"
    )
    assert (reply.answer, reply.confidence) == ("4", 0.2)
    assert read("<answer>4</answer> or <answer>5</answer><confidence>.5</confidence>").answer == "4"


def test_an_answer_tried_out_in_the_thought_is_not_the_answer() -> None:
    text = "<think>say <answer>7</answer>?</think><answer>8</answer><confidence>1</confidence>"
    reply = read(text)
    assert reply.answer == "8"
    assert text[slice(*reply.spans["answer"])] == "8"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.85", 0.85),
        ("85%", 0.85),
        (" 85 % ", 0.85),
        ("100%", 1.0),
        ("0%", 0.0),
        ("1", 1.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("+0.5", 0.5),
        ("-0", 0.0),
        ("5e-1", 0.5),
        ("0" * 5000 + ".5", 0.5),
    ],
)
def test_confidence_read(text: str, value: float) -> None:
    assert read_confidence(text) == value
    assert read(f"<answer>x</answer><confidence>{text}</confidence>").confidence == value


@pytest.mark.parametrize(
    "text",
    ["nan", "NaN", "inf", "-inf", "7", "-0.1", "1.0001", "101%", "high", "", " ", "%", ".", "0.5.1",
     "1e999", "0_5", "0,5", "\u0660.\u0665", "½", "0.5 0.6", "0x1p-1", "1e", "85%%", "9" * 5000,
     "True"],
)  # fmt: skip
def test_confidence_refused(text: str) -> None:
    reply = parse(f"<answer>x</answer><confidence>{text}</confidence>")
    assert isinstance(reply, Unparsed)
    assert "confidence" in reply.reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "there is no answer"),
        ("42", "there is no answer"),
        ("<confidence>0.5</confidence>", "there is no answer"),
        ("<think>hm <answer>4</answer><confidence>1</confidence>", "the thought is not closed"),
        ("<answer>4", "the answer is not closed"),
        ("<answer>4<confidence>0.5</confidence>", "the answer is not closed"),
        ("<answer>4<answer>5</answer><confidence>0.5</confidence>", "the answer is not closed"),
        ("<answer>4<confidence>1</confidence></answer>", "the answer is not closed"),
        ("<answer></answer><confidence>0.5</confidence>", "the answer is empty"),
        ("<answer> \n</answer><answer>4</answer><confidence>1</confidence>", "the answer is empty"),
        ("<answer>4</answer>", "there is no confidence after the answer"),
        ("<confidence>1</confidence><answer>4</answer>", "there is no confidence after the answer"),
        ("<answer>4</answer><confidence>0.5", "the confidence is not closed"),
    ],
)
def test_unparsed_says_why(text: str, reason: str) -> None:
    assert parse(text) == Unparsed(reason)


@pytest.mark.parametrize(
    ("confidence", "written"),
    [(0.7, "0.7"), (1.0, "1.0"), (0.0, "0.0"), (0.1 + 0.2, "0.3"), (0.85, "0.85"), (1, "1.0")],
)
def test_render(confidence: float, written: str) -> None:
    assert render("4", confidence) == f"<answer>4</answer><confidence>{written}</confidence>"


def test_render_thought() -> None:
    assert render("4", 0.5, "2+2").startswith("<think>2+2</think><answer>4</answer>")


@pytest.mark.parametrize("confidence", [-0.1, 1.1, float("nan"), float("inf")])
def test_render_refuses_what_is_no_probability(confidence: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        render("4", confidence)


pieces = st.lists(st.one_of(st.sampled_from([*TAGS, "0.5", "7", "nan", " "]), st.text(max_size=8)))


@given(pieces.map("".join))
def test_never_raises_and_spans_hold_what_was_read(text: str) -> None:
    reply = parse(text)
    if isinstance(reply, Unparsed):
        assert reply.reason
        return
    assert 0.0 <= reply.confidence <= 1.0
    assert text[slice(*reply.spans["answer"])].strip() == reply.answer != ""
    assert read_confidence(text[slice(*reply.spans["confidence"])]) == reply.confidence


plain = st.text(st.characters(exclude_characters="<>")).map(str.strip).filter(bool)


@given(plain, st.floats(0, 1), st.none() | plain)
def test_round_trip(answer: str, confidence: float, thought: str | None) -> None:
    reply = read(render(answer, confidence, thought))
    assert (reply.answer, reply.thought) == (answer, thought)
    assert reply.confidence == pytest.approx(confidence, abs=1e-9)


@pytest.mark.parametrize("unit", ["<answer>", "<think>", "<", "</answer>", "<answer></", "0%"])
def test_hostile_text_is_read_in_linear_time(unit: str) -> None:
    started = time.perf_counter()
    parse("<answer>" + unit * 100_000)
    parse("<answer>x</answer><confidence>" + unit * 100_000 + "</confidence>")
    assert time.perf_counter() - started < 1.0
