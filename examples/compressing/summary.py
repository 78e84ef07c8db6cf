"""The networks side by side: what each gets wrong, and what it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn

import pyro_vbd as vbd
from compressing.stages import Data, error
from pyro_vbd.compression import latencies
from pyro_vbd.compression.latency import Latency, milliseconds
from pyro_vbd.compression.multiply_adds import multiply_adds

__all__ = ["Row", "row_of", "table"]


@dataclass(frozen=True)
class Row:
    """One network. Weights are without biases; latencies are medians against the plain network, timed in turns."""

    name: str
    validation_error: float
    test_error: float
    weights: int
    multiply_adds: int
    #: As a sparse file, on disk.
    bytes: int
    latency: tuple[Latency, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def row_of(name: str, net: nn.Module, plain: nn.Module, data: Data, batch_sizes: Sequence[int] = (1, 128)) -> Row:
    """Everything about a network; errors in per cent."""
    with TemporaryDirectory() as folder:
        size = vbd.save_sparse(net, Path(folder) / "network")
    return Row(
        name,
        error(net, data.x_val, data.y_val),
        error(net, data.x_test, data.y_test),
        sum(int((p != 0).sum()) for p in net.parameters() if p.dim() > 1),
        sum(multiply_adds(net, data.x_test[:1]).values()),
        size,
        tuple(latencies(plain, net, data.x_test[:128], batch_sizes)) if net is not plain else (),
    )


def table(rows: Sequence[Row]) -> str:
    """Rows as text, the first the plain network that the others are measured by."""
    first = rows[0]
    sizes = [found.batch_size for found in rows[-1].latency]
    titles = ["", "validation", "test error", "weights", "fewer", "multiply-adds", "file, bytes"]
    lines = [[*titles, *(f"batch {size}" for size in sizes)]]
    for row in rows:
        # not in ms, which differ from minute to minute on a machine with other work
        speeds = [f"{found.speedup:.1f}x as fast" for found in row.latency]
        speeds = speeds or [f"{milliseconds(found.before)} ms" for found in rows[-1].latency]
        fewer = first.weights / max(row.weights, 1)
        lines.append(
            [row.name, f"{row.validation_error:.2f}%", f"{row.test_error:.2f}%", f"{row.weights:,}", f"{fewer:.1f}x",
             f"{row.multiply_adds:,}", f"{row.bytes:,}", *speeds]
        )  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]).rstrip()
        for line in lines
    )
