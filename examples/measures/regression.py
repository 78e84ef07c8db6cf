"""Predictive distributions of a number, as mixtures of Gaussians: likelihood, coverage and width of their intervals."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, Normal
from torchmetrics.functional.regression import mean_squared_error

__all__ = ["LEVELS", "coverage", "mixture", "quantile", "scores"]

#: Nominal levels of the central intervals whose coverage is looked at.
LEVELS = torch.linspace(0.05, 0.95, 19)


def mixture(means: Tensor, scales: Tensor) -> MixtureSameFamily:
    """The average of S predictive Gaussians for each of N data.

    Args:
        means: of shape ``(S, N)``: a draw of the weights, or a member of an ensemble, in each row.
        scales: standard deviations, of a shape that broadcasts with it.
    """
    means, scales = (value.double().T for value in torch.broadcast_tensors(means, scales))
    return MixtureSameFamily(Categorical(logits=torch.zeros_like(means)), Normal(means, scales))


def coverage(predictive: MixtureSameFamily, y: Tensor, levels: Tensor = LEVELS) -> Tensor:
    """Share of the targets inside the central interval of each level; equal to the levels for a calibrated model."""
    outside = (2.0 * predictive.cdf(y) - 1.0).abs()
    return (outside.unsqueeze(-1) <= levels.to(outside)).double().mean(0)


def quantile(predictive: MixtureSameFamily, level: float, steps: int = 60) -> Tensor:
    """The value below which a share ``level`` of each predictive distribution lies, by bisection; shape ``(N,)``."""
    parts = predictive.component_distribution
    edge = Normal(0.0, 1.0).icdf(torch.tensor(level, dtype=parts.mean.dtype, device=parts.mean.device))
    # the quantile of a mixture lies between those of its parts
    ends = parts.mean + edge * parts.stddev
    low, high = ends.min(-1).values, ends.max(-1).values
    for _ in range(steps):
        middle = 0.5 * (low + high)
        below = predictive.cdf(middle) < level
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return 0.5 * (low + high)


def scores(predictive: MixtureSameFamily, y: Tensor) -> dict[str, float]:
    """RMSE, negative log-likelihood per datum, coverage and width of 90% intervals, and the mean miss of the coverage.

    ``calibration`` is the mean over :data:`LEVELS` of \\|coverage - level\\|, and ``overconfidence`` the mean of level -
    coverage (above 0: intervals too narrow), both in per cent; the width is in the units of y.
    """
    covered = coverage(predictive, y)
    miss = LEVELS.to(covered) - covered
    return {
        "error": float(mean_squared_error(predictive.mean, y.double(), squared=False)),
        "nll": -float(predictive.log_prob(y.double()).mean()),
        "coverage": 100 * float(coverage(predictive, y, torch.tensor([0.9]))),
        "width": float((quantile(predictive, 0.95) - quantile(predictive, 0.05)).mean()),
        "calibration": 100 * float(miss.abs().mean()),
        "overconfidence": 100 * float(miss.mean()),
    }
