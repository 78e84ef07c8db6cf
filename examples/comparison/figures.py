"""Two rows of pictures: what the priors are, and what became of the network under each."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from measures.classification import reliability
from torch import Tensor

from comparison import shapes
from comparison.families import FAMILIES
from comparison.removal import SHARES
from comparison.runs import Run
from comparison.trained import THRESHOLD

__all__ = ["figure"]

#: The mean of the weight whose penalty is drawn: of the size of a trained weight.
LOC = 0.1


def figure(results: Mapping[str, Sequence[Run]], y: Tensor, title: str) -> plt.Figure:
    """Above, the priors themselves; below, the results of :func:`comparison.runs.run`.

    Args:
        results: runs by prior, one for each seed.
        y: labels of the evaluation data.
        title: what was trained, on what.
    """
    drawing, ((marginal, shrinkage, penalty), (removal, rates, calibration)) = plt.subplots(
        2, 3, figsize=(13, 8), constrained_layout=True
    )
    colours = dict(zip(FAMILIES, [*plt.get_cmap("tab10").colors, *plt.get_cmap("tab20b").colors], strict=False))
    for name, runs in results.items():
        colour = colours[name]
        _draw_prior(name, colour, marginal, shrinkage, penalty)
        curve = [statistics.mean(values) for values in zip(*(run["curve"] for run in runs), strict=True)]
        removal.plot([100 * (1 - share) for share in SHARES], curve, marker=".", color=colour, label=name)
        if "log_alpha" in runs[0]:
            values = torch.cat([run["log_alpha"] for run in runs]).numpy()
            rates.hist(values, bins=80, histtype="step", density=True, color=colour)
        confidence, accuracy = reliability(torch.cat([run["probs"] for run in runs]), y.cpu().repeat(len(runs)))
        calibration.plot(confidence, accuracy, marker=".", color=colour)
    _label_priors(marginal, shrinkage, penalty)
    removal.set(xscale="log", yscale="log", xlabel="weights kept, %", ylabel="error, %", title="What removal costs")
    removal.invert_xaxis()
    rates.axvline(THRESHOLD, color="grey", linestyle=":")
    rates.set(
        yscale="log", ylabel="density", xlabel=r"$\log\alpha$, clipped at 40", title="Dropout rates (removed: beyond 3)"
    )
    low = min(calibration.get_xlim()[0], calibration.get_ylim()[0])
    calibration.plot([low, 1], [low, 1], color="grey", linestyle=":")
    calibration.set(xlabel="confidence", ylabel="accuracy", title="Reliability (bins of equal numbers)")
    drawing.legend(
        *removal.get_legend_handles_labels(), loc="outside lower center", ncols=min(len(results), 8), frameon=False
    )
    drawing.suptitle(title)
    return drawing


def _draw_prior(name: str, colour: object, marginal: Axes, shrinkage: Axes, penalty: Axes) -> None:
    make = FAMILIES[name]
    if make is None:
        return
    w = torch.logspace(-3, 2, 300)
    marginal.plot(w, shapes.log_marginal(make(), w).exp(), color=colour)
    kappa = torch.linspace(0.002, 0.998, 250)
    density = shapes.shrinkage(make(), kappa)
    if density is not None:
        shrinkage.plot(kappa, density, color=colour)
    log_alpha = torch.linspace(-8, 8, 200)
    kl = shapes.penalty(make(), LOC, log_alpha)
    penalty.plot(log_alpha, kl - kl.min(), color=colour)


def _label_priors(marginal: Axes, shrinkage: Axes, penalty: Axes) -> None:
    marginal.set(xscale="log", yscale="log", ylim=(1e-6, 1e4), xlabel="|w|", ylabel="p(w)")
    marginal.set(title="Prior of a weight (improper: up to a factor)")
    shrinkage.set(yscale="log", ylim=(1e-3, 1e3), xlabel=r"$\kappa = 1/(1 + \gamma)$: 1 wipes the weight out")
    shrinkage.set(ylabel="density", title="Shrinkage, where the prior has two levels")
    penalty.set(xlabel=r"$\log\alpha$", ylabel="KL above its minimum, nats", ylim=(-0.2, 6))
    penalty.set(title=rf"Penalty of a weight of mean {LOC:g}")
