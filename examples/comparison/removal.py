"""What it costs to remove weights: the error with the least relevant ones at 0."""

from __future__ import annotations

import torch
from data import Split
from torch import Tensor, nn

import pyro_vbd as vbd

__all__ = ["SHARES", "error", "removal_curve"]

#: Shares of the weights that are removed.
SHARES = [0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.92, 0.94, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995]


@torch.no_grad()
def error(net: nn.Module, split: Split) -> float:
    """Error of a plain network on the evaluation data, in per cent."""
    net.eval()
    batches = vbd.Batches(split.x_eval, split.y_eval, batch_size=1000, shuffle=False)
    wrong = sum(int((net(x).argmax(-1) != y).sum()) for x, y in batches)
    return 100 * wrong / len(split.y_eval)


@torch.no_grad()
def removal_curve(net: nn.Module, relevance: dict[str, Tensor], split: Split) -> list[float]:
    """Error with the least relevant share of the weights at 0, for each of SHARES."""
    ranked = torch.cat([value.flatten() for value in relevance.values()]).sort().values
    kept = {name: net.get_parameter(name).clone() for name in relevance}
    errors = []
    for share in SHARES:
        cut = ranked[min(int(share * len(ranked)), len(ranked) - 1)]
        for name, value in relevance.items():
            net.get_parameter(name).copy_(kept[name] * (value >= cut).to(kept[name]))
        errors.append(error(net, split))
    for name, value in kept.items():
        net.get_parameter(name).copy_(value)
    return errors
