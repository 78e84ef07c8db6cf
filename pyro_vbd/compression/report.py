"""What a compression has done, layer by layer and in total."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from pyro_vbd.compression.latency import Latency, milliseconds
from pyro_vbd.compression.select import Select

__all__ = ["LayerReport", "Report", "layer_reports", "total_bytes"]


@dataclass(frozen=True)
class LayerReport:
    """One layer before and after. Weights are without biases, as the papers count them.

    A tensor that several layers share counts for the first of them.
    """

    #: Of the module, before the cut.
    name: str
    #: Its class.
    kind: str
    #: Weights before.
    weights: int
    #: Weights that are not 0 in the compressed network.
    nonzero: int
    #: Rows, filters or features; None where a layer has none of its own.
    units: int | None
    #: The same after the cut.
    units_left: int | None
    #: Multiplications for one datum; zeros inside what is left are counted.
    multiply_adds: int
    #: The same after the cut.
    multiply_adds_left: int
    #: Of parameters, buffers and the indices of a selection, dense.
    bytes: int
    #: The same after the cut.
    bytes_left: int

    @property
    def ratio(self) -> float:
        """``|W| / |W != 0|``; infinite where nothing is left."""
        return self.weights / self.nonzero if self.nonzero else math.inf


@dataclass(frozen=True)
class Report:
    """A compression in numbers: printed as a table, a dict by :meth:`to_dict`, a figure by :meth:`draw`."""

    #: A row for each layer.
    layers: tuple[LayerReport, ...]
    #: All parameters and buffers of the network, those of layers without weights included.
    bytes: int
    #: The same after the cut.
    bytes_left: int
    #: For one datum, before and after the cut, those in code outside layers (attention by hand) included.
    multiply_adds: tuple[int, int]
    #: Bytes of the compressed network as a sparse file (:func:`~pyro_vbd.save_sparse`), at full precision.
    sparse_bytes: int
    #: The same with 8 bits a weight.
    sparse_bytes_8: int
    #: Bayesian weights over those that the masks kept, before anything was cut: the papers' ratio.
    mask_ratio: float
    #: Of both networks, for each batch size.
    latency: tuple[Latency, ...]
    #: The largest difference between the outputs of the masked and the cut network, over the largest output.
    difference: float
    #: By layer: units that are constant and could not go, and why.
    stayed: Mapping[str, str]

    @property
    def weights(self) -> int:
        """How many there were, without biases."""
        return sum(layer.weights for layer in self.layers)

    @property
    def nonzero(self) -> int:
        """Weights of the compressed network that are not 0."""
        return sum(layer.nonzero for layer in self.layers)

    @property
    def ratio(self) -> float:
        """``|W| / |W != 0|`` of the compressed network, at least that of the masks."""
        return self.weights / self.nonzero if self.nonzero else math.inf

    def to_dict(self) -> dict[str, Any]:
        """Numbers, strings, lists and dicts, for JSON; a ratio that is infinite is None."""
        totals = {
            "weights": self.weights,
            "nonzero": self.nonzero,
            "ratio": _finite(self.ratio),
            "mask_ratio": _finite(self.mask_ratio),
            "multiply_adds": self.multiply_adds[0],
            "multiply_adds_left": self.multiply_adds[1],
            "bytes": self.bytes,
            "bytes_left": self.bytes_left,
            "sparse_bytes": self.sparse_bytes,
            "sparse_bytes_8": self.sparse_bytes_8,
        }
        return {
            "total": totals,
            "layers": [{**asdict(layer), "ratio": _finite(layer.ratio)} for layer in self.layers],
            "latency": [asdict(latency) for latency in self.latency],
            "difference": self.difference,
            "stayed": dict(self.stayed),
        }

    def __str__(self) -> str:
        titles = ("layer", "", "weights", "nonzero", "ratio", "units", "multiply-adds", "bytes")
        rows = [titles]
        for row in self.layers:
            units = "" if row.units is None else f"{row.units} -> {row.units_left}"
            work = f"{row.multiply_adds:,} -> {row.multiply_adds_left:,}"
            size = f"{row.bytes:,} -> {row.bytes_left:,}"
            rows.append((row.name, row.kind, f"{row.weights:,}", f"{row.nonzero:,}", _times(row.ratio), units, work, size))
        work = " -> ".join(f"{count:,}" for count in self.multiply_adds)
        size = f"{self.bytes:,} -> {self.bytes_left:,}"
        rows.append(("total", "", f"{self.weights:,}", f"{self.nonzero:,}", _times(self.ratio), "", work, size))
        widths = [max(len(row[column]) for row in rows) for column in range(len(titles))]
        lines = ["  ".join(_aligned(row, widths)) for row in rows]
        lines.insert(-1, "-" * len(lines[0]))
        lines += [
            "",
            f"weights kept by the masks: 1 in {self.mask_ratio:.1f}; as a sparse file: {self.sparse_bytes:,} bytes, "
            f"{self.sparse_bytes_8:,} with 8 bits a weight",
        ]
        lines += [
            f"batch of {row.batch_size}: {milliseconds(row.before)} ms -> {milliseconds(row.after)} ms, "
            f"{row.speedup:.1f} times as fast ({row.turns} turns)"
            for row in self.latency
        ]
        lines += [f"{name}: {reason}" for name, reason in self.stayed.items()]
        return "\n".join(line.rstrip() for line in lines)

    def draw(self) -> Any:
        """A matplotlib figure: units, weights, multiply-adds and bytes that are left, by layer; and latencies.

        Raises:
            ImportError: without matplotlib.
        """
        from pyro_vbd.compression.report_figure import draw_report

        return draw_report(self)


@torch.no_grad()
def layer_reports(
    before: nn.Module,
    after: nn.Module,
    units: Mapping[str, tuple[int, int]],
    work: tuple[Mapping[str, int], Mapping[str, int]],
) -> tuple[LayerReport, ...]:
    """Rows for all modules that own a weight, by their names in ``before``.

    Args:
        before: the network before the cut.
        after: the one after.
        units: of each layer, before and after.
        work: :func:`~pyro_vbd.compression.multiply_adds.multiply_adds` of both.
    """
    modules_left = dict(after.named_modules())
    rows = []
    met: set[int] = set()
    met_left: set[int] = set()
    for name, module in before.named_modules():
        if all(p.dim() < 2 for p in module.parameters(recurse=False)):
            continue
        small = modules_left.get(name, nn.Module())  # a graph has none that its code does not call
        selected = isinstance(small, nn.Sequential) and len(small) > 0 and isinstance(small[0], Select)
        inner = small[1] if selected else small  # type: ignore[index]
        inner_name = f"{name}.1".removeprefix(".") if selected else name
        own = _first_met(_own(module), met)
        left = _first_met([*_own(inner), *(_own(small[0]) if selected else [])], met_left)  # type: ignore[index]
        units_before, units_after = units.get(name, (None, None))
        rows.append(
            LayerReport(
                name,
                type(module).__name__,
                sum(p.numel() for p in _weights(own)),
                sum(int((p != 0).sum()) for p in _weights(left)),
                units_before,
                units_after,
                work[0].get(name, 0),
                work[1].get(inner_name, 0),
                _bytes(own),
                _bytes(left),
            )
        )
    return tuple(rows)


def total_bytes(net: nn.Module) -> int:
    """Of all parameters and buffers, those that modules share counted once."""
    return _bytes(_first_met(tree_leaves(net.state_dict(keep_vars=True)), set()))


def _own(module: nn.Module) -> list[Tensor]:
    """Parameters and buffers, without those of modules inside."""
    return [*module.parameters(recurse=False), *module.buffers(recurse=False)]


def _first_met(tensors: Sequence[Tensor], met: set[int]) -> list[Tensor]:
    """The tensors that are not among those met before, each once; now they are."""
    new = {id(value): value for value in tensors if id(value) not in met}
    met.update(new)
    return list(new.values())


def _weights(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [value for value in tensors if isinstance(value, nn.Parameter) and value.dim() > 1]


def _bytes(tensors: Sequence[Tensor]) -> int:
    return sum(value.numel() * value.element_size() for value in tensors)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _aligned(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Words to the left, numbers to the right."""
    pairs = enumerate(zip(row, widths, strict=True))
    return [cell.ljust(width) if column < 2 else cell.rjust(width) for column, (cell, width) in pairs]


def _times(ratio: float) -> str:
    return f"{ratio:.1f}x" if math.isfinite(ratio) else "-"
