"""Likelihoods: from a network's outputs to a Pyro distribution with one batch dimension, that of the data."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

__all__ = ["GaussianLikelihood", "MaskedBernoulli", "MaskedCategorical", "bernoulli", "categorical"]


class _Ignoring(dist.TorchDistribution):
    """A distribution whose log-probability is 0 where the value is ``ignore_index``; to be mixed into one of labels."""

    def __init__(self, logits: Tensor, ignore_index: int) -> None:
        self.ignore_index = ignore_index
        super().__init__(logits=logits, validate_args=False)  # type: ignore[call-arg]  # of the other base

    def log_prob(self, value: Tensor) -> Tensor:
        ignored = value == self.ignore_index
        return super().log_prob(value.masked_fill(ignored, 0)).masked_fill(ignored, 0.0)


class MaskedCategorical(_Ignoring, dist.Categorical):
    """A Categorical whose log-probability is 0 where the value is ``ignore_index`` (padding, unlabelled pixels)."""

    def expand(self, batch_shape: Any, _instance: Any = None) -> MaskedCategorical:
        return MaskedCategorical(self.logits.expand(*batch_shape, self.logits.size(-1)), self.ignore_index)


class MaskedBernoulli(_Ignoring, dist.Bernoulli):
    """A Bernoulli whose log-probability is 0 where the value is ``ignore_index`` (labels that nobody gave)."""

    def expand(self, batch_shape: Any, _instance: Any = None) -> MaskedBernoulli:
        return MaskedBernoulli(self.logits.expand(batch_shape), self.ignore_index)


def categorical(logits: Tensor, ignore_index: int | None = None, event_dim: int = 0) -> dist.TorchDistribution:
    """One of C classes: logits of shape ``(..., N, *event, C)``."""
    if ignore_index is None:
        return dist.Categorical(logits=logits, validate_args=False).to_event(event_dim)
    return MaskedCategorical(logits, ignore_index).to_event(event_dim)


def bernoulli(logits: Tensor, ignore_index: int | None = None, event_dim: int = 0) -> dist.TorchDistribution:
    """Yes or no: logits of shape ``(..., N, *event)``."""
    if ignore_index is None:
        return dist.Bernoulli(logits=logits, validate_args=False).to_event(event_dim)
    return MaskedBernoulli(logits, ignore_index).to_event(event_dim)


class GaussianLikelihood(nn.Module):
    r"""A Gaussian around the outputs, :math:`y \sim N(f(x), s^2)`, with one noise scale for all, learned by default.

    Args:
        scale: where s starts, in the units of y.
        learn: whether s is learned (a point estimate, the maximum of the bound).

    Raises:
        ValueError: if ``scale`` is not a positive finite number.
    """

    def __init__(self, scale: float = 1.0, learn: bool = True) -> None:
        super().__init__()
        if not 0 < scale < math.inf:
            raise ValueError(f"noise scale={scale} is no standard deviation: use a positive finite number")
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)), requires_grad=learn)

    @property
    def scale(self) -> Tensor:
        """s, in the units of y."""
        return self.log_scale.exp()

    def forward(self, outputs: Tensor) -> dist.TorchDistribution:
        """The distribution of y: batch shape ``(..., N, *event)``, that of the outputs."""
        return dist.Normal(outputs, self.scale, validate_args=False)
