"""A report as a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    except ImportError as error:
        raise ImportError("a figure needs matplotlib: pip install 'pyro-vbd[examples]'") from error
    rows = [row for row in report.layers if row.weights]
    height = max(3.0, 0.9 + 0.55 * len(rows))
    figure = Figure(figsize=(11, height), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 1 if report.latency else 0.01))
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
    left.set(xscale="log", xlabel="left, % of what was there", title=f"{report.ratio:.1f} times fewer weights")
    left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.9 / height), ncols=4, frameon=False)
    if report.latency:
        batches = range(len(report.latency))
        right.bar([p - 0.2 for p in batches], [1e3 * row.before for row in report.latency], 0.38, label="before")
        right.bar([p + 0.2 for p in batches], [1e3 * row.after for row in report.latency], 0.38, label="after")
        for place, row in zip(batches, report.latency, strict=True):
            right.annotate(f"{row.speedup:.1f} times", (place, 1e3 * max(row.before, row.after)), ha="center", va="bottom")
        right.set_xticks(batches, [f"batch of {row.batch_size}" for row in report.latency])
        right.set(yscale="log", ylabel="milliseconds", title="One forward pass")
        right.margins(y=0.15)
        right.legend(frameon=False)
    else:
        right.set_axis_off()
    return figure
