"""The first layer as training goes on, and the results: dropout rates, and error against ratio."""

from __future__ import annotations

from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from matplotlib.ticker import StrMethodFormatter
from torch import Tensor

import pyro_vbd as vbd

__all__ = ["Snapshots", "result_figure", "training_figure"]


class Snapshots:
    """A callback: the first layer's mean weights without the removed ones, at some epochs."""

    def __init__(self, epochs: int, count: int = 6) -> None:
        # close together at first, when most happens
        self.wanted = sorted({max(1, round(epochs ** (k / (count - 1)))) for k in range(count)})
        self.pictures: dict[int, Tensor] = {}
        self.kept: dict[int, float] = {}

    def __call__(self, run: vbd.Fit) -> None:
        if run.epoch not in self.wanted:
            return
        site = next(iter(run.guide.log_alpha()))
        mask = vbd.masks(run.guide)[site]
        self.pictures[run.epoch] = (run.guide.median()[site] * mask).cpu()
        self.kept[run.epoch] = float(mask.mean())


def training_figure(snapshots: Snapshots, shape: torch.Size, count: int = 8) -> plt.Figure:
    """The first layer as training goes on: kernels, or the weights of units as images; white is removed."""
    last = list(snapshots.pictures.values())[-1]
    strongest = last.flatten(1).norm(dim=1).argsort(descending=True)[:: max(1, len(last) // (2 * count))][:count]
    figure, axes = plt.subplots(
        len(snapshots.pictures), len(strongest), figsize=(1.1 * len(strongest) + 1.2, 1.15 * len(snapshots.pictures)),
        squeeze=False, layout="constrained",
    )  # fmt: skip
    for line, (epoch, weights) in zip(axes, snapshots.pictures.items(), strict=True):
        for axis, unit in zip(line, strongest, strict=True):
            image = weights[unit]
            image = image.mean(0) if image.dim() == 3 else image.view(-1, *shape[-2:]).mean(0)
            limit = float(image.abs().max()) or 1.0
            axis.imshow(image, cmap="RdBu", vmin=-limit, vmax=limit)
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(f"epoch {epoch}\n{100 * snapshots.kept[epoch]:.3g}% kept", rotation=0, ha="right", va="center")
    figure.suptitle("First layer: mean weights, those with log alpha > 3 removed")
    return figure


def result_figure(guide: vbd.VBDGuide, swept: Any, chosen: Any, marks: dict[str, tuple[float, float]]) -> plt.Figure:
    """Where log alpha lies, and error against ratio over thresholds."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    gates = {site for site, value in guide.log_alpha().items() if value.dim() == 1}
    for label, is_gate in (("weights", False), ("gates", True)):
        values = [value.flatten() for site, value in guide.log_alpha().items() if (site in gates) == is_gate]
        if values:
            left.hist(torch.cat(values).clamp(-12, 25).cpu().numpy(), bins=75, histtype="step", density=True, label=label)
    left.axvline(chosen.threshold, color="grey", linestyle=":", label="threshold picked")
    left.set(yscale="log", xlabel=r"$\log\alpha$, clipped", ylabel="density", title="Dropout rates")
    left.legend(frameon=False)
    ratios = [point.ratio for point in swept.points]
    right.plot(ratios, [100 * point.error for point in swept.points], marker=".", label="validation, by threshold")
    right.axhline(100 * swept.full_error, color="grey", linestyle=":", label="validation, nothing removed")
    for label, (ratio, value) in marks.items():
        right.plot([ratio], [value], marker="o", linestyle="none", label=label)
    right.set(xscale="log", yscale="log", xlabel="weights and gates over those that are kept", ylabel="error, %")
    for axis in (right.xaxis, right.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(StrMethodFormatter("{x:g}"))
    right.tick_params(axis="both", which="minor", labelsize="small")
    right.set_title("What removal costs")
    right.legend(frameon=False)
    return figure
