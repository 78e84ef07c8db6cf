"""Posteriors of single latents: densities that integrate to 1, quantiles, and where the parameters start."""

import math

import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from torch import nn
from torch.distributions import constraints
from torch.testing import assert_close

from pyro_vbd.distributions import tensors
from pyro_vbd.posterior.mean_field import AdditiveNormal, MultiplicativeNormal
from pyro_vbd.posterior.site_posteriors import (
    FreePosterior,
    GaussianPosterior,
    PointPosterior,
    dropout_rate,
    safe_log_var,
)

SCALARS = {
    "positive": (lambda: constraints.positive, 0.7),
    "unit interval": (lambda: constraints.unit_interval, 0.3),
    "interval": (lambda: constraints.interval(-1.0, 3.0), 2.0),
    "greater than": (lambda: constraints.greater_than(-1.0), 0.5),
    "less than (falling)": (lambda: constraints.less_than(2.0), -0.5),
    "tensor bounds": (lambda: dist.Uniform(torch.tensor(-1.0), torch.tensor(3.0)).support, 2.0),
}
VECTORS = {
    **{f"{name} of 3": (support, [value] * 3) for name, (support, value) in SCALARS.items()},
    "bounds of each": (lambda: dist.Uniform(torch.tensor([0.0, 1, 2]), torch.tensor([1.0, 3, 5])).support, [0.3, 1.3, 4.0]),
    "rising, to_event": (lambda: constraints.independent(constraints.positive, 1), [0.5, 1.0, 2.0]),
    "falling, to_event": (lambda: constraints.independent(constraints.less_than(2.0), 1), [-0.5, 0.0, 1.0]),
}


def perturbed(posterior):
    """The posterior somewhere else than where it starts."""
    with torch.no_grad():
        for parameter in posterior.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return posterior


@pytest.mark.parametrize(
    "make", [lambda *start: FreePosterior("q", *start, 0.1), lambda *start: PointPosterior("q", *start)]
)
def test_bounds_follow_the_parameters(make):
    posterior = make(torch.tensor([0.3, 1.3]), dist.Uniform(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 3.0])).support)
    before = posterior.quantile(torch.tensor([0.5]))
    posterior.double()
    assert {bound.dtype for _, bound in tensors(posterior.bijection(next(posterior.parameters())))} == {torch.float64}
    assert_close(posterior.quantile(torch.tensor([0.5], dtype=torch.float64)), before.double())


def test_bounds_that_moved_in_inference_mode_are_trained_through_and_keep_their_digits():
    low, high = torch.tensor([0.1, 1.1]), torch.tensor([1.0, 3.0])
    posterior = FreePosterior("q", torch.tensor([0.3, 1.3]), dist.Uniform(low, high).support, 0.1).double()
    with torch.inference_mode():
        posterior.distribution().rsample()
    posterior.distribution().rsample().sum().backward()
    assert posterior.loc.grad.isfinite().all()
    posterior.half().quantile(torch.tensor([0.5], dtype=torch.half))
    posterior.float()
    assert_close(posterior.bijection(posterior.loc)(torch.full((2,), -100.0)), low, rtol=0.0, atol=0.0)


# --- on the whole line ------------------------------------------------------------------------------------------------


def test_gaussian_additive():
    init = torch.randn(4, 3).T
    posterior = GaussianPosterior("guide.w", init, -9.0)
    assert {name for name, _ in posterior.named_parameters()} == {"loc", "log_var"}
    q = posterior.distribution()
    assert isinstance(q, AdditiveNormal)
    assert_close(q.loc, init)
    assert_close(q.log_var, torch.full((3, 4), -9.0))
    with torch.no_grad():
        posterior.loc.add_(1.0)
    assert not torch.equal(posterior.loc, init)  # a copy
    assert posterior.loc.is_contiguous()


@pytest.mark.parametrize("learned", [True, False])
def test_gaussian_multiplicative(learned):
    posterior = GaussianPosterior("guide.w", torch.randn(3, 4), -9.0, torch.full((3, 1), -2.0), learned)
    assert {name for name, _ in posterior.named_parameters()} == ({"loc", "log_alpha"} if learned else {"loc"})
    assert set(posterior.state_dict()) == {"loc", "log_alpha"}
    q = posterior.distribution()
    assert isinstance(q, MultiplicativeNormal)
    assert_close(q.inverse_alpha, torch.full((3, 4), math.exp(2.0)))


@pytest.mark.parametrize("log_alpha", [None, -1.0])
def test_gaussian_quantiles(log_alpha):
    log_alpha = None if log_alpha is None else torch.full((), log_alpha)
    posterior = perturbed(GaussianPosterior("guide.w", torch.randn(4, 3), -1.0, log_alpha))
    probability = torch.tensor([0.05, 0.5, 0.9])
    found, q = posterior.quantile(probability), posterior.distribution()
    assert found.shape == (3, 4, 3)
    for p, value in zip(probability, found, strict=True):
        assert_close(value, dist.Normal(q.loc, q.scale).icdf(p))


def test_parameters_are_announced_by_their_label():
    posterior = GaussianPosterior("guide.w", torch.zeros(3), -1.0, torch.zeros(()), learn_alpha=False)
    with poutine.trace(param_only=True) as capture:
        posterior.distribution()
    assert list(capture.trace.nodes) == ["guide.w.loc"]  # a fixed alpha is no parameter


# --- under a constraint -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VECTORS)
def test_free_posterior_starts_at_the_value(name):
    support, value = VECTORS[name]
    posterior = FreePosterior("guide.z", torch.tensor(value), support(), 0.2)
    assert_close(posterior.quantile(torch.tensor([0.5])).squeeze(0), torch.tensor(value))
    assert_close(posterior.log_var.exp().sqrt(), torch.full((3,), 0.2))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", SCALARS)
def test_free_density_integrates_to_the_probabilities_of_its_quantiles(name):
    support, value = SCALARS[name]
    posterior = perturbed(FreePosterior("guide.z", torch.tensor(value), support(), 0.4))
    with torch.no_grad():
        q = posterior.distribution()
        lowest, highest = posterior.quantile(torch.tensor([1e-12, 1 - 1e-12]))
        assert lowest < highest
        for p in (0.1, 0.5, 0.8, 1 - 1e-12):
            grid = torch.linspace(lowest.item(), posterior.quantile(torch.tensor([p])).item(), 100_001)
            assert_close(torch.trapezoid(q.log_prob(grid).exp(), grid).item(), p, rtol=0, atol=1e-6)


@pytest.mark.usefixtures("float64")
def test_free_density_on_the_simplex_integrates_to_1():
    posterior = perturbed(FreePosterior("guide.z", torch.tensor([0.3, 0.3, 0.4]), constraints.simplex, 0.3))
    side = torch.linspace(5e-4, 1 - 5e-4, 1000)
    first, second = torch.meshgrid(side, side, indexing="ij")
    inside = first + second < 1 - 1e-9
    points = torch.stack([first, second, 1 - first - second], -1)[inside]
    with torch.no_grad():
        mass = posterior.distribution().log_prob(points).exp().sum() * 1e-6
    assert abs(mass - 1) < 2e-3
    assert posterior.quantile(torch.tensor([0.1, 0.9])).shape == (2, 3)


@pytest.mark.parametrize("name", VECTORS)
def test_free_quantiles_against_draws(name):
    support, value = VECTORS[name]
    posterior = perturbed(FreePosterior("guide.z", torch.tensor(value), support(), 0.4))
    n, probability = 10_000, torch.tensor([0.1, 0.5, 0.8])
    draws = posterior.distribution().rsample((n,)).detach()
    assert support().check(draws).all()
    quantiles = posterior.quantile(probability).detach()
    assert quantiles.shape == (3, 3)
    below = (draws < quantiles[:, None]).sum(1)
    expected = probability[:, None] * n
    assert ((below - expected) / (expected * (1 - probability[:, None])).sqrt()).abs().max() < 4


def test_free_draws_carry_gradients_to_both_parameters():
    posterior = FreePosterior("guide.z", torch.ones(3), constraints.positive, 0.1)
    q = posterior.distribution()
    value = q.rsample()
    (value.sum() + q.log_prob(value).sum()).backward()
    assert all(p.grad is not None and (p.grad != 0).all() for p in posterior.parameters())


# --- at a point -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VECTORS)
def test_point_posterior(name):
    support, value = VECTORS[name]
    posterior = PointPosterior("guide.z", torch.tensor(value), support())
    q = posterior.distribution()
    assert isinstance(q, dist.Delta)
    assert_close(q.v, torch.tensor(value))
    assert_close(posterior.quantile(torch.tensor([0.1, 0.9])), torch.tensor([value, value]))
    posterior.value().sum().backward()
    assert (posterior.unconstrained.grad != 0).all()
    with torch.no_grad():
        posterior.unconstrained.add_(3.0)
    assert support().check(posterior.value()).all()


# --- where the dropout rates start ------------------------------------------------------------------------------------

INITS = {
    "normal 0.01": lambda n: 0.01 * torch.randn(n),
    "normal 1": torch.randn,
    "uniform": lambda n: 0.1 * (2 * torch.rand(n) - 1),
    "Xavier": lambda n: nn.init.xavier_normal_(torch.empty(n // 10, 10)),
    "heavy-tailed": lambda n: 1e-3 * torch.randn(n) / torch.rand(n).square(),
    "log-uniform over ten decades": lambda n: 10 ** (-10 * torch.rand(n)),
    "half zeros": lambda n: 0.01 * torch.randn(n) * (torch.rand(n) < 0.5),
    "all alike": lambda n: torch.full((n,), 1e-3),
    "all alike, others": lambda n: torch.full((n,), 1.7e-3),
}


@pytest.mark.parametrize("name", INITS)
@pytest.mark.parametrize("n", [10, 50, 100, 990, 1000, 30_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_at_most_one_in_a_hundred_means_starts_removed(name, n, dtype):
    loc = INITS[name](n).to(dtype)
    log_var = safe_log_var(loc, -10.0)
    assert log_var <= -10
    q = GaussianPosterior("guide.w", loc, log_var).distribution()
    removed = (-q.inverse_alpha[loc != 0].log() > 3.0).sum()
    assert removed <= 0.01 * (loc != 0).sum()
    if log_var < -10:  # and no less than that asks for
        assert (-q.inverse_alpha[loc != 0].log() > 3.0 - 1e-2).sum() > math.floor(0.01 * (loc != 0).sum())


@pytest.mark.parametrize(("loc", "asked"), [(torch.ones(100), -10.0), (torch.zeros(5), -7.0), (torch.ones(0), -8.0)])
def test_the_log_variance_that_is_asked_for_is_kept_where_it_can_be(loc, asked):
    assert safe_log_var(loc, asked) == asked


def test_a_denormal_mean_gives_a_finite_log_variance():
    assert math.isfinite(safe_log_var(torch.full((3,), 1e-30), -10.0))


def test_alpha_of_each_weight_is_the_additive_form():
    assert dropout_rate("weight", torch.randn(4, 3), -9.0) == (None, True)


@pytest.mark.parametrize("alpha", [0.25, 1, 3.0])
def test_a_number_is_a_fixed_alpha(alpha):
    log_alpha, learned = dropout_rate(alpha, torch.randn(4, 3, dtype=torch.float64), -9.0)
    assert not learned
    assert log_alpha.dtype == torch.float64
    assert_close(log_alpha.exp().item(), float(alpha))


@pytest.mark.parametrize(("alpha", "shape"), [("unit", (4, 1, 1, 1)), ("layer", (1, 1, 1, 1))])
def test_a_shared_alpha_starts_at_the_mean_rate(alpha, shape):
    loc = torch.randn(4, 3, 2, 2)
    log_alpha, learned = dropout_rate(alpha, loc, -9.0)
    assert learned
    assert log_alpha.shape == shape
    mean_square = loc.square().mean((1, 2, 3) if alpha == "unit" else None).reshape(shape)
    assert_close(log_alpha, -9.0 - mean_square.log())


@pytest.mark.parametrize(("alpha", "shape"), [("unit", (5,)), ("layer", (1,))])
def test_a_shared_alpha_of_a_vector(alpha, shape):
    assert dropout_rate(alpha, torch.ones(5), -9.0)[0].shape == shape


@pytest.mark.parametrize("alpha", ["unit", "layer"])
def test_a_shared_alpha_starts_at_1_at_most(alpha):
    log_alpha, _ = dropout_rate(alpha, torch.zeros(4, 3), -9.0)
    assert (log_alpha == 0).all()


@pytest.mark.parametrize("alpha", ["weights", "", 0, 0.0, -1.0, math.inf, math.nan, None])
def test_an_unknown_alpha_is_refused(alpha):
    with pytest.raises(ValueError, match="'weight', 'unit', 'layer', or a positive number"):
        dropout_rate(alpha, torch.randn(4, 3), -9.0)
