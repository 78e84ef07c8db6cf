"""What an objective is made of: the bound, the log-likelihood, and the KL of each site."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["ELBOTerms"]


@dataclass(frozen=True)
class ELBOTerms:
    """The bound and what it is made of, in nats over the whole data set, as scalar tensors with gradients."""

    #: Log-likelihood minus weighted KL: what is maximised.
    elbo: Tensor
    #: The log-likelihood of the targets, scaled to the whole data set by the model's plate.
    log_likelihood: Tensor
    #: The KL of each latent site, without ``kl_weight``. For a scale at a point it is minus the log of its prior density.
    kl_by_site: dict[str, Tensor]

    @property
    def kl(self) -> Tensor:
        """The KL of all sites, without ``kl_weight``: a sum over weights, never a mean."""
        return sum(self.kl_by_site.values(), start=torch.zeros_like(self.log_likelihood))

    def report(self) -> Tensor:
        """One vector: the loss (minus the bound), the log-likelihood, and the KL of each site."""
        return torch.stack([-self.elbo, self.log_likelihood, *self.kl_by_site.values()])
