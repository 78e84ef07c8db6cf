"""What the tables hold: test error, how many weights are left, and how many neurons."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import pyro_vbd as vbd

__all__ = ["error", "weight_sparsity"]


@torch.no_grad()
def error(net: nn.Module, x: Tensor, y: Tensor, batch_size: int = 1000) -> float:
    """Share of wrong classes, in per cent; the network runs in evaluation mode."""
    was_training = net.training
    net.eval()
    batches = vbd.Batches(x, y, batch_size=batch_size, shuffle=False)
    wrong = sum(int((net(inputs).argmax(-1) != labels).sum()) for inputs, labels in batches)
    net.train(was_training)
    return 100.0 * wrong / len(y)


@torch.no_grad()
def weight_sparsity(net: nn.Module) -> dict[str, Any]:
    """Weights left, without biases: their number, the compression |W| / |W != 0|, and the share gone by layer in per cent.

    Weights are counted as the layers use them: those of ``torch.nn.utils.prune`` and of parametrizations included.
    """
    weights = [m.weight for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    left = [int(weight.count_nonzero()) for weight in weights]
    total = sum(weight.numel() for weight in weights)
    return {
        "weights": sum(left),
        "compression": total / max(sum(left), 1),
        "sparsity": [100.0 * (1.0 - n / weight.numel()) for n, weight in zip(left, weights, strict=True)],
    }
