"""The objective: expected log-likelihood minus KL, for Pyro's SVI and for torch's optimizers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from pyro.infer.elbo import ELBO
from torch import Tensor

from pyro_vbd.elbo_terms import ELBOTerms
from pyro_vbd.paired_traces import check_pair, estimator_by_site, paired_traces
from pyro_vbd.parameters import LocalParameters
from pyro_vbd.prototype import latent_sites, observed_sites
from pyro_vbd.site_kl import site_kls
from pyro_vbd.site_patterns import first_match, refuse_idle

__all__ = ["VBD_ELBO"]

Model: TypeAlias = Callable[..., Any]  # a guide is one too


class VBD_ELBO(ELBO):
    r"""The evidence lower bound of variational Bayesian dropout.

    .. math:: L = \frac{N}{B} \sum_{i \in \text{batch}} E_{q(W)} \log p(y_i | x_i, W)
              - \beta \Big( \sum_w KL(q(w) \,\|\, p(w | \gamma)) - \sum_\gamma \log p(\gamma) \Big)

    Eqs. (10), (17) and (18) of Liu et al. 2019. For the Gaussian-uniform prior the bracket is
    :math:`\sum \tfrac12 \log(1 + 1/\alpha)`. The factor N/B comes from the model's data plate alone. KLs that torch's
    registry knows are in closed form; any other is estimated from the draw.

    Use it as ``SVI(model, guide, optim, VBD_ELBO())``, or as ``VBD_ELBO()(model, guide)``, a module whose parameters any
    torch optimizer takes and whose call returns the loss (-L).

    Args:
        kl_weight: beta; may be assigned between steps (KL warm-up).
        num_particles: draws of q whose mean the estimate is.
        estimator: what is sampled. ``"local"``: the outputs of linear maps (local reparameterisation). ``"weights"``: each
            weight, once a batch. ``"flipout"``: the same, with random signs for each datum
            (:mod:`~pyro_vbd.estimators.flipout`). ``"auto"``: ``"weights"`` in convolutions, ``"local"`` elsewhere
            (:mod:`~pyro_vbd.estimators.by_cost`). Or a dict from patterns of site names to these words: the first pattern
            that matches a site counts, and a site without one has ``"auto"``.
        vectorize_particles: run the particles at once, in a plate to the left of the model's.
        max_plate_nesting: how deep the model's plates are nested; found out by default.
        hyperprior_constant: whether to count the constant log(b - a) of a uniform hyperprior.
        site_weights: extra factors on the KL of some sites, as a dict from patterns of site names to numbers: the first
            pattern that matches a site counts, and a site without one has 1. A factor of 3 on gates, say, makes more of
            them close. The objective is a lower bound only where all factors are 1.

    Raises:
        ValueError: for a negative or infinite ``kl_weight`` or site weight, fewer than one particle, an unknown estimator;
            when called, for a guide that was made for another model or does not know all of its latents, a handler around
            model or guide alone that scales or masks, or a pattern that matches no site.
        RuntimeError: when called, for a weight that the model never reads, unless its estimator is ``"weights"``.
    """

    def __init__(
        self,
        kl_weight: float = 1.0,
        num_particles: int = 1,
        estimator: str | Mapping[str, str] = "auto",
        *,
        vectorize_particles: bool = False,
        max_plate_nesting: float = math.inf,
        hyperprior_constant: bool = False,
        site_weights: Mapping[str, float] | None = None,
    ) -> None:
        self.site_weights = dict(site_weights or {})
        for name, weight in {"kl_weight": kl_weight, **self.site_weights}.items():
            if not 0 <= weight < math.inf:
                raise ValueError(f"{name}={weight} is no weight of a KL: use a number >= 0; the bound itself has 1")
        if num_particles < 1:
            raise ValueError(f"num_particles={num_particles} leaves nothing to average: use 1 or more")
        estimator_by_site(estimator)  # a wrong word is refused here, not at the first step
        super().__init__(num_particles, max_plate_nesting, vectorize_particles=vectorize_particles)
        self.kl_weight, self.estimator, self.hyperprior_constant = kl_weight, estimator, hyperprior_constant

    def differentiable_loss(self, model: Model, guide: Model, *args: Any, **kwargs: Any) -> Tensor:
        """The loss -L as a scalar tensor, in nats over the whole data set."""
        return -self.terms(model, guide, *args, **kwargs).elbo

    def terms(self, model: Model, guide: Model, *args: Any, **kwargs: Any) -> ELBOTerms:
        """The bound, with the log-likelihood and the KL of each site, averaged over particles."""
        check_pair(model, guide)
        found: Tensor | float = 0.0  # a number until a site's tensor says which device and dtype
        kls: dict[str, Tensor] = {}
        for model_trace, guide_trace in self._get_traces(model, guide, args, kwargs):
            for site in observed_sites(model_trace).values():
                found = found + site["log_prob_sum"] / self.num_particles
            for name, kl in site_kls(model_trace, guide_trace, self.hyperprior_constant).items():
                kls[name] = kls.get(name, 0.0) + kl / self.num_particles
        log_likelihood = found if isinstance(found, Tensor) else next(iter(kls.values()), torch.zeros(())).new_tensor(found)
        # without site_weights, no product for each site
        weighted = {s: first_match(self.site_weights, s, 1.0) * kl for s, kl in kls.items()} if self.site_weights else kls
        kl = sum(weighted.values(), start=torch.zeros_like(log_likelihood))
        return ELBOTerms(log_likelihood - self.kl_weight * kl, log_likelihood, kls)

    @torch.no_grad()
    def loss(self, model: Model, guide: Model, *args: Any, **kwargs: Any) -> float:
        """The loss as a number, without gradients."""
        return self.differentiable_loss(model, guide, *args, **kwargs).item()

    def loss_and_grads(self, model: Model, guide: Model, *args: Any, **kwargs: Any) -> float:
        """The loss as a number; its gradients are added to the parameters. What ``SVI.step`` calls."""
        with LocalParameters():
            loss = self.differentiable_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    def report_and_grads(self, model: Model, guide: Model, *args: Any, **kwargs: Any) -> tuple[Tensor, tuple[str, ...]]:
        """:meth:`ELBOTerms.report` and the names of its sites; gradients of the loss are added to the parameters."""
        terms = self.terms(model, guide, *args, **kwargs)
        (-terms.elbo).backward()  # type: ignore[no-untyped-call]
        return terms.report().detach(), tuple(terms.kl_by_site)

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        traces = paired_traces(model, guide, args, kwargs, estimator_by_site(self.estimator))
        for setting, patterns in (("site_weights", self.site_weights), ("estimator", self.estimator)):
            if patterns and not isinstance(patterns, str):
                refuse_idle(setting, patterns, latent_sites(traces[1]))
        return traces
