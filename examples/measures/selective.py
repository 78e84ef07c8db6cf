"""Selective prediction: what the risk becomes when a model may decline the data that it is least sure of."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["aurc", "risk_coverage"]


def risk_coverage(loss: Tensor, uncertainty: Tensor) -> Tensor:
    """Mean loss of the k most certain data, for k = 1 to N: the risk at the coverages 1/N, 2/N, ..., 1.

    Where uncertainties are equal, any order of these data is as good as another: the expectation over the orders.

    Args:
        loss: of shape ``(N,)``, such as 0 and 1 for right and wrong, or squared errors.
        uncertainty: of shape ``(N,)``.
    """
    loss = loss.double()
    levels, index = uncertainty.unique(return_inverse=True)  # sorted
    total = loss.new_zeros(len(levels)).index_add(0, index, loss)
    mean = total / torch.bincount(index, minlength=len(levels))
    expected = mean[index.sort().values]
    return expected.cumsum(0) / torch.arange(1, len(loss) + 1, device=loss.device)


def aurc(loss: Tensor, uncertainty: Tensor) -> float:
    """Area under the risk-coverage curve (Geifman and El-Yaniv 2017): the mean of :func:`risk_coverage`; less is better."""
    return float(risk_coverage(loss, uncertainty).mean())
