"""How the examples report: means with standard deviations, and files written whole or not at all."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pyro_vbd.whole_file import whole_file

__all__ = ["save_figure", "spread", "write"]


def write(path: Path, save: Callable[[Path], Any]) -> None:
    """Write a file whole or not at all."""
    with whole_file(path) as temporary:
        save(temporary)


def save_figure(figure: Any, path: str) -> Path:
    """Write a matplotlib figure as PNG; its path."""
    write(Path(path), lambda temporary: figure.savefig(temporary, dpi=110, format="png"))
    return Path(path)


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean and standard deviation."""
    if not values:
        return "-"
    if len(values) == 1:
        return f"{values[0]:.{digits}g}"
    return f"{statistics.mean(values):.{digits}f} +- {statistics.stdev(values):.{digits}f}"
