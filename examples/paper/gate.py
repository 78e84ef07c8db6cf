"""Structured variational Bayesian dropout's gate: a factor on each unit or channel, with a posterior of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Gate"]


class Gate(nn.Module):
    r"""Multiplies each unit or channel by a weight: :math:`B' = f(B) \odot W'` (section 4.2 of Liu et al. 2019).

    The weight is a plain parameter here; under a prior (``vbd.Classifier(net, prior, where=...)``) it has a posterior
    :math:`N(\theta, \alpha\theta^2)`, and every datum a draw of its own, the same at all places of a channel. Means start
    at N(1, 0.01^2), as in the authors' released layer.

    Args:
        size: units or channels, dimension 1 of the input.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size).normal_(1.0, 0.01))

    def forward(self, x: Tensor) -> Tensor:
        ones = x.new_ones(x.shape[:2])
        return x * (ones * self.weight).reshape(*x.shape[:2], *(1,) * (x.dim() - 2))
