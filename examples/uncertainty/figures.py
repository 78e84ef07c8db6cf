"""A row of pictures for each kind of targets: calibration, selective prediction, and likelihood against our method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from uncertainty.problems import PROBLEMS
from uncertainty.runs import COVERAGES, Run
from uncertainty.tables import advantage

__all__ = ["figure"]

Results = Mapping[str, Mapping[str, Sequence[Run]]]


def figure(results: Results, ours: str, title: str) -> plt.Figure:
    """Rows for the kinds of targets that there are, lines for methods, averaged over data sets and splits."""
    kinds = list(dict.fromkeys(PROBLEMS[problem].task.name for problem in results))
    drawing, rows = plt.subplots(len(kinds), 3, figsize=(13, 4 * len(kinds)), squeeze=False, constrained_layout=True)
    for kind, (calibration, selection, likelihood) in zip(kinds, rows, strict=True):
        chosen = {problem: runs for problem, runs in results.items() if PROBLEMS[problem].task.name == kind}
        names = list(next(iter(chosen.values())))
        for index, name in enumerate(names):
            style = {"color": f"C{index}", "linewidth": 2.5 if name == ours else 1.3, "label": name}
            runs = [run for by_method in chosen.values() for run in by_method[name]]
            calibration.plot(*np.mean([run["diagram"] for run in runs], 0), marker=".", **style)
            selection.plot(COVERAGES, np.mean([run["risk"] for run in runs], 0), **style)
        _draw_differences(likelihood, chosen, ours)
        low = min(*calibration.get_xlim(), *calibration.get_ylim())
        calibration.plot([max(low, 0), 1], [max(low, 0), 1], color="grey", linestyle=":")
        claimed, found = PROBLEMS[next(iter(chosen))].task.axes
        calibration.set(xlabel=claimed, ylabel=found, title=f"Calibration, {kind}")
        selection.set(xlabel="share of the data that is answered", ylabel=PROBLEMS[next(iter(chosen))].task.risk)
        selection.set(title="Risk where the least sure are declined")
    drawing.legend(*rows[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=8, frameon=False)
    drawing.suptitle(title)
    return drawing


def _draw_differences(likelihood: Axes, results: Results, ours: str) -> None:
    """NLL of each method above that of ours, with 95% intervals."""
    names = list(next(iter(results.values())))
    for index, name in enumerate(names):
        if name == ours:
            continue
        found = [advantage(runs[ours], runs[name], "nll") for runs in results.values()]
        places = np.arange(len(results)) + 0.6 * (index / len(names) - 0.5)
        errors = [width if np.isfinite(width) else 0.0 for _, width in found]
        likelihood.errorbar([-mean for mean, _ in found], places, xerr=errors, fmt="o", markersize=4, color=f"C{index}")
    likelihood.axvline(0, color="grey", linestyle=":")
    likelihood.set_xscale("symlog", linthresh=0.1)
    likelihood.set_yticks(range(len(results)), list(results))
    likelihood.set_ylim(-0.6, len(results) - 0.4)
    likelihood.set(xlabel=f"NLL above that of {ours} (left of 0: {ours} loses)", title="Likelihood")
