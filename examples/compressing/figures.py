"""The first layer as training goes on, and the results: dropout rates, and error against ratio."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from matplotlib.ticker import FuncFormatter

import pyro_vbd as vbd

__all__ = ["gates_figure", "result_figure", "snapshots", "training_figure"]


def snapshots(epochs: int, count: int = 6) -> Callable[[vbd.Fit], dict[str, Any]]:
    """A callback that puts the first layer's mean weights without the removed ones into the history, at some epochs."""
    # close together at first, when most happens
    wanted = {max(1, round(epochs ** (k / (count - 1)))) for k in range(count)}

    def first_layer(run: vbd.Fit) -> dict[str, Any]:
        if run.epoch not in wanted:
            return {}
        site = next(iter(run.guide.log_alpha()))
        mask = vbd.masks(run.guide)[site]
        return {"first_layer": (run.guide.median()[site] * mask).cpu(), "kept": float(mask.mean())}

    return first_layer


def training_figure(history: Sequence[dict[str, Any]], shape: torch.Size, count: int = 8) -> plt.Figure:
    """The first layer as training goes on: kernels, or the weights of units as images; white is removed."""
    seen = [record for record in history if "first_layer" in record]
    last = seen[-1]["first_layer"]
    strongest = last.flatten(1).norm(dim=1).argsort(descending=True)[:: max(1, len(last) // (2 * count))][:count]
    figure, axes = plt.subplots(
        len(seen), len(strongest), figsize=(1.1 * len(strongest) + 1.2, 1.15 * len(seen)),
        squeeze=False, layout="constrained",
    )  # fmt: skip
    for line, record in zip(axes, seen, strict=True):
        for axis, unit in zip(line, strongest, strict=True):
            image = record["first_layer"][unit]
            image = image.mean(0) if image.dim() == 3 else image.view(-1, *shape[-2:]).mean(0)
            limit = float(image.abs().max()) or 1.0
            axis.imshow(image, cmap="RdBu", vmin=-limit, vmax=limit)
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(
            f"epoch {record['epoch'] + 1}\n{100 * record['kept']:.3g}% kept", rotation=0, ha="right", va="center"
        )
    figure.suptitle("First layer: mean weights (blue above 0, red below)\nthose with log alpha > 3 removed")
    return figure


def result_figure(sparse: Any, rows: Sequence[Any], max_loss: float) -> plt.Figure:
    """Where log alpha lies after training, and the error against how many weights are left, over thresholds."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for values, label in zip(sparse.log_alpha, ("all weights", "those left, trained on"), strict=True):
        left.hist(values.clamp(-12, 12).numpy(), bins=96, range=(-12, 12), histtype="step", label=label)
    left.axvline(3.0, color="C0", linestyle=":", label="beyond 3 a weight goes")
    left.axvline(sparse.threshold, color="C1", linestyle=":", label=f"and in the end beyond {sparse.threshold:g}")
    left.set(yscale="log", xlabel=r"$\log\alpha$, clipped", ylabel="weights", title="Dropout rates")
    left.legend(fontsize="small", edgecolor="none", framealpha=0.9)
    first, last = rows[0], rows[-1]
    # the sweep counts against the network that it was made on
    fewer = [point.ratio * first.weights / sparse.report.weights for point in sparse.swept.points]
    right.plot(fewer, [100 * point.error for point in sparse.swept.points], marker=".", label="validation, by threshold")
    right.axhline(first.validation_error, color="grey", linestyle=":", label="validation, plain network")
    right.axhline(
        first.validation_error + max_loss,
        color="grey",
        linestyle="--",
        label=f"{max_loss:g} points more: what a threshold may cost",
    )
    ratio = first.weights / max(last.weights, 1)
    right.plot([ratio], [last.validation_error], "o", color="C3", label="picked and trained on, validation")
    right.plot([ratio], [last.test_error], "D", color="C2", label="picked and trained on, test")
    right.plot([1], [first.test_error], "D", color="C2", fillstyle="none", label="plain network, test")
    right.set(xscale="log", xlabel="times fewer weights than the plain network", ylabel="error, %")
    lowest = min(first.validation_error, first.test_error, last.test_error)
    highest = max(last.test_error, last.validation_error, first.validation_error + max_loss)
    top = 1.5 * highest + 0.5 * (highest - lowest)
    right.set_ylim(0.0, top)
    shown = [r for r, point in zip(fewer, sparse.swept.points, strict=True) if 100 * point.error < top]
    right.set_xlim(0.7, 1.6 * max([ratio, *shown]))
    for set_formatter in (right.xaxis.set_major_formatter, right.xaxis.set_minor_formatter):
        set_formatter(FuncFormatter(lambda x, _: f"{x:g}" if f"{x:e}"[0] in "125" else ""))
    right.set_title("What removal costs")
    right.legend(frameon=False, fontsize="small")
    return figure


def gates_figure(rows: Sequence[Any]) -> plt.Figure:
    """Errors of the networks that gates have cut, against how much faster each runs a batch."""
    first, cut = rows[0], [row for row in rows[1:] if row.name.startswith("cut")]
    figure, axis = plt.subplots(figsize=(6.5, 4.2), layout="constrained")
    speeds = [row.latency[-1].speedup for row in cut]
    order = sorted(range(len(cut)), key=speeds.__getitem__)
    for label, value in (("validation", "validation_error"), ("test", "test_error")):
        (line,) = axis.plot(
            [1.0, *(speeds[i] for i in order)],
            [getattr(first, value), *(getattr(cut[i], value) for i in order)],
            marker="o",
            label=label,
        )
        axis.axhline(getattr(first, value), color=line.get_color(), linestyle=":", linewidth=1)
    for row, speed in zip(cut, speeds, strict=True):
        weight = row.name.rpartition(", ")[2]
        axis.annotate(weight, (speed, row.validation_error), (4, 6), textcoords="offset points", fontsize="small")
    size = cut[0].latency[-1].batch_size
    axis.set(xlabel=f"times as fast as the plain network, batch of {size}", ylabel="error, %")
    axis.margins(x=0.1)
    axis.set_ylim(0.0, 1.15 * max(max(row.validation_error, row.test_error) for row in (first, *cut)))
    axis.set_title("Units cut by gates (dotted: the plain network)")
    axis.legend(frameon=False)
    return figure
