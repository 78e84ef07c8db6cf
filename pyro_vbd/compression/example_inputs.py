"""Inputs like those that a model was trained on, for a look at its network, and batches of other sizes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from pyro_vbd.inputs import length
from pyro_vbd.network import StochasticNetwork

__all__ = ["example_inputs", "resized"]


def example_inputs(network: StochasticNetwork) -> Any:
    """Two random data of the shapes that the network has run on: a tensor, or a tuple or dict of them. Integers are 0.

    Raises:
        ValueError: if it has not run yet.
    """
    if network.inputs_seen is None:
        raise ValueError("this model has not run yet, so that its inputs are not known: pass example inputs by inputs=")
    args, kwargs = network.inputs_seen
    if kwargs and args:
        raise ValueError("this network takes positional and keyword inputs: pass example inputs by inputs=")
    device = next(network.parameters()).device

    def like(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if not value.is_floating_point():
            return torch.zeros(value.shape, dtype=value.dtype, device=device)
        generator = torch.Generator().manual_seed(0)
        return torch.randn(value.shape, generator=generator, dtype=value.dtype, device="cpu").to(device)

    seen = kwargs or args
    found = tree_map(like, resized(seen, min(2, length(seen) or 0)))
    return found[0] if isinstance(found, tuple) and len(found) == 1 else found


def resized(inputs: Any, size: int) -> Any:
    """The inputs with their data repeated, or left out, to a batch of another size.

    Tensors of another length than the first (a mask over places, say) stay as they are.
    """
    count = length(inputs)

    def fit(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or not leaf.dim() or len(leaf) != count:
            return leaf
        return leaf[torch.arange(size, device=leaf.device) % count]

    return tree_map(fit, inputs)
