"""Callbacks for :func:`~pyro_vbd.fit`: what to write into each epoch's record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from pyro_vbd.modes import in_mode
from pyro_vbd.placement import brought, common_device
from pyro_vbd.prototype import untouched
from pyro_vbd.relevance import sparsity as share_removed
from pyro_vbd.training.run import Fit

__all__ = ["alpha_quantiles", "kl_by_site", "sparsity"]


def sparsity(threshold: float = 3.0) -> Callable[[Fit], dict[str, Any]]:
    """``"sparsity"``: the share of weights with log alpha above the threshold (of gates, above 0)."""
    return lambda run: {"sparsity": share_removed(run.guide, threshold)}


def alpha_quantiles(probabilities: Sequence[float] = (0.05, 0.25, 0.5, 0.75, 0.95)) -> Callable[[Fit], dict[str, Any]]:
    """``"log_alpha"``: quantiles of log alpha by site, as lists in the order of ``probabilities``.

    Raises:
        ValueError: for a probability outside [0, 1].
    """
    if not all(0 <= p <= 1 for p in probabilities):
        raise ValueError(f"probabilities={probabilities} are no probabilities: use numbers from 0 to 1")

    def record(run: Fit) -> dict[str, Any]:
        found = {}
        for site, value in run.guide.log_alpha().items():
            ranks = value.flatten().sort().values
            positions = [round(p * (len(ranks) - 1)) for p in probabilities]
            found[site] = [float(ranks[position]) for position in positions]
        return {"log_alpha": found}

    return record


def kl_by_site(*batch: Any) -> Callable[[Fit], dict[str, Any]]:
    """``"kl_by_site"``: the KL of each site in nats.

    Args:
        batch: the model's arguments, targets included; one datum is enough, for a closed-form KL does not depend on data.
    """

    def record(run: Fit) -> dict[str, Any]:
        arguments = brought(batch, common_device(run.model, run.guide))
        # in training mode BatchNorm would count these data, and refuse a single one
        with torch.no_grad(), untouched(run.model), in_mode(run.model, False), in_mode(run.guide, False):
            terms = run.elbo.terms(run.model, run.guide, *arguments)
        return {"kl_by_site": {site: float(kl) for site, kl in terms.kl_by_site.items()}}

    return record
