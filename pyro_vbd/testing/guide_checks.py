"""What a guide must satisfy to be trained by ``VBD_ELBO``, checked on any: one of your own, or ours of your model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from torch import Tensor

from pyro_vbd.distributions import base_distribution
from pyro_vbd.elbo import VBD_ELBO
from pyro_vbd.parameters import captured_parameters
from pyro_vbd.priors.log_uniform import ImproperLogUniform
from pyro_vbd.prototype import latent_sites, run_with, untouched
from pyro_vbd.random_state import get_random_state, set_random_state

__all__ = ["GUIDE_CHECKS", "check_guide"]

#: A model and its guide, called without arguments, and how many draws to take.
GuideCheck = Callable[[Callable[..., Any], Callable[..., Any], int], str | None]


def check_guide(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *args: Any,
    seed: int = 0,
    num_samples: int = 500,
    **kwargs: Any,
) -> dict[str, str]:
    r"""Check a guide against its model.

    * ``sites``: it states every latent of the model, in its shape and inside its support, and no other (auxiliary ones
      apart, ``infer={"is_auxiliary": True}``);
    * ``draws``: they are the same under the same seed, and others under another;
    * ``kl``: the KL of :class:`~pyro_vbd.VBD_ELBO` is :math:`E_q[\log q(w) - \log p(w)]` over draws (eq. (10) of Liu et
      al. 2019), to which a closed form or a registered optimum of your own must come;
    * ``gradients``: every parameter gets one, finite and not 0 throughout.

    Args:
        model: the Pyro model.
        guide: a function or a module; parameters may be modules' or ``pyro.param``'s. They are left as they are.
        args: what both are called with: data, targets included.
        seed: of the draws; the random state is left as it was.
        num_samples: draws of a Monte Carlo estimate, which must agree within 5 standard errors.
        kwargs: the same by keyword.

    Returns:
        For each of :data:`GUIDE_CHECKS`, ``"passed"``, or why it does not apply.

    Raises:
        AssertionError: at the first check that fails, with the site or the parameter and what is wrong with it.
    """
    report = {}
    state = get_random_state()  # Pyro's seed is NumPy's and Python's too
    try:
        for name, check in GUIDE_CHECKS.items():
            with untouched(model), untouched(guide), pyro.validation_enabled(True):
                pyro.set_rng_seed(seed)
                found = check(lambda: model(*args, **kwargs), lambda: guide(*args, **kwargs), num_samples)
            report[name] = found or "passed"
    finally:
        set_random_state(state)
    return report


def _is_auxiliary(site: Mapping[str, Any]) -> bool:
    return bool((site["infer"] or {}).get("is_auxiliary"))


def _check_sites(model: Callable[..., Any], guide: Callable[..., Any], count: int) -> str | None:
    ours = latent_sites(poutine.trace(guide).get_trace())
    theirs = latent_sites(run_with({}, model, (), {}))  # at typical values: an improper prior has no draws
    missing = sorted(set(theirs) - set(ours))
    assert not missing, f"the guide does not state {missing}, latents of the model: sample them in the guide"
    unknown = sorted(name for name in set(ours) - set(theirs) if not _is_auxiliary(ours[name]))
    assert not unknown, f"the guide states {unknown}, and the model does not: mark them infer={{'is_auxiliary': True}}"
    for name, site in theirs.items():
        value, fn = ours[name]["value"], site["fn"]
        assert value.shape == fn.shape(), (
            f"the guide draws {name!r} of shape {tuple(value.shape)}, where the model's has {tuple(fn.shape())}"
        )
        assert bool(fn.support.check(value).all()), f"the guide draws {name!r} outside the model's support, {fn.support}"
        log_q = ours[name]["fn"].log_prob(value)
        assert log_q.shape == fn.log_prob(value).shape, (
            f"log q of {name!r} has shape {tuple(log_q.shape)}, log p {tuple(fn.log_prob(value).shape)}: declare the same "
            "dimensions by to_event"
        )
    return None


def _check_draws(model: Callable[..., Any], guide: Callable[..., Any], count: int) -> str | None:
    runs = []
    for seed in (1, 1, 2):
        pyro.set_rng_seed(seed)
        runs.append(latent_sites(poutine.trace(guide).get_trace()))
    first, again, other = runs
    for name, site in first.items():
        assert torch.equal(site["value"], again[name]["value"]), (
            f"two runs under one seed draw {name!r} differently: draw all noise by torch's generator"
        )
        if not isinstance(base_distribution(site["fn"]), dist.Delta):
            assert not torch.equal(site["value"], other[name]["value"]), (
                f"two runs draw the same {name!r}: draw it anew at every call"
            )
    return None


def _check_kl(model: Callable[..., Any], guide: Callable[..., Any], count: int) -> str | None:
    elbo, estimates, exact = VBD_ELBO(estimator="weights", hyperprior_constant=True), [], []
    with torch.no_grad():
        for _ in range(count):
            guide_trace = poutine.trace(guide).get_trace()
            sites = latent_sites(poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace())
            priors = {name: base_distribution(site["fn"]) for name, site in sites.items()}
            if improper := [name for name, fn in priors.items() if isinstance(fn, ImproperLogUniform)]:
                return f"the prior of {improper} is improper, and its KL defined up to a constant"
            estimates.append(_log_prob(latent_sites(guide_trace)) - _log_prob(sites))
            exact.append(elbo.terms(model, guide).kl.double())
    # both are estimates where a latent has no closed form
    (mean, error), (other, its_error) = _mean(torch.stack(estimates)), _mean(torch.stack(exact))
    z = abs(mean - other) / max(math.hypot(error, its_error), 1e-6 * (1.0 + abs(mean)))
    assert z < 5.0, (
        f"VBD_ELBO's KL is {other:.6g}, and E[log q - log p] {mean:.6g} by {count} draws, {z:.1f} standard errors off: a "
        "registered KL or optimum is not that of these distributions"
    )
    return None


def _log_prob(sites: Mapping[str, Any]) -> Tensor:
    each = [(site["fn"].log_prob(site["value"]) * site["scale"]).sum().double() for site in sites.values()]
    return torch.stack(each).sum()


def _mean(values: Tensor) -> tuple[float, float]:
    """With its standard error."""
    return float(values.mean()), float(values.std() / math.sqrt(len(values)))


def _check_gradients(model: Callable[..., Any], guide: Callable[..., Any], count: int) -> str | None:
    found: dict[str, Tensor] = {}
    for _ in range(3):  # a parameter may have none by chance
        with captured_parameters() as leaves:
            loss = VBD_ELBO().differentiable_loss(model, guide)
        leaves = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
        assert leaves, "the guide has no parameter to learn: state them by pyro.param, or as a module's"
        for name, grad in zip(leaves, torch.autograd.grad(loss, list(leaves.values()), allow_unused=True), strict=True):
            grad = torch.zeros_like(leaves[name]) if grad is None else grad
            assert bool(grad.isfinite().all()), f"the gradient of {name!r} is not finite: {grad}"
            found[name] = found.get(name, torch.zeros_like(grad)) + grad.abs()
    idle = sorted(name for name, grad in found.items() if not bool(grad.any()))
    assert not idle, f"the loss does not depend on {idle}: use them in the guide, by draws that carry gradients (rsample)"
    return None


#: By name, what :func:`check_guide` runs.
GUIDE_CHECKS: Mapping[str, GuideCheck] = MappingProxyType(
    {
        "sites": _check_sites,
        "draws": _check_draws,
        "kl": _check_kl,
        "gradients": _check_gradients,
    }
)
