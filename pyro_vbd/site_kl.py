"""The KL of each latent site of a model and its guide: in closed form where torch's registry has one."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from pyro.distributions.util import scale_and_mask
from torch import Tensor
from torch.distributions import kl_divergence

import pyro_vbd.kl  # noqa: F401  (registers the closed forms)
from pyro_vbd.distributions import base_distribution
from pyro_vbd.estimators.gaussian_tensor import drawn
from pyro_vbd.posterior.exact_scale import ExactScale
from pyro_vbd.prototype import latent_sites

__all__ = ["site_kls"]


def site_kls(model_trace: poutine.Trace, guide_trace: poutine.Trace, hyperprior_constant: bool) -> dict[str, Tensor]:
    """KL(q || p) of every latent, summed over its elements, by site. A site that contributes nothing is left out.

    A delta contributes minus the prior's log density at its point; under a uniform prior that is the constant log(b - a),
    which is counted only if ``hyperprior_constant``. The exact posterior of a scale contributes what its bound has beyond
    the KL of the weights (:attr:`~pyro_vbd.posterior.exact_scale.ExactScale.remainder`). An auxiliary latent, which is in
    the guide alone, contributes its log density.

    Raises:
        ValueError: where a handler scales or masks a site in the model or in the guide alone.
    """
    kls = {}
    priors = latent_sites(model_trace)
    for name, site in latent_sites(guide_trace).items():
        prior = priors.get(name)
        if prior is None:
            kls[name] = scale_and_mask(site["fn"].log_prob(site["value"]), site["scale"], site["mask"]).sum()
            continue
        q, p = site["fn"], prior["fn"]
        _check_scaling(name, site, prior)
        is_delta = isinstance(base_distribution(q), dist.Delta)
        if is_delta and isinstance(base_distribution(p), dist.Uniform) and not hyperprior_constant:
            continue
        kls[name] = scale_and_mask(_kl(q, p, site["value"]), site["scale"], site["mask"]).sum()
    return kls


def _kl(q: Any, p: Any, value: Any) -> Tensor:
    if isinstance(exact := base_distribution(q), ExactScale):
        return exact.remainder.sum(tuple(range(-q.event_dim, 0)))
    # Pyro's own entry for a Delta drops its log density, the Jacobian of a constrained point
    if not isinstance(base_distribution(q), dist.Delta):
        try:
            return kl_divergence(q, p)
        except NotImplementedError:  # no closed form: one draw
            pass
    value = drawn(value)
    return q.log_prob(value) - p.log_prob(value)  # type: ignore[no-any-return]


def _check_scaling(name: str, guide_site: Any, model_site: Any) -> None:
    for what in ("scale", "mask"):
        ours, theirs = guide_site[what], model_site[what]
        if ours is theirs or (isinstance(ours, torch.Tensor) and isinstance(theirs, torch.Tensor)):
            continue
        if isinstance(ours, torch.Tensor) or isinstance(theirs, torch.Tensor) or ours != theirs:
            raise ValueError(
                f"site {name!r} has {what} {theirs} in the model and {ours} in the guide: put the handler around both, or "
                "use VBD_ELBO(kl_weight=...) to weigh the KL"
            )
