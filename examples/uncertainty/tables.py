"""The results in words: a table for each data set, in which everything that beats the method in question is marked."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from reporting import spread
from scipy.stats import t as student

from uncertainty.problems import PROBLEMS
from uncertainty.runs import Run

__all__ = ["advantage", "losses", "table"]

#: Columns where less is better.
ORDERED = ("error", "nll", "brier", "calibration", "aurc")

#: Size of the test set over that of the training set, validation data included.
TEST_TO_TRAIN = 0.3 / 0.7


def advantage(ours: Sequence[Run], theirs: Sequence[Run], column: str) -> tuple[float, float]:
    """How much lower their number is than ours, and half the width of its 95% interval; splits are the same for both.

    Training sets of random splits overlap, which the variance of the mean must allow for (Nadeau and Bengio 2003).
    """
    differences = [a[column] - b[column] for a, b in zip(ours, theirs, strict=True)]
    count = len(differences)
    if count < 2:
        return differences[0], math.inf
    error = statistics.stdev(differences) * math.sqrt(1 / count + TEST_TO_TRAIN)
    return statistics.mean(differences), float(student.ppf(0.975, count - 1)) * error


def mark(ours: Sequence[Run], theirs: Sequence[Run], column: str) -> str:
    """``*`` where theirs is better than ours beyond the 95% interval, ``'`` where it is better on average."""
    if column not in ORDERED or ours is theirs:
        return ""
    mean, half_width = advantage(ours, theirs, column)
    return "" if mean <= 0 else "*" if mean > half_width else "'"


def table(problem: str, results: Mapping[str, Sequence[Run]], ours: str) -> str:
    """Means and standard deviations over splits, a line for each method."""
    columns = {**PROBLEMS[problem].task.columns, "seconds": "seconds"}
    lines = [f"{problem:<20}" + "".join(f"{title:>18}" for title in columns.values())]
    for name, runs in results.items():
        cells = [spread([run[c] for run in runs]) + mark(results[ours], runs, c).ljust(1) for c in columns]
        lines.append(f"{name:<20}" + "".join(f"{cell:>18}" for cell in cells))
    return "\n".join(lines)


def losses(results: Mapping[str, Mapping[str, Sequence[Run]]], ours: str) -> str:
    """By column: on how many data sets ours is the best of all on average, and where another is better beyond doubt."""
    lines = []
    for column in ORDERED:
        marks = {
            problem: {name: mark(runs[ours], theirs, column) for name, theirs in runs.items()}
            for problem, runs in results.items()
            if column in runs[ours][0]
        }
        best = sum(not any(found.values()) for found in marks.values())
        beaten = [
            f"{p} ({', '.join(n for n, m in found.items() if m == '*')})"
            for p, found in marks.items()
            if "*" in found.values()
        ]
        lines.append(f"{column:<12} best on {best} of {len(marks)}; loses on {', '.join(beaten) or 'none'}")
    return "\n".join(lines)
