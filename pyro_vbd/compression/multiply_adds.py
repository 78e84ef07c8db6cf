"""How much a network computes, module by module."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
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
    """Multiplications for one datum by module name, each module's own (torch's flop counter, halved).

    Their sum is the whole network's: what code multiplies outside layers counts for the module that the code is of.
    """
    counter = FlopCounterMode(display=False)
    own: Counter[nn.Module] = Counter()
    starts: list[int] = []
    inside = [0]  # of each module that is running, what the modules that it calls have computed

    def enter(module: nn.Module, args: Any) -> None:
        starts.append(counter.get_total_flops())
        inside.append(0)

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        count = counter.get_total_flops() - starts.pop()
        own[module] += count - inside.pop()
        inside[-1] += count

    handles = [module.register_forward_pre_hook(enter) for module in net.modules()]
    handles += [module.register_forward_hook(leave) for module in net.modules()]
    try:
        with in_mode(net, False), _countable(), counter:
            call_network(net, resized(inputs, 1))
    finally:
        for handle in handles:
            handle.remove()
    return {name: own[module] // 2 for name, module in net.named_modules() if module in own}


@contextmanager
def _countable() -> Iterator[None]:
    """Attention and recurrent layers as matrix products: the counter of some versions of torch knows no fused ones."""
    backends: tuple[Any, ...] = (torch.backends.mkldnn, torch.backends.cudnn)
    before, fast = [backend.enabled for backend in backends], torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    for backend in backends:
        backend.enabled = False
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for backend, enabled in zip(backends, before, strict=True):
            backend.enabled = enabled
