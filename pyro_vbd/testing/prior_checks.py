"""What a prior must satisfy, checked on any: the truth kit of the families, for one of your own too."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from types import MappingProxyType

import pyro
import torch
from torch.distributions import biject_to, kl_divergence

from pyro_vbd.distributions import is_positive, map_tensors
from pyro_vbd.distributions.quadrature import grid
from pyro_vbd.posterior.exact_scale import ExactScale
from pyro_vbd.priors.log_uniform import ImproperLogUniform
from pyro_vbd.priors.prior import HierarchicalPrior, Prior
from pyro_vbd.priors.sharing import SHARING
from pyro_vbd.random_state import forked_random_state
from pyro_vbd.testing.case import Case, largest_z

__all__ = ["PRIOR_CHECKS", "check_prior"]


def check_prior(
    prior: Prior, *, device: torch.device | str = "cpu", seed: int = 0, num_samples: int = 10**6
) -> dict[str, str]:
    r"""Check a prior against the truth.

    * ``density``: that of gamma is on positive numbers and integrates to 1, and prior draws follow it;
    * ``optimum``: gamma's registered optimum has the lowest J of 200 gammas over ten decades, for 25 random groups;
    * ``kl``: KL(q(W) || p(W | gamma)) agrees with Monte Carlo;
    * ``exact``: the normaliser and E[1/v] of the exact q(gamma) agree with quadrature and with its draws;
    * ``gradients``: those of the whole KL agree with finite differences;
    * ``extremes``: it is finite, with finite gradients, at weights of 0 and 1e-30 and log variances from -40 to 20;
    * ``sharing``: the optimum again, with gammas shared by output, input, kernel and layer;
    * ``dtypes``: float32 and float64 agree, and stay on the device.

    Args:
        prior: the prior, as it is given to a network.
        device: where the checks run.
        seed: of their random cases; the random state is left as it was.
        num_samples: draws of a Monte Carlo estimate, which must agree within 4 standard errors.

    Returns:
        For each of :data:`PRIOR_CHECKS`, ``"passed"``, or why it does not apply.

    Raises:
        AssertionError: at the first check that fails, with the prior, the case and the two numbers.
    """
    report = {}
    for name, check in PRIOR_CHECKS.items():
        with forked_random_state(), torch.device(device), pyro.get_param_store().scope():
            torch.manual_seed(seed)
            report[name] = check(prior, num_samples) or "passed"
    return report


def _check_density(prior: Prior, num_samples: int) -> str | None:
    case = Case(prior)
    hyperpriors = {site: fn for site, fn in case.densities(case.guide.median()).items() if site != "w"}
    if not hyperpriors:
        return "there is no level above the weights"
    for site, hyperprior in hyperpriors.items():
        if hyperprior.has_enumerate_support:
            return "gamma is discrete"
        assert site != "w_gamma" or not isinstance(prior, HierarchicalPrior) or is_positive(hyperprior), (
            f"{prior}: the support of {site} is {hyperprior.support}, and a {prior.on} needs one without negative numbers"
        )
        first = (0,) * len(hyperprior.batch_shape)
        one = map_tensors(hyperprior, lambda v, first=first: v.detach()[first[: v.dim()]].double())  # type: ignore[misc]
        transform = biject_to(one.support)
        curve = grid(
            lambda x, one=one, t=transform: one.log_prob(t(x)) + t.log_abs_det_jacobian(x, t(x)),  # type: ignore[misc]
            torch.zeros((), dtype=torch.float64),
            1000,
        )
        mass = float(curve.log_integral().exp())
        assert abs(mass - 1.0) < 1e-4, f"{prior}: the density of {site} integrates to {mass:.8g}, and must to 1"
        count = min(num_samples, 100_000) // hyperprior.batch_shape.numel() + 2
        with torch.no_grad():
            draws = transform.inv(hyperprior.sample((count,)).double().reshape(-1))
        weights = (curve.log_f - curve.log_f.logsumexp(0)).exp()
        for power in (1, 2):
            z = largest_z(draws.pow(power), (weights * curve.x.pow(power)).sum())
            assert z < 4.0, f"{prior}: draws of {site} are {z:.1f} standard errors off moment {power} of its density"
    return None


def _check_optimum(prior: Prior, num_samples: int) -> str | None:
    case = Case(prior)
    if not case.scales:
        return "no optimum is registered for its hyperprior"
    for scale in case.scales:
        values = case.guide.median()
        best = case.loss_by_group(scale, values)
        assert bool(best.isfinite().all()), f"{prior}: the registered optimum of {scale.site} has a density of 0: {best}"
        for step in 12.0 * torch.linspace(-1.0, 1.0, 201, dtype=torch.float64).pow(3):
            moved = case.loss_by_group(scale, {**values, scale.site: values[scale.site] * step.exp()})
            worst = int((best - moved).argmax())
            assert bool((moved >= best - 1e-9 * (1.0 + best.abs())).all()), (
                f"{prior}: the registered optimum {values[scale.site].flatten()[worst]:.6g} of {scale.site} has J = "
                f"{best[worst]:.9g}, and at {float(step.exp()):.6g} times it J = {moved[worst]:.9g} is lower"
            )
    return None


def _check_kl(prior: Prior, num_samples: int) -> str | None:
    case = Case(prior)
    q, p = case.q.distribution(), case.densities(case.guide.median())["w"]
    if isinstance(p, ImproperLogUniform):
        return "the prior is improper, and its KL defined up to a constant"
    try:
        expected = kl_divergence(q, p).detach().sum()
    except NotImplementedError:
        return "the KL is estimated from draws"
    draws = []
    with torch.no_grad():
        for _ in range(10):
            w = q.rsample((num_samples // 10,))
            draws.append((q.log_prob(w) - p.log_prob(w)).sum((-2, -1)))
    z = largest_z(torch.cat(draws), expected)
    assert z < 4.0, f"{prior}: KL = {float(expected):.6g} is {z:.1f} standard errors off Monte Carlo"
    return None


def _check_exact(prior: Prior, num_samples: int) -> str | None:
    try:
        case = Case(prior, scale_posterior="exact")
    except ValueError as reason:
        return str(reason)
    if not case.scales:
        return "there is no level above the weights"
    q = case.q.distribution()
    for scale in case.scales:
        gammas = {site: value for site, value in case.guide.median().items() if site not in ("w", scale.site)}
        exact = scale({"w": q}, gammas)
        assert isinstance(exact, ExactScale)
        integrals = exact.without_closed_forms().evidence()
        for what, ours, theirs in zip(("log Z", "E[1/v]"), exact.evidence(), integrals, strict=True):
            error = float(((ours - theirs) / (1.0 + theirs.abs())).abs().max())
            assert error < 1e-5, f"{prior}: the registered {what} of {scale.site} is {error:.2g} off its integral"
        if not exact.is_discrete:
            _check_draws(prior, scale.site, exact, max(num_samples // 100, 1000))
        least = float(exact.remainder.min())
        assert least > -1e-6, f"{prior}: the bound of {scale.site} is {-least:.3g} too high: Z or E[1/v] is wrong"
    return None


def _check_draws(prior: Prior, site: str, exact: ExactScale, count: int) -> None:
    """Draws against the density: the mean of a smooth step at the median, by both."""
    transform = biject_to(exact.support)
    middle = transform.inv(exact.quantile(torch.full(exact.batch_shape, 0.5)).double())
    curve = grid(lambda x: exact.log_prob(transform(x)) + transform.log_abs_det_jacobian(x, transform(x)), middle, 1000)
    expected = curve.expectation(torch.nn.functional.logsigmoid(curve.x - middle))
    z = largest_z((transform.inv(exact.sample((count,)).double()) - middle).sigmoid(), expected)
    assert z < 5.0, f"{prior}: draws of the exact posterior of {site} are {z:.1f} standard errors off its density"


def _check_gradients(prior: Prior, num_samples: int) -> str | None:
    for scale_posterior in ("delta", "exact"):
        try:
            case = Case(prior, scale_posterior=scale_posterior)
        except ValueError:
            continue
        parameters = [case.q.loc, case.q.log_var]
        grads = torch.autograd.grad(case.kl(), parameters)
        kept = [parameter.detach().clone() for parameter in parameters]
        for _ in range(3):
            ways = [torch.randn_like(value) * (value.abs() if i == 0 else 1.0) for i, value in enumerate(kept)]
            ends = []
            for step in (1e-5, -1e-5):
                for parameter, value, way in zip(parameters, kept, ways, strict=True):
                    parameter.data.copy_(value + step * way)
                with torch.no_grad():
                    ends.append(case.kl().item())
            numeric = (ends[0] - ends[1]) / 2e-5
            ours = float(sum((g * way).sum() for g, way in zip(grads, ways, strict=True)))
            assert abs(ours - numeric) < 1e-5 * (1.0 + abs(ours)) + 1e-11 * abs(ends[0]) / 1e-5, (
                f"{prior}, scale_posterior={scale_posterior!r}: the derivative of the KL is {ours:.9g}, and {numeric:.9g} "
                "by finite differences"
            )
    return None


def _check_extremes(prior: Prior, num_samples: int) -> str | None:
    for dtype in (torch.float32, torch.float64):
        case = Case(prior, dtype)
        loc = torch.tensor([0.0, 1e-30, -1e-10, 1.0, -1e3], dtype=dtype)
        log_var = torch.tensor([-40.0, -20.0, -5.0, 0.0, 20.0], dtype=dtype)
        for parameter, value in ((case.q.loc, loc.repeat(5, 1)), (case.q.log_var, log_var.repeat(5, 1).T)):
            parameter.data.copy_(value)
        kl = case.kl()
        grads = torch.autograd.grad(kl, [case.q.loc, case.q.log_var])
        for what, value in (("KL", kl), ("its gradient in loc", grads[0]), ("its gradient in log_var", grads[1])):
            assert bool(value.isfinite().all()), f"{prior}: {what} is not finite in {dtype} at extreme weights: {value}"
    return None


def _check_sharing(prior: Prior, num_samples: int) -> str | None:
    if not hasattr(prior, "per"):
        return "it has no per"
    for per in SHARING:
        shared = copy.copy(prior)
        shared.per = per
        try:
            _check_optimum(shared, num_samples)
        except AssertionError as error:
            raise AssertionError(f"per={per!r}: {error}") from error
    return None


def _check_dtypes(prior: Prior, num_samples: int) -> str | None:
    values = []
    for dtype in (torch.float64, torch.float32):
        torch.manual_seed(1)
        case = Case(prior, dtype)
        for site, value in case.guide.median().items():
            here = torch.empty(()).device
            assert value.dtype == dtype, f"{prior}: {site} is {value.dtype} under weights of {dtype}"
            assert value.device.type == here.type, f"{prior}: {site} is on {value.device} under weights on {here}"
        values.append(case.kl().item())
    assert abs(values[0] - values[1]) < 1e-4 * (1.0 + abs(values[0])), (
        f"{prior}: KL = {values[0]:.9g} in double and {values[1]:.9g} in single precision"
    )
    return None


#: By name, what :func:`check_prior` runs: a function of the prior and the number of draws.
PRIOR_CHECKS: Mapping[str, Callable[[Prior, int], str | None]] = MappingProxyType(
    {
        "density": _check_density,
        "optimum": _check_optimum,
        "kl": _check_kl,
        "exact": _check_exact,
        "gradients": _check_gradients,
        "extremes": _check_extremes,
        "sharing": _check_sharing,
        "dtypes": _check_dtypes,
    }
)
