"""The pictures of the benchmarks: bars of ratios, and curves of what grows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

__all__ = ["Panel", "bars", "curves"]


def bars(ratios: Mapping[str, Mapping[str, float]], label: str, title: str) -> plt.Figure:
    """One panel for each problem, a bar for each contender, the fastest on top.

    Args:
        ratios: by problem and contender.
        label: what a ratio is.
        title: of the picture.
    """
    most = max(len(values) for values in ratios.values())
    figure, axes = plt.subplots(
        1, len(ratios), figsize=(7 * len(ratios), 0.32 * most + 1.4), squeeze=False, constrained_layout=True
    )
    for axis, (problem, values) in zip(axes[0], ratios.items(), strict=True):
        order = sorted(values, key=values.__getitem__, reverse=True)
        colours = ["C0" if name.startswith("pyro_vbd") else "0.6" for name in order]
        drawn = axis.barh(order, [values[name] for name in order], color=colours)
        axis.bar_label(drawn, fmt="%.2f", padding=3)
        axis.axvline(1.0, color="grey", linestyle=":")
        axis.margins(x=0.12)
        axis.set(title=problem, xlabel=label)
    figure.suptitle(title, fontsize="medium")
    return figure


@dataclass(frozen=True)
class Panel:
    """One system of axes with lines, points ``(xs, ys)`` by name; ``log`` names the axes that are logarithmic."""

    title: str
    x: str
    y: str
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    log: str = ""


def curves(rows: Sequence[Sequence[Panel]], title: str) -> plt.Figure:
    """Rows of panels; a name has one colour in all of them.

    Args:
        rows: of equal length.
        title: of the picture.
    """
    count = len(rows[0])
    figure, axes = plt.subplots(
        len(rows), count, figsize=(4.6 * count, 3.6 * len(rows)), squeeze=False, constrained_layout=True
    )
    names = list(dict.fromkeys(name for row in rows for panel in row for name in panel.lines))
    handles: dict[str, object] = {}
    for axis, panel in zip(axes.flat, (panel for row in rows for panel in row), strict=True):
        for name, (x, y) in panel.lines.items():
            (handles[name],) = axis.plot(x, y, marker=".", color=f"C{names.index(name)}", label=name)
        axis.set(title=panel.title, xlabel=panel.x, ylabel=panel.y)
        axis.set_xscale("log" if "x" in panel.log else "linear")
        axis.set_yscale("log" if "y" in panel.log else "linear")
        axis.grid(alpha=0.3)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(title, fontsize="medium")
    return figure
