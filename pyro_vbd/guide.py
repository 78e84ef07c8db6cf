"""The posterior family of a Pyro model: Gaussian weights, scales at their optimum, anything else learned."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from torch import Tensor, nn

from pyro_vbd.broadcasting import broadcasting_faults, open_draws_plate
from pyro_vbd.parameters import unique_label
from pyro_vbd.posterior.hierarchy import find_hierarchy
from pyro_vbd.posterior.inferable import check_inferable
from pyro_vbd.posterior.initial_values import matching_scale, other_posterior, scale_posterior, weight_posterior
from pyro_vbd.posterior.masked import make_room_for_masks
from pyro_vbd.posterior.optimal_scale import OptimalScale
from pyro_vbd.posterior.scale_choice import choose_rules, scale_rule_of
from pyro_vbd.posterior.scale_factors import Weight
from pyro_vbd.posterior.site_posteriors import SitePosterior, dropout_rate, submodule_name
from pyro_vbd.prototype import Prototyped, latent_sites, run_with, sample_sites, untouched

__all__ = ["VBDGuide"]

logger = logging.getLogger(__name__)


class VBDGuide(nn.Module):
    r"""The posterior of variational Bayesian dropout, for any Pyro model.

    .. math:: q(W) = \prod_i N(W_i \,|\, \theta_i, \alpha_i \theta_i^2), \qquad q(\gamma) = \delta(\gamma - \gamma^*)

    Eqs. (4) and (12) of Liu et al. 2019. A weight is a latent Normal of mean 0 (or log-uniform). Which latent is its
    variance, scale or precision is found from how the model depends on it, whatever its name, shape or constant. Where
    the optimum of that latent is registered (:func:`~pyro_vbd.priors.register_optimum`) it stands there at every step;
    otherwise, and where its prior holds a latent or a parameter or a parameter multiplies it, it is a learned point;
    ``scale_posterior`` gives it a density instead. Of the factors of a weight, ``Normal(0, tau * lam)``, the one with most
    elements gets its optimum. Any other latent gets a Gaussian on its unconstrained space.

    Args:
        model: a Pyro model with static structure: a ``vbd`` model or any callable. It is not a submodule of the guide.
        args: example inputs, those of the model. With them, or with a ``vbd`` model, the parameters exist at once;
            otherwise they do after the first call, which must pass the data.
        alpha: ``"weight"``: each weight has its own alpha (eq. 18); ``"unit"``: one for each index of the weight's first
            dimension; ``"layer"``: one for the site; a positive number: that alpha, fixed (eq. 17).
        scale_posterior: q(gamma). ``"delta"``, at the registered optimum or learned; ``"lognormal"``, a learned Gaussian of
            log gamma (of its logit between bounds), its bound estimated from draws; ``"exact"``, the optimum of all
            densities given q(W): in closed form where it is registered (:func:`~pyro_vbd.priors.register_evidence`), by a
            sum where gamma has few values and lists them (``has_enumerate_support``), else by quadrature at every step. The
            bound is then one on the evidence, unless a weight's scale has another factor, such as a global scale that is a
            latent: that one is a learned point.
        init_log_var: where :math:`\log\sigma^2` starts, in log(weight units squared); lower for a site where more than 1%
            of the nonzero means would start beyond :math:`\log\alpha = 3`. A shared alpha starts at
            :math:`\sigma^2` over the mean of :math:`\theta^2`, at most 1.
        init_scale: where the standard deviation of the other latents starts, on their unconstrained space.
        name: prefix of the parameters' names for ``pyro.optim``; unique in the process by default.
        kwargs: example inputs by keyword.

    Means start at ``infer["init"]`` of the site (a network's present weights), else at small random values.

    Raises:
        ValueError: for an unknown ``alpha`` or ``scale_posterior``; at the first run, for a model with nothing to infer, a
            discrete latent, a weight that is drawn inside a subsampled plate, or ``"exact"`` where the prior of a scale
            holds a latent or a parameter, or a parameter multiplies it.
        RuntimeError: by ``load_state_dict``, where there are no parameters yet to load into.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        *args: Any,
        alpha: str | float = "weight",
        scale_posterior: str = "delta",
        init_log_var: float = -10.0,
        init_scale: float = 0.1,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        dropout_rate(alpha, torch.ones(1, 1), init_log_var)  # a bad alpha is refused here, not at the first run
        scale_rule_of(scale_posterior)
        self._model = _Reference(model)  # not the module itself: its parameters are not the guide's
        self.alpha, self.scale_posterior = alpha, scale_posterior
        self.init_log_var, self.init_scale = init_log_var, init_scale
        self.name = name or unique_label("VBDGuide")
        self._sites: dict[str, tuple[int, tuple[Any, ...]]] = {}  # event dimensions and plates, in the model's order
        self._weights: dict[str, Weight] = {}
        self.posteriors = nn.ModuleDict()
        self.optima = nn.ModuleDict()
        self._faults: dict[str | None, str] = {}  # why the model cannot run in one of Pyro's plates of draws
        if args or kwargs:
            self._set_up(model, args, kwargs)
        elif isinstance(model, Prototyped):
            self._set_up(model.prototype, (), {})

    @property
    def model(self) -> Callable[..., Any]:
        """The model whose posterior this is."""
        return self._model.model

    # --- what an ELBO and Predictive ask of a guide ------------------------------------------------------------------

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """State every latent by ``pyro.sample``, and return the values by site; only the first call uses the arguments."""
        self._ready(args, kwargs)
        if self._faults and (plate := open_draws_plate()) in self._faults:
            raise ValueError(self._faults[plate])
        frames_by_name = {f.name: f for _, frames in self._sites.values() for f in frames}
        plates = {name: pyro.plate(name, f.size, dim=f.dim) for name, f in frames_by_name.items()}
        values = {}
        for site, q in self._distributions().items():
            event_dim, frames = self._sites[site]
            with ExitStack() as stack:
                for frame in frames:
                    stack.enter_context(plates[frame.name])
                values[site] = pyro.sample(site, q.to_event(event_dim - q.event_dim))
        return values

    # --- summaries, dicts by site ------------------------------------------------------------------------------------

    @torch.no_grad()
    def median(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The posterior medians: means of the weights, optima of the scales."""
        return {site: value[0] for site, value in self.quantiles([0.5], *args, **kwargs).items()}

    @torch.no_grad()
    def quantiles(self, probabilities: Sequence[float] | Tensor, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Elementwise posterior quantiles, each of shape ``(len(probabilities), *site shape)``.

        Raises:
            ValueError: for a probability outside [0, 1].
        """
        wanted = torch.as_tensor(probabilities)
        if not bool(((wanted >= 0) & (wanted <= 1)).all()):
            raise ValueError(
                f"probabilities={probabilities} are no probabilities: use numbers from 0 to 1, such as 0.05 for the low end"
            )
        self._ready(args, kwargs)
        found = {}
        for site, q in self._distributions().items():
            if submodule_name(site) in self.optima:
                found[site] = _scale_quantile(q, wanted)
            else:
                reference = next(self.learned[site].parameters())
                found[site] = self.learned[site].quantile(wanted.to(reference))
        return found

    @torch.no_grad()
    def sample(self, num_samples: int | None = None, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Posterior draws, with a leading dimension of ``num_samples`` where it is given."""
        self._ready(args, kwargs)
        shape = torch.Size() if num_samples is None else torch.Size([num_samples])
        return {site: q.rsample(shape) for site, q in self._distributions().items()}

    @torch.no_grad()
    def log_alpha(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        r""":math:`\log\alpha = \log\sigma^2 - \log\theta^2` of every weight (infinite at a mean of 0), by weight site."""
        self._ready(args, kwargs)
        return {site: -self.learned[site].distribution().inverse_alpha.log() for site in self._weights}

    @property
    def learned(self) -> dict[str, SitePosterior]:
        """The posteriors with parameters, by site; a scale that follows from the weights has none, and is not among them.

        They are modules whose ``distribution()`` is q of the site, without its event dimensions.
        """
        # the modules of now: copies and moves may have put others in place
        modules = self.posteriors._modules
        return {site: modules[submodule_name(site)] for site in self._sites if submodule_name(site) in modules}  # type: ignore[misc]

    # --- inside ------------------------------------------------------------------------------------------------------

    def _distributions(self) -> dict[str, Any]:
        """q of every latent in the model's order, without event dimensions; the scales follow from the weights."""
        free: dict[str, Any] = {site: module.distribution() for site, module in self.learned.items()}
        gammas = {site: q.v for site, q in free.items() if isinstance(q, dist.Delta)}
        for module in self.optima.values():
            assert isinstance(module, OptimalScale)
            free[module.site] = module(free, gammas)
        return {site: free[site] for site in self._sites}

    def _ready(self, args: Any, kwargs: Any) -> None:
        if not self._sites:
            self._set_up(self.model, args, kwargs)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        if not self._sites and any(key.startswith(prefix) for key in state_dict):
            raise RuntimeError(
                "this guide has no parameters yet to load into: give VBDGuide example inputs, or call it once on the data"
            )
        make_room_for_masks(self.posteriors, state_dict, f"{prefix}posteriors.")
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    @poutine.block()
    @torch.inference_mode(False)  # a parameter that was made in it could never be trained
    def _set_up(self, model: Callable[..., Any], args: Any, kwargs: Any) -> None:
        """Run the model, find out what its latents are, and give each its posterior."""
        with untouched(self.model):
            trace = run_with({}, model, args, kwargs)
            sites = latent_sites(trace)
            check_inferable(sites, sample_sites(trace))
            hierarchy = find_hierarchy(model, args, kwargs)
        if hierarchy.unfit:
            warnings.warn(
                f"the latents {sorted(hierarchy.unfit)} act on the scale of a weight, but not as its variance, scale or "
                "precision up to a constant factor: they get a learned posterior instead of an optimum",
                stacklevel=4,
            )
        rules = choose_rules(self.scale_posterior, sites, hierarchy)
        labels = {site: f"{self.name}.{site}" for site in sites}
        learned: dict[str, SitePosterior] = {}
        for site, node in sites.items():
            if site in hierarchy.weights:
                learned[site] = weight_posterior(labels[site], node, self.alpha, self.init_log_var)
            elif site not in hierarchy.gammas:
                learned[site] = other_posterior(labels[site], node, self.init_scale)
        weights = {site: learned[site].distribution() for site in hierarchy.weights}
        for site, node in sites.items():  # scales last, since they start from the weights
            if site in hierarchy.gammas and site not in rules:
                start = matching_scale(node, hierarchy, weights)
                learned[site] = scale_posterior(labels[site], node, start, self.scale_posterior, self.init_scale)
        # only now: a model that is refused leaves nothing behind
        self.posteriors.update({submodule_name(site): posterior for site, posterior in learned.items()})
        for site, rule in rules.items():
            self.optima[submodule_name(site)] = OptimalScale(site, sites[site]["fn"], hierarchy.acted_on(site), rule)
        self._weights = hierarchy.weights
        self._sites = {
            site: (node["fn"].event_dim, tuple(frame for frame in node["cond_indep_stack"] if frame.vectorized))
            for site, node in sites.items()
        }
        if not isinstance(self.model, Prototyped):
            with untouched(self.model):
                self._faults = broadcasting_faults(model, self.sample(3), trace, args, kwargs)
        logger.debug("%s: weights %s; optimal %s", self.name, sorted(hierarchy.weights), sorted(rules))


class _Reference:
    """Holds the model of a guide. A copy of the guide keeps the model, unless the model is copied along with it."""

    def __init__(self, model: Callable[..., Any]) -> None:
        self.model = model

    def __deepcopy__(self, memo: dict[int, Any]) -> _Reference:
        return _Reference(memo.get(id(self.model), self.model))


def _scale_quantile(q: Any, probability: Tensor) -> Tensor:
    if isinstance(q, dist.Delta):
        return q.v.expand(len(probability), *q.v.shape)
    return q.quantile(probability.reshape((-1,) + (1,) * len(q.batch_shape)).to(q.point).expand(-1, *q.batch_shape))  # type: ignore[no-any-return]
