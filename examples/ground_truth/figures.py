"""The posteriors in pictures."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from ground_truth.posteriors import KINDS
from ground_truth.problems import Problem


def figure(problems: dict[str, Problem], results: dict[str, dict[str, Any]]) -> plt.Figure:
    """Intervals of the weights and of the gammas, and of the means of new targets: a row for each problem."""
    drawing, rows = plt.subplots(len(results), 3, figsize=(13, 4.2 * len(results)), constrained_layout=True, squeeze=False)
    for (name, found), (left, middle, right) in zip(results.items(), rows, strict=True):
        sites = {"weight": left, next(site for site in found["names"] if site.endswith("gamma")): middle}
        for site, axes in sites.items():
            elements = found["names"][site]
            for offset, (kind, title) in enumerate(KINDS.items()):
                intervals(axes, found["draws"][kind][site], offset, title)
            axes.set_yticks(range(len(elements)), elements)
            axes.invert_yaxis()
        left.axvline(0.0, color="lightgrey", zorder=0)
        left.set(title=f"{name}: weights")
        middle.set(title=f"{name}: gamma, their variances", xscale="log")
        reach(right, problems[name], found["draws"])
        right.set(title=f"{name}: how unsure of new targets")
    for column in rows[-1][:2]:
        column.set_xlabel("posterior median and central 90%")
    drawing.legend(*rows[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=len(KINDS), frameon=False)
    return drawing


def intervals(axes: plt.Axes, draws: Tensor, offset: int, label: str) -> None:
    """Median and central 90% of each element, one below the other."""
    low, median, high = draws.reshape(len(draws), -1).quantile(torch.tensor([0.05, 0.5, 0.95], dtype=draws.dtype), dim=0)
    heights = torch.arange(len(median)) + 0.22 * (offset - 1)
    axes.hlines(heights, low, high, color=f"C{offset}", lw=2)
    axes.plot(median, heights, "o", color=f"C{offset}", ms=4, label=label)


def reach(axes: plt.Axes, problem: Problem, draws: dict[str, dict[str, Tensor]]) -> None:
    """The guide's and NUTS-given-gamma*'s standard deviations of each new mean, against those of NUTS."""
    deviations = {kind: problem.mean(values, problem.x_new).std(0) for kind, values in draws.items()}
    for offset, kind in enumerate(("guide", "given_gamma")):
        axes.plot(deviations["nuts"], deviations[kind], ".", color=f"C{offset}")
    top = float(deviations["nuts"].max())
    axes.plot([0, top], [0, top], color="grey", linestyle=":")
    axes.set(xlabel="standard deviation over draws of NUTS", ylabel="of the others")
