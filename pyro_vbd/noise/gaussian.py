"""Multiplicative Gaussian noise on activations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["GaussianNoise", "checked_rate"]


class GaussianNoise(nn.Module):
    r"""Dropout with Gaussian noise: :math:`x \odot (1 + \sqrt{\alpha}\,\epsilon)`, :math:`\alpha = p/(1-p)`.

    Section 10 of Srivastava et al., *Dropout: A Simple Way to Prevent Neural Networks from Overfitting*, JMLR 2014. The
    noise has the mean and the variance of binary dropout at rate p; all units that read an activation share its noise. In
    evaluation mode the input passes as it is.

    Args:
        p: the binary dropout rate with the same variance, in [0, 1).

    Raises:
        ValueError: for a rate outside [0, 1).
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = checked_rate(p)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return x
        return x * (1.0 + (self.p / (1.0 - self.p)) ** 0.5 * torch.randn_like(x))

    def extra_repr(self) -> str:
        """The rate."""
        return f"p={self.p}"


def checked_rate(p: float) -> float:
    """``p``, if it is a dropout rate.

    Raises:
        ValueError: if it is none.
    """
    if not 0.0 <= p < 1.0:
        raise ValueError(f"p={p} is no dropout rate: use a number from 0 to below 1")
    return p
