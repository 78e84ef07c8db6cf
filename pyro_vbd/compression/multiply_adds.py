"""How much a network computes, module by module."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pyro_vbd.compression.example_inputs import resized
from pyro_vbd.compression.tracing import call_network
from pyro_vbd.modes import in_mode

__all__ = ["multiply_adds"]


@torch.no_grad()
def multiply_adds(net: nn.Module, inputs: Any) -> dict[str, int]:
    """Multiplications for one datum by module name, each module's own (torch's flop counter, halved)."""
    counter = FlopCounterMode(display=False)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one opaque function, which the counter does not know
    try:
        # as matrix products: fused attention on a CPU is unknown to the counter of some versions of torch (2.8)
        with in_mode(net, False), counter, sdpa_kernel(SDPBackend.MATH):
            call_network(net, resized(inputs, 1))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    root = type(net).__name__
    counts = {
        name.removeprefix(root).removeprefix("."): sum(flops.values()) // 2
        for name, flops in counter.get_flop_counts().items()
        if name == root or name.startswith(f"{root}.")
    }
    modules = dict(net.named_modules())
    return {
        name: count - sum(counts.get(f"{name}.{child}".removeprefix("."), 0) for child, _ in modules[name].named_children())
        for name, count in counts.items()
        if name in modules
    }
