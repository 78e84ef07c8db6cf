"""How long two networks take, measured in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from pyro_vbd.compression.example_inputs import resized
from pyro_vbd.compression.tracing import call_network
from pyro_vbd.modes import in_mode

__all__ = ["Latency", "latencies", "milliseconds"]

#: Seconds of measuring for a batch size, and the fewest and most turns.
_SECONDS, _FEWEST, _MOST = 2.0, 5, 200


@dataclass(frozen=True)
class Latency:
    """Medians over turns of the seconds of one forward pass."""

    #: Data in a pass.
    batch_size: int
    #: Seconds of the first network.
    before: float
    #: Seconds of the second.
    after: float
    #: Median over turns of before/after, each pair measured back to back: what a noisy machine disturbs least.
    speedup: float
    #: How many there were.
    turns: int


def milliseconds(seconds: float) -> str:
    """In three digits, as people write them: 0.123, 12.3, 1230."""
    return f"{float(f'{1e3 * seconds:.3g}'):g}"


@torch.no_grad()
def latencies(before: nn.Module, after: nn.Module, inputs: Any, batch_sizes: Sequence[int] = (1, 128)) -> list[Latency]:
    """Time two networks side by side, one pass of each in turn, in evaluation mode.

    Args:
        before: one network.
        after: the other.
        inputs: example inputs; their data are repeated to fill a batch.
        batch_sizes: how many data a pass has.
    """
    found = []
    with in_mode(before, False), in_mode(after, False):
        for size in batch_sizes:
            batch = resized(inputs, size)
            for net in (before, after):
                _seconds(net, batch)  # what is done once
            pairs: list[tuple[float, float]] = []
            start = time.perf_counter()
            while len(pairs) < _FEWEST or (time.perf_counter() - start < _SECONDS and len(pairs) < _MOST):
                pairs.append((_seconds(before, batch), _seconds(after, batch)))
            first, second = zip(*pairs, strict=True)
            quotient = statistics.median(a / b for a, b in pairs)
            found.append(Latency(size, statistics.median(first), statistics.median(second), quotient, len(pairs)))
    return found


def _seconds(net: nn.Module, batch: Any) -> float:
    devices = {leaf.device for leaf in tree_leaves(batch) if isinstance(leaf, Tensor) and leaf.device.type == "cuda"}
    for device in devices:
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    call_network(net, batch)
    for device in devices:
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
