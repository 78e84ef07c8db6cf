"""Inputs like those that a model was trained on, for a look at its network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from pyro_vbd.network import StochasticNetwork

__all__ = ["example_inputs"]


def example_inputs(network: StochasticNetwork, batch_size: int = 2) -> Any:
    """Random inputs of the shapes that the network has run on: a tensor, or a tuple or dict of them. Integers are 0.

    Raises:
        ValueError: if it has not run yet.
    """
    if network.inputs_seen is None:
        raise ValueError("this model has not run yet, so that its inputs are not known: pass example inputs by inputs=")
    args, kwargs = network.inputs_seen
    device = next(network.parameters()).device

    def like(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        shape = (min(batch_size, len(value)), *value.shape[1:]) if value.dim() else value.shape
        if not value.is_floating_point():
            return torch.zeros(shape, dtype=value.dtype, device=device)
        return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=value.dtype, device="cpu").to(device)

    if kwargs and args:
        raise ValueError("this network takes positional and keyword inputs: pass example inputs by inputs=")
    found = tree_map(like, kwargs or args)
    return found[0] if isinstance(found, tuple) and len(found) == 1 else found
