"""A report as a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyro_vbd.compression.latency import milliseconds

if TYPE_CHECKING:
    from pyro_vbd.compression.report import Report

__all__ = ["draw_report"]


def draw_report(report: Report) -> Any:
    """Shares that are left, by layer on a logarithmic axis, and latencies before and after.

    Raises:
        ImportError: without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import FuncFormatter
    except ImportError as error:
        raise ImportError("a figure needs matplotlib: pip install 'pyro-vbd[examples]'") from error
    rows = [row for row in report.layers if row.weights]
    height = max(3.0, 0.9 + 0.55 * len(rows))
    figure = Figure(figsize=(11, height), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2.5, 1 if report.latency else 0.01))
    shares: dict[str, list[float | None]] = {
        "units": [row.units_left / row.units if row.units and row.units_left is not None else None for row in rows],
        "weights": [row.nonzero / row.weights for row in rows],
        "multiply-adds": [row.multiply_adds_left / row.multiply_adds if row.multiply_adds else None for row in rows],
        "bytes": [row.bytes_left / row.bytes if row.bytes else None for row in rows],
    }
    for index, (label, values) in enumerate(shares.items()):
        dots = [(100.0 * value, row + 0.15 * (index - 1.5)) for row, value in enumerate(values) if value]
        left.plot([x for x, _ in dots], [y for _, y in dots], "o", label=label)
    left.set_yticks(range(len(rows)), [row.name for row in rows])
    left.set_ylim(len(rows) - 0.5, -0.5)
    left.grid(axis="x", which="both", alpha=0.3)
    left.set(xscale="log", xlabel="left, % of what was there", ylabel="layer")
    left.set_title(f"{report.ratio:.1f} times fewer weights")
    left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.9 / height), ncols=4, frameon=False)
    for set_formatter in (left.xaxis.set_major_formatter, left.xaxis.set_minor_formatter):
        set_formatter(FuncFormatter(lambda x, _: f"{x:g}" if f"{x:e}"[0] in "125" else ""))
    if report.latency:
        batches = range(len(report.latency))
        bars = [100.0 * row.after / row.before for row in report.latency]
        right.bar(batches, bars, 0.6)
        right.axhline(100.0, color="grey", linestyle=":")
        for place, row in zip(batches, report.latency, strict=True):
            text = f"{milliseconds(row.before)} to {milliseconds(row.after)} ms\n{row.speedup:.1f} times as fast"
            right.annotate(text, (place, max(100.0, bars[place]) + 2.0), ha="center", va="bottom", fontsize="small")
        right.set_xticks(batches, [f"batch of {row.batch_size}" for row in report.latency])
        right.set(ylim=(0, 1.15 * max(100.0, *bars) + 15.0), xlim=(-0.6, len(report.latency) - 0.4))
        right.set(ylabel="% of the time before", title="One forward pass")
    else:
        right.set_axis_off()
    return figure
