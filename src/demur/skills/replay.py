"""Cross-time replay: which iteration's skills were the best ones (arXiv 2604.27660, section 3).

Skills can grow worse, as when a challenger has drifted to strange tasks and they followed it. So
each iteration keeps two probes: of the failed tasks the one of the lowest rubric pass rate, of the
solved ones the one with the fewest rubrics. In the end every iteration's skills answer all of them,

    rho(i) = (number solved + 1) / (|Q| + 1),

and the skills with the highest rho_hard(i) rho_easy(i) are kept, the earliest where several are. An
empty set of probes gives rho = 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from demur.skills.roles import Case


def hardest(cases: Sequence[Case]) -> Case | None:
    """Of the failed cases the first with the lowest share of rubrics met."""
    failed = [case for case in cases if case.solved is False]
    return min(failed, key=lambda case: case.pass_rate, default=None)


def easiest(cases: Sequence[Case]) -> Case | None:
    """Of the solved cases the first with the fewest rubrics."""
    solved = [case for case in cases if case.solved]
    return min(solved, key=lambda case: len(case.problem.rubrics), default=None)


def rho(solved: Sequence[bool]) -> float:
    """The share solved, with one more of each.

    >>> rho([True, False, False]), rho([])
    (0.5, 1.0)
    """
    return (sum(solved) + 1) / (len(solved) + 1)


def best(hard: Sequence[float], easy: Sequence[float]) -> int:
    """The number, from 0, of the iteration with the highest product; the first of several.

    >>> best([0.5, 1.0, 0.8], [1.0, 0.6, 0.7])
    1
    """
    products = [h * e for h, e in zip(hard, easy, strict=True)]
    return products.index(max(products))
