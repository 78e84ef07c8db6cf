"""The approximations of the log-uniform KL against quadrature of the exact one, and the improper density.

For N(theta, alpha theta^2) and mu = alpha^(-1/2), E log|1 + sqrt(alpha) eps| = log(alpha) / 2 + E log|mu + eps|, so that
the KL that is 0 at alpha = infinity is E log|mu + eps| + (Euler's gamma + log 2) / 2.
"""

import math

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from torch.distributions import constraints, kl_divergence
from torch.testing import assert_close

from pyro_vbd.kl import collapsed
from pyro_vbd.posterior.mean_field import AdditiveNormal, MultiplicativeNormal
from pyro_vbd.priors import ImproperLogUniform, LogUniform, kingma, molchanov
from pyro_vbd.prototype import typical_value

LIMIT = 0.5 * (0.5772156649015329 + math.log(2))
K1, K2, K3 = 0.63576, 1.87320, 1.48695  # as printed in arXiv:1701.05369


def exact_kl(inverse_alpha):
    """Quadrature, in log|w| on each side of the logarithm's singularity, and in eps where that is far away."""
    mu = inverse_alpha.sqrt()[:, None]

    def density(eps):
        return torch.exp(-0.5 * eps.square()) / math.sqrt(2 * math.pi)

    log_w = torch.linspace(-45, 3.2, 8001)
    w = log_w.exp()
    near = torch.trapezoid(log_w * w * (density(w - mu) + density(w + mu)), log_w)
    eps, large = torch.linspace(-8, 8, 4001), mu.clamp_min(10.0)
    far = large.squeeze(1).log() + torch.trapezoid(torch.log1p(eps / large) * density(eps), eps)
    return torch.where(mu.squeeze(1) < 10, near, far) + LIMIT


@pytest.mark.usefixtures("float64")
def test_the_quadrature_itself():
    special = pytest.importorskip("scipy.special")
    integrate = pytest.importorskip("scipy.integrate")
    mu = [0.01, 0.5, 1.0, 3.0, 9.0, 12.0, 100.0]  # d/dmu E log|mu + eps| = sqrt(2) Dawson(mu / sqrt(2))
    dawson = [integrate.quad(lambda u: math.sqrt(2) * special.dawsn(u / math.sqrt(2)), 0, m, limit=200)[0] for m in mu]
    assert_close(exact_kl(torch.tensor(mu) ** 2), torch.tensor(dawson), rtol=0, atol=1e-9)


@pytest.mark.usefixtures("float64")
def test_molchanov_against_quadrature():
    inverse_alpha = torch.linspace(-20, 20, 401).neg().exp()
    error = (molchanov(inverse_alpha) - exact_kl(inverse_alpha)).abs().max()
    assert 0.0093 < error < 0.0094  # what the docstring says


@pytest.mark.usefixtures("float64")
def test_molchanovs_constants_are_the_least_squares_fit():
    optimize = pytest.importorskip("scipy.optimize")
    log_alpha = torch.linspace(-20, 20, 401)
    inverse_alpha = log_alpha.neg().exp()
    gap = (exact_kl(inverse_alpha) - 0.5 * torch.log1p(inverse_alpha)).tolist()

    def model(x, k1, k2, k3):
        return k1 * (1 - torch.sigmoid(k2 + k3 * torch.as_tensor(x))).cpu().numpy()

    (k1, k2, k3), _ = optimize.curve_fit(model, log_alpha.tolist(), gap, p0=(0.5, 1.0, 1.0))
    assert abs(k1 - K1) < 0.002
    assert abs(k2 - K2) < 0.02  # theirs is a fit to noisy values
    assert abs(k3 - K3) < 0.02
    assert abs(K1 - LIMIT) < 0.001


@pytest.mark.usefixtures("float64")
def test_kingma_against_quadrature_up_to_alpha_1():
    inverse_alpha = torch.linspace(-20, 0, 401).neg().exp()
    error = kingma(inverse_alpha) - exact_kl(inverse_alpha)
    assert -0.041 < error.min() < -0.040  # what the docstring says
    assert error.max() < 1e-8
    assert error[0].abs() < 1e-6  # the constant is that of alpha = 0
    upper = error[
        inverse_alpha < 10
    ]  # beyond alpha = 0.1 little more than a constant, which the improper prior leaves free
    assert upper.max() - upper.min() < 0.009


@pytest.mark.usefixtures("float64")
def test_kingma_is_constant_beyond_alpha_1():
    inverse_alpha = torch.linspace(0, 0.999, 50, requires_grad=True)
    kl = kingma(inverse_alpha)
    assert_close(kl, kingma(torch.ones(1)).expand(50), rtol=0, atol=0)
    assert (torch.autograd.grad(kl.sum(), inverse_alpha)[0] == 0).all()
    assert_close(kl[0].item(), LIMIT - 1.16145124 + 1.50204118 - 0.58629921)


@pytest.mark.usefixtures("float64")
def test_what_it_has_beyond_variational_bayesian_dropout():
    log_alpha = torch.linspace(-20, 20, 401)
    inverse_alpha = log_alpha.neg().exp()
    gap = molchanov(inverse_alpha) - collapsed(inverse_alpha)
    assert_close(gap, K1 * (1 - torch.sigmoid(K2 + K3 * log_alpha)), rtol=1e-8, atol=1e-12)


@pytest.mark.usefixtures("float64")
def test_agrees_with_cplxmodule(device):
    relevance = pytest.importorskip("cplxmodule.nn.relevance")
    layer = relevance.LinearVD(5, 7).to(device, torch.float64)
    with torch.no_grad():
        layer.weight.copy_((0.01 + torch.rand_like(layer.weight)) * torch.randn_like(layer.weight).sign())
        layer.log_sigma2.copy_(torch.randn_like(layer.weight) * 3 - 2)
    leaves = (layer.weight, layer.log_sigma2)
    kl = kl_divergence(AdditiveNormal(*leaves), ImproperLogUniform(layer.weight))
    assert_close(kl, layer.penalty, rtol=1e-8, atol=1e-8)
    for ours, theirs in zip(*(torch.autograd.grad(k.sum(), leaves) for k in (kl, layer.penalty)), strict=True):
        assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("approximation", "largest"), [(molchanov, 20.0), (kingma, 0.0)])
def test_kl_falls_with_alpha(approximation, largest):
    kl = approximation(torch.linspace(-20, largest, 401).neg().exp())
    assert (kl.diff() < 0).all()
    assert (kl > 0).all()


@pytest.mark.parametrize("approximation", [molchanov, kingma])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("loc", [0.0, 1e-30, 1e-3, 0.1])
def test_value_and_gradients_are_finite(approximation, dtype, loc):
    log_var = torch.tensor([-200.0, -95.0, *range(-70, 21)], dtype=dtype, requires_grad=True)  # 1/alpha beyond 1e28
    loc = torch.full_like(log_var, loc, requires_grad=True)
    kl = kl_divergence(AdditiveNormal(loc, log_var), ImproperLogUniform(loc, approximation))
    assert kl.isfinite().all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(kl.sum(), (loc, log_var)))


@pytest.mark.parametrize("approximation", [molchanov, kingma])
def test_gradient_in_inverse_alpha_is_finite_up_to_1e30(approximation):
    inverse_alpha = torch.cat([torch.zeros(1), torch.logspace(-30, 30, 121)]).requires_grad_()
    kl = approximation(inverse_alpha)
    assert kl.isfinite().all()
    assert torch.autograd.grad(kl.sum(), inverse_alpha)[0].isfinite().all()
    assert_close(kl[-1].item(), LIMIT + 15 * math.log(10), rtol=1e-4, atol=0)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("form", [AdditiveNormal, MultiplicativeNormal])
@pytest.mark.parametrize("approximation", [molchanov, kingma])
def test_kl_of_both_forms(form, approximation):
    q = form(torch.randn(4, 3), torch.randn(4, 3) - 3)
    p = ImproperLogUniform(q.loc, approximation, torch.Size([4, 3]))
    elementwise = kl_divergence(q, p)
    assert_close(elementwise, approximation(q.loc.square() / q.variance))
    assert_close(kl_divergence(q.to_event(2), p.to_event(2)), elementwise.sum())


# --- the density ---------------------------------------------------------------------------------------------------------


def test_log_density_is_minus_log_of_the_size():
    p, value = ImproperLogUniform(torch.zeros(3)), torch.tensor([-2.0, 0.5, 3.0])
    assert_close(p.log_prob(value), -value.abs().log())
    assert p.expand(torch.Size([2, 3])).log_prob(value).shape == (2, 3)
    assert p.expand(torch.Size([2, 3])).to_event(2).log_prob(value.expand(2, 3)).shape == ()
    assert p.support is constraints.real


def test_values_are_tried_out_in_the_dtype_of_the_weight():
    improper = ImproperLogUniform(torch.ones(3, dtype=torch.float64), batch_shape=torch.Size([3]))
    assert typical_value(improper).dtype == torch.float64


def test_expand_keeps_the_approximation():
    p = ImproperLogUniform(torch.zeros((), dtype=torch.float64), kingma).expand(torch.Size([2, 3]))
    assert isinstance(p, ImproperLogUniform)
    assert p.approximation is kingma
    assert (p.batch_shape, p.event_shape) == ((2, 3), ())
    assert p.to_event(1).event_shape == (3,)


@pytest.mark.parametrize(
    "draw", [lambda p: p.sample(), lambda p: p.rsample((2,)), lambda p: p.to_event(1).sample(), lambda p: p()]
)
def test_there_are_no_samples(draw):
    with pytest.raises(NotImplementedError, match=r"improper and has no samples.*GaussianUniform"):
        draw(ImproperLogUniform(torch.zeros(1), batch_shape=torch.Size([3])))


@pytest.mark.parametrize("approximation", [molchanov, kingma])
def test_statement(approximation):
    init = torch.randn(4, 3)
    model = poutine.condition(lambda: LogUniform(approximation).sample("net.weight", init), {"net.weight": init})
    trace = poutine.trace(model).get_trace()
    assert trace.stochastic_nodes == []
    site = trace.nodes["net.weight"]
    assert isinstance(site["fn"].base_dist, ImproperLogUniform)
    assert site["fn"].base_dist.approximation is approximation
    assert site["fn"].event_shape == (4, 3)
    assert site["infer"]["init"] is init
    assert_close(trace.log_prob_sum(), -init.abs().log().sum())


def test_prior_draws_are_refused():
    with pytest.raises(NotImplementedError, match="improper"):
        LogUniform().sample("w", torch.zeros(3))


def test_vectorised_plate():
    with pyro.plate("particles", 2, dim=-1), poutine.condition(data={"w": torch.ones(2, 3)}):
        assert LogUniform().sample("w", torch.zeros(3)).shape == (2, 3)


def test_repr():
    assert repr(LogUniform()) == "LogUniform()"
    assert repr(LogUniform(kingma)) == "LogUniform(kingma)"


def test_no_other_posterior_has_a_closed_form():
    with pytest.raises(NotImplementedError):
        kl_divergence(dist.Normal(0.0, 1.0), ImproperLogUniform(torch.zeros(())))


def test_validation():
    p, wrong = ImproperLogUniform(torch.zeros(()), validate_args=True), torch.full((2,), torch.nan)
    for each in (p, p.expand(torch.Size([2]))):
        with pytest.raises(ValueError, match="support"):
            each.log_prob(wrong)
    assert ImproperLogUniform(torch.zeros(()), validate_args=False).expand(torch.Size([2])).log_prob(wrong).isnan().all()
