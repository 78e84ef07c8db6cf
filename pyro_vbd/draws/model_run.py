"""One run of a model under draws of its guide, and what it tells: draws, log p(y | w), log p(w) and log q(w)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyro.poutine as poutine
import torch
from pyro.distributions.util import scale_and_mask
from torch import Tensor
from torch.distributions import Independent

from pyro_vbd.prototype import latent_sites, observed_sites

__all__ = ["ModelRun"]


@dataclass(frozen=True)
class ModelRun:
    """A run of the model on K of the draws and B of the data. Likelihoods are those of single data, not scaled by N/B."""

    draws: slice
    data: slice
    model_trace: poutine.Trace
    guide_trace: poutine.Trace
    #: The sites of a run of one draw, whose shapes say which dimension of this one is what.
    single: dict[str, Any]
    #: Whether the draws stand in a plate, to the left of the model's.
    together: bool

    def latents(self) -> dict[str, Tensor]:
        """Draws of the model's latents, of shape ``(K, *site shape)``."""
        sites = latent_sites(self.model_trace)
        return {name: self.stacked(site["value"], self.single[name]["value"].dim()) for name, site in sites.items()}

    def log_prior(self) -> dict[str, Tensor]:
        """log p of each of the model's latents, summed over its elements, of shape ``(K,)``, in float64."""
        return {name: self._total(name, site) for name, site in latent_sites(self.model_trace).items()}

    def log_q(self) -> Tensor:
        """log q of all latents, of shape ``(K,)``, in float64. Of a delta only its Jacobian counts: a point has 0."""
        return torch.stack([self._total(name, site) for name, site in latent_sites(self.guide_trace).items()]).sum(0)

    def log_likelihood(self) -> dict[str, Tensor]:
        """log p(y | w) of each observed site, scaled by no plate and no handler, of shape ``(K, *batch shape)``."""
        found = {}
        for name, site in observed_sites(self.model_trace).items():
            value = scale_and_mask(site["fn"].log_prob(site["value"]), 1.0, site["mask"])
            found[name] = self.stacked(value, len(self.single[name]["fn"].batch_shape))
        return found

    def observed(self) -> dict[str, Tensor]:
        """The targets, of shape ``(1, *site shape)``."""
        found = {}
        for name, site in observed_sites(self.model_trace).items():
            fn = site["fn"]
            batch = fn.batch_shape[len(fn.batch_shape) - len(self.single[name]["fn"].batch_shape) :]
            if site["value"].numel():  # of a factor there is none
                found[name] = site["value"].expand(batch + fn.event_shape).unsqueeze(0)
        return found

    def _total(self, name: str, site: Any) -> Tensor:
        """The log density of a site, summed in float64: a network's is a sum of very many terms."""
        fn, event_dim = site["fn"], 0
        while isinstance(fn, Independent):
            fn, event_dim = fn.base_dist, event_dim + fn.reinterpreted_batch_ndims
        terms = fn.log_prob(site["value"])
        terms = terms.sum(tuple(range(-event_dim, 0)), dtype=torch.float64) if event_dim else terms.double()
        terms = self.stacked(scale_and_mask(terms, 1.0, site["mask"]), len(self.single[name]["fn"].batch_shape))
        return terms.reshape(len(terms), -1).sum(1)

    def stacked(self, value: Tensor, dim: int) -> Tensor:
        """A value of this run with the draws in front of its own ``dim`` dimensions, and nothing between."""
        return value.reshape(value.shape[:1] + value.shape[value.dim() - dim :]) if self.together else value.unsqueeze(0)
