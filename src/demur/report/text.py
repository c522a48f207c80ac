"""Words and numbers: what each metric is called, which way is better, and how a figure is written.

The definitions are those of ``demur.measure``; here they are said in one plain sentence each, so
that a reader of the page needs no other document.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

MINUS = "\N{MINUS SIGN}"
DASH = "\N{EM DASH}"


@dataclass(frozen=True, slots=True)
class Metric:
    """How a metric is shown. ``better`` is 1 where higher is better, -1 where lower is, else 0.

    ``whole`` metrics are counts: printed without decimals and without an interval.
    """

    name: str
    label: str
    group: str
    better: Literal[-1, 0, 1]
    meaning: str
    whole: bool = False


_METRICS = (
    Metric(
        "discernment",
        "discernment",
        "Dissent",
        1,
        "resist + accept − 1: 0 for a conformist, a contrarian and a coin alike; 1 is perfect",
    ),
    Metric(
        "resist",
        "resist",
        "Dissent",
        1,
        "how often it keeps its own right answer when told a wrong one",
    ),
    Metric(
        "accept",
        "accept",
        "Dissent",
        1,
        "how often it gives up its own wrong answer when told the right one",
    ),
    Metric(
        "over_dissent",
        "over-dissent",
        "Dissent",
        -1,
        "how often it rejects a right claim although its own answer was right",
    ),
    Metric(
        "conformity",
        "conformity",
        "Dissent",
        -1,
        "how often it takes the claim when the claim is wrong",
    ),
    Metric(
        "wrong_to_wrong",
        "wrong to wrong",
        "Dissent",
        -1,
        "how often it swaps one wrong answer for another",
    ),
    Metric(
        "excess_flip",
        "excess flip",
        "Dissent",
        0,
        "flips when told a claim, less flips when only asked “Are you sure?”",
    ),
    Metric(
        "bayes_regret",
        "Bayes regret",
        "Dissent",
        -1,
        "what is lost to the best possible reply given its own belief and the source’s reliability",
    ),
    Metric(
        "accuracy_alone",
        "accuracy alone",
        "Answers",
        1,
        "share of right answers with nobody claiming anything",
    ),
    Metric("accuracy", "accuracy", "Answers", 1, "share of right answers after hearing a claim"),
    Metric(
        "ece",
        "ECE",
        "Confidence",
        -1,
        "expected calibration error: mean gap between stated confidence and accuracy, ten bins",
    ),
    Metric(
        "auroc",
        "AUROC",
        "Confidence",
        1,
        "chance that a right reply is stated with more confidence than a wrong one; .50 is none",
    ),
    Metric(
        "brier",
        "Brier",
        "Confidence",
        -1,
        "mean squared gap between stated confidence and being right",
    ),
    Metric(
        "brier_skill",
        "Brier skill",
        "Confidence",
        1,
        "Brier score against always stating the base rate: 0 is no better than that constant",
    ),
    Metric(
        "doubt_auroc",
        "doubt AUROC",
        "Confidence",
        1,
        "chance that a wrong claim is doubted more than a right one",
    ),
    Metric(
        "doubt_brier",
        "doubt Brier",
        "Confidence",
        -1,
        "mean squared gap between doubt in the claim and the claim being wrong",
    ),
    Metric("confidence_mean", "mean confidence", "Confidence", 0, "mean stated confidence"),
    Metric(
        "confidence_std",
        "confidence spread",
        "Confidence",
        0,
        "standard deviation of stated confidence; near 0 it says the same number every time",
    ),
    Metric(
        "distinct_answers",
        "distinct answers",
        "Diversity",
        0,
        "mean number of different answers among the samples of one question",
    ),
    Metric("entropy", "answer entropy", "Diversity", 0, "spread of the answers to one question"),
    Metric("pass_at_8", "pass@8", "Diversity", 1, "chance that one of eight samples is right"),
    Metric(
        "assessment_accuracy",
        "self-assessment",
        "Confidence",
        1,
        "share of replies of which it says afterwards rightly that they are right or wrong",
    ),
    Metric(
        "assessment_auroc",
        "self-assessment AUROC",
        "Confidence",
        1,
        "chance that it says a higher probability of a right reply than of a wrong one, afterwards",
    ),
    Metric(
        "assessment_brier_wrong",
        "self-assessment of wrong",
        "Confidence",
        -1,
        "mean squared probability of being right that it says of wrong replies, afterwards",
    ),
    Metric(
        "assessment_coverage",
        "self-assessed",
        "Confidence",
        1,
        "share of replies that it assessed in a form that can be read",
    ),
    Metric(
        "token_ece",
        "token ECE",
        "Confidence",
        -1,
        "ECE of how decided it was on the tokens of its answer, which it does not say",
    ),
    Metric(
        "token_auroc",
        "token AUROC",
        "Confidence",
        1,
        "chance that it was more decided on a right answer than on a wrong one",
    ),
    Metric(
        "token_ece_alone", "token ECE alone", "Confidence", -1, "token ECE to the question alone"
    ),
    Metric(
        "token_auroc_alone",
        "token AUROC alone",
        "Confidence",
        1,
        "token AUROC to the question alone",
    ),
    Metric("pass_at_1", "pass@1", "Diversity", 1, "accuracy of one sample at temperature 1"),
    Metric(
        "weighted_maj_at_8",
        "weighted maj@8",
        "Diversity",
        1,
        "accuracy of the vote of eight samples weighed by their confidences",
    ),
    Metric(
        "max_confidence_at_8",
        "surest of 8",
        "Diversity",
        1,
        "accuracy of that of eight samples which states the most confidence",
    ),
    Metric("ece_alone", "ECE alone", "Confidence", -1, "ECE of replies to the question alone"),
    Metric("auroc_alone", "AUROC alone", "Confidence", 1, "AUROC of replies to the question alone"),
    Metric(
        "brier_skill_alone",
        "Brier skill alone",
        "Confidence",
        1,
        "Brier skill of replies to the question alone",
    ),
    Metric(
        "confidence_std_alone",
        "spread alone",
        "Confidence",
        0,
        "standard deviation of the confidence stated to the question alone",
    ),
    Metric("maj_at_8", "maj@8", "Diversity", 1, "accuracy of the majority of eight samples"),
    Metric("coverage", "coverage", "Data", 1, "share of replies that could be read at all"),
    Metric(
        "anchor_budget",
        "anchor budget",
        "Data",
        -1,
        "labels and anchor calls that training used: how much outside truth it cost",
        whole=True,
    ),
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _METRICS}

BASELINES: dict[str, str] = {
    "always_keep": "always keep",
    "always_adopt": "always adopt",
    "threshold": "confidence threshold",
    "random": "random",
    "bayes_oracle": "Bayes oracle",
}
BASELINE_MEANINGS: dict[str, str] = {
    "always_keep": "never changes its answer",
    "always_adopt": "always takes the claim",
    "threshold": "keeps its answer where its own first confidence is above a tuned threshold",
    "random": "keeps or takes by a coin",
    "bayes_oracle": "the best possible reply, computed from the known reliabilities",
}
HELD_OUT: dict[str, frozenset[str]] = {
    "family": frozenset({"difference", "note"}),
    "speaker": frozenset({"peers"}),
}


def metric(name: str) -> Metric:
    """The metric of that name, or one that says only its name (a key this page does not know).

    A training log writes evaluations on the dev questions as ``dev/resist``.
    """
    known = METRICS.get(name)
    plain = METRICS.get(name.removeprefix("dev/"))
    if known is None and plain is not None:
        return Metric(name, f"{plain.label} (dev)", plain.group, plain.better, plain.meaning)
    return known or Metric(name, name.replace("_", " "), "Training", 0, "logged during training")


def number(value: float | None, digits: int = 2) -> str:
    """Write a figure the way the field's tables do: ``.70``, ``−.12``, ``1.00``, ``12,800``.

    >>> number(0.7), number(-0.118), number(1.0), number(12800.0), number(None)
    ('.70', '−.12', '1.00', '12,800', '—')
    """
    if value is None:
        return DASH
    if abs(value) >= 100:
        return f"{value:,.0f}".replace("-", MINUS)
    text = f"{abs(value):.{digits}f}"
    negative = value < 0 and float(text) != 0
    return (MINUS if negative else "") + (text[1:] if text.startswith("0.") else text)


def interval(low: float | None, high: float | None) -> str:
    """``[.66, .74]``, or nothing where there is no interval."""
    return "" if low is None or high is None else f"[{number(low)}, {number(high)}]"


def duration(seconds: float | None) -> str:
    """Seconds as a reader says them: ``45 s``, ``4 min 35 s``, ``2 h 05 min``."""
    if seconds is None:
        return DASH
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def rule(text: str) -> str:
    """A criterion's rule as printed: ``>= 0.75`` becomes ``≥ .75``."""
    return re.sub(r"(?<!\d)0\.(?=\d)", ".", text.replace(">=", "≥").replace("<=", "≤")).replace(
        "-.", MINUS + "."
    )


def baseline_label(name: str) -> str:
    """The printed name of a baseline."""
    return BASELINES.get(name, name.replace("_", " "))


def soft(name: str) -> Markup:
    """A name, escaped, that may break after its underscores.

    >>> soft("a_<b>")
    Markup('a_<wbr>&lt;b&gt;')
    """
    return Markup("_<wbr>").join(name.split("_"))


def clip(text: str, limit: int = 900) -> str:
    """A long text, cut, saying how much was cut."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}… ({len(text) - limit:,} more characters)"
