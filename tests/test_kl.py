"""The closed-form KLs against torch's own, against a numeric minimum over gamma, and against another library's layers."""

import math

import pyro.distributions as dist
import pytest
import torch
from torch.distributions import kl_divergence
from torch.func import grad, jacrev, vmap
from torch.testing import assert_close

from pyro_vbd.distributions import CentredNormal
from pyro_vbd.kl import collapsed, excess
from pyro_vbd.posterior.mean_field import AdditiveNormal, MultiplicativeNormal
from pyro_vbd.priors.gaussian_uniform import clipped_second_moment

EXACT = {"rtol": 1e-8, "atol": 1e-8}


def written_out(variance):
    """The prior of a model that is written without this library's."""
    return dist.Normal(torch.zeros_like(variance), variance.sqrt())


PRIORS = pytest.mark.parametrize("prior", [CentredNormal, written_out])


def kl_at_optimum(loc, log_var, low, high, prior=CentredNormal):
    """The regulariser as a guide computes it: gamma clipped, and without a gradient."""
    q = AdditiveNormal(loc, log_var)
    hyperprior = dist.Uniform(loc.new_tensor(low), loc.new_tensor(high))
    gamma = clipped_second_moment(hyperprior, q.second_moment.detach(), 1.0)
    return kl_divergence(q, prior(gamma))


def least_kl(loc, log_var, low, high):
    """Minimum over gamma in [low, high] of eq. (14), by ternary search on log gamma."""

    def kl(log_gamma):
        return 0.5 * (log_gamma - log_var + (loc.square() + log_var.exp()) / log_gamma.exp() - 1.0)

    left, right = torch.full_like(loc, math.log(low)), torch.full_like(loc, math.log(high))
    for _ in range(150):
        third = (right - left) / 3
        lower = kl(left + third) < kl(right - third)
        left, right = torch.where(lower, left, left + third), torch.where(lower, right - third, right)
    return kl((left + right) / 2)


def slope(function, at, step=1e-3):
    """Five-point derivative, elementwise."""
    near, far = (function(at + k * step) - function(at - k * step) for k in (1, 2))
    return (8 * near - far) / (12 * step)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("low", "high"), [(1e-12, 1e3), (40.0, 1e3), (1e-9, 1e-4)], ids=["inside", "optimum below low", "optimum above high"]
)
@PRIORS
def test_kl_is_the_numeric_minimum_over_gamma(prior, low, high):
    loc, log_var = (
        torch.randn(200, requires_grad=True),
        (torch.rand(200) * 7 - 5).requires_grad_(),
    )  # second moments 0.01 to 20
    kl = kl_at_optimum(loc, log_var, low, high, prior)
    grad_loc, grad_log_var = torch.autograd.grad(kl.sum(), (loc, log_var))
    with torch.no_grad():
        assert_close(kl, least_kl(loc, log_var, low, high), **EXACT)
        by_loc = slope(lambda at: least_kl(at, log_var, low, high), loc, 1e-3 * (0.5 * log_var).exp())
        assert_close(grad_loc, by_loc, **EXACT)
        assert_close(grad_log_var, slope(lambda at: least_kl(loc, at, low, high), log_var), **EXACT)


@pytest.mark.usefixtures("float64")
def test_collapsed_is_the_kl_at_the_optimum():
    loc, log_var = torch.randn(100, requires_grad=True), torch.randn(100, requires_grad=True)
    ours = collapsed(AdditiveNormal(loc, log_var).inverse_alpha)
    theirs = kl_at_optimum(loc, log_var, 0.0, 1e3)
    assert_close(ours, theirs, **EXACT)
    for one, other in zip(*(torch.autograd.grad(kl.sum(), (loc, log_var)) for kl in (ours, theirs)), strict=True):
        assert_close(one, other, **EXACT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("low", [0.0, 1e-4])
@pytest.mark.parametrize("loc", [0.0, 1e-30, 1e-20, 1e-3, 1.0])
@PRIORS
def test_finite_with_finite_gradients_at_dead_and_at_certain_weights(prior, dtype, low, loc):
    log_var = torch.tensor([-200.0, -104.0, -95.0, -88.0, *range(-40, 21)], dtype=dtype, requires_grad=True)
    loc = torch.full_like(log_var, loc, requires_grad=True)
    kls = {
        "at the optimum": kl_at_optimum(loc, log_var, low, 1e3, prior),
        "collapsed": collapsed(AdditiveNormal(loc, log_var).inverse_alpha),
    }
    for name, kl in kls.items():
        assert kl.isfinite().all(), name
        assert all(g.isfinite().all() for g in torch.autograd.grad(kl.sum(), (loc, log_var))), name


@PRIORS
def test_finite_where_one_over_alpha_is_beyond_all_numbers(prior):
    log_var = torch.tensor([-200.0, -88.0], requires_grad=True)
    loc = torch.full_like(log_var, 30.0, requires_grad=True)
    kl = kl_at_optimum(loc, log_var, 0.0, 1e3, prior)
    assert all(value.isfinite().all() for value in (kl, *torch.autograd.grad(kl.sum(), (loc, log_var))))


def test_a_mean_of_zero_costs_nothing_at_the_optimum():
    kl = kl_at_optimum(torch.zeros(61), torch.linspace(-40, 6, 61), 0.0, 1e3)
    assert_close(kl, torch.zeros(61), rtol=0, atol=1e-6)


# --- another implementation: automatic relevance determination of Kharitonov et al. 2018 --------------------------------


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", ["LinearARD", "Conv2dARD"])
def test_agrees_with_cplxmodule(kind, device):
    relevance = pytest.importorskip("cplxmodule.nn.relevance")
    layer = getattr(relevance, kind)(*((5, 7) if kind == "LinearARD" else (2, 3, 5))).to(device, torch.float64)
    with torch.no_grad():
        layer.weight.copy_((0.01 + torch.rand_like(layer.weight)) * torch.randn_like(layer.weight).sign())
        layer.log_sigma2.copy_(torch.randn_like(layer.weight) * 3 - 2)
    leaves = (layer.weight, layer.log_sigma2)  # its penalty is the KL of each weight, unreduced; |weight| + 1e-12 inside
    kl = kl_at_optimum(*leaves, 0.0, 1e6)
    assert_close(kl, layer.penalty, **EXACT)
    for ours, theirs in zip(*(torch.autograd.grad(k.sum(), leaves) for k in (kl, layer.penalty)), strict=True):
        assert_close(ours, theirs, **EXACT)


# --- the propositions of the paper --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("alpha", [1e-4, 0.3, 1.0, 20.0, 1e4])
@PRIORS
def test_proposition_3_the_mean_is_free_at_a_fixed_alpha(prior, dtype, alpha):
    size = torch.logspace(-20, 2, 89, dtype=dtype)
    loc = torch.cat([-size, size]).requires_grad_()
    log_alpha = torch.tensor(math.log(alpha), dtype=dtype, requires_grad=True)
    q = MultiplicativeNormal(loc, log_alpha)
    kl = kl_divergence(q, prior(q.second_moment.detach()))
    precision = 1e-5 if dtype == torch.float32 else 1e-12
    assert_close(kl, torch.full_like(kl, 0.5 * math.log1p(1 / alpha)), rtol=precision, atol=0)
    grad_loc, grad_log_alpha = torch.autograd.grad(kl.sum(), (loc, log_alpha))
    assert (grad_loc == 0).all()
    assert_close(grad_log_alpha, torch.full_like(log_alpha, -0.5 * len(loc) / (1 + alpha)), rtol=1e-4, atol=0)


@pytest.mark.usefixtures("float64")
def test_proposition_4_concave_and_non_decreasing():
    kl = collapsed(torch.linspace(0, 50, 2001))
    assert kl[0] == 0
    assert (kl.diff() > 0).all()
    assert (kl.diff().diff() < 0).all()


# --- the KL of the additive form, a hand-written autograd function ------------------------------------------------------


def additive_kl(loc, log_var, mean, scale):
    return kl_divergence(AdditiveNormal(loc, log_var), dist.Normal(mean, scale))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("shapes", [((6,), (6,), (6,), (6,)), ((3, 1), (4,), (), (3, 4)), ((), (4,), (2, 1), ())], ids=str)
def test_gradcheck_of_every_input(shapes):
    loc, log_var, mean, scale = (torch.randn(shape) for shape in shapes)
    inputs = tuple(value.requires_grad_() for value in (loc, log_var, mean, scale.exp()))
    assert torch.autograd.gradcheck(additive_kl, inputs)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("prior", [dist.Normal, torch.distributions.Normal])
@pytest.mark.parametrize("shapes", [((6,), (6,), (6,), (6,)), ((3, 1), (4,), (), (3, 4)), ((), (4,), (2, 1), ())], ids=str)
def test_equals_the_kl_between_two_normals(prior, shapes):
    loc, log_var, mean, scale = (torch.randn(shape).requires_grad_() for shape in shapes)
    kl = kl_divergence(AdditiveNormal(loc, log_var), prior(mean, scale.exp()))
    normal = torch.distributions.Normal
    expected = kl_divergence(normal(loc, (0.5 * log_var).exp()), normal(mean, scale.exp()))
    assert kl.shape == torch.broadcast_shapes(*shapes)
    assert_close(kl, expected, **EXACT)
    leaves, weights = (loc, log_var, mean, scale), torch.randn_like(kl)
    for ours, theirs in zip(*(torch.autograd.grad((weights * k).sum(), leaves) for k in (kl, expected)), strict=True):
        assert_close(ours, theirs, **EXACT)


@pytest.mark.usefixtures("float64")
def test_a_centred_prior_is_a_normal_of_mean_zero():
    loc, log_var, variance = torch.randn(4, 3), torch.randn(4, 3), (torch.rand(3) + 0.1).requires_grad_()
    ours, theirs = (kl_divergence(AdditiveNormal(loc, log_var), p(variance)) for p in (CentredNormal, written_out))
    assert_close(ours, theirs, **EXACT)
    assert_close(*(torch.autograd.grad(kl.sum(), variance)[0] for kl in (ours, theirs)), **EXACT)


@pytest.mark.parametrize("bad", range(4))
def test_not_a_number_goes_through(bad):
    inputs = [torch.zeros(3), torch.zeros(3), torch.zeros(3), torch.ones(3)]
    inputs[bad][1] = math.nan
    kl = kl_divergence(AdditiveNormal(*inputs[:2]), dist.Normal(*inputs[2:], validate_args=False))
    assert kl.isnan().tolist() == [False, True, False]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("q", [AdditiveNormal, MultiplicativeNormal])
def test_event_dimensions_are_summed(q):
    q, p = q(torch.randn(5, 4, 3), torch.randn(5, 4, 3)), CentredNormal(torch.rand(5, 4, 3) + 0.1)
    elementwise = kl_divergence(q, p)
    assert_close(kl_divergence(q.to_event(2), p.to_event(2)), elementwise.sum((1, 2)), **EXACT)
    assert_close(kl_divergence(q.to_event(1).to_event(2), p.to_event(3)), elementwise.sum(), **EXACT)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("batched", [(0, None, None), (None, 0, None), (0, 0, None), (0, 0, 0)], ids=str)
def test_vmap_and_its_gradients_equal_a_loop(batched):
    def kl(loc, log_var, variance):
        return kl_divergence(AdditiveNormal(loc, log_var), CentredNormal(variance)).sum()

    inputs = [torch.randn(5, 3) if dim == 0 else torch.randn(3) for dim in batched]
    inputs[2] = inputs[2].exp()
    for function in (kl, *(grad(kl, argnum) for argnum in range(3))):
        each = [function(*(x if dim is None else x[i] for x, dim in zip(inputs, batched, strict=True))) for i in range(5)]
        assert_close(vmap(function, batched)(*inputs), torch.stack(each))


@pytest.mark.usefixtures("float64")
def test_jacobian_is_diagonal():
    loc, log_var, scale = torch.randn(4), torch.randn(4), torch.rand(4) + 0.5
    zero = torch.zeros(4)
    found = jacrev(additive_kl, (0, 1, 3))(loc, log_var, zero, scale)
    variance = log_var.exp()
    expected = (loc / scale**2, 0.5 * (variance / scale**2 - 1), (1 - (loc**2 + variance) / scale**2) / scale)
    for ours, diagonal in zip(found, expected, strict=True):
        assert_close(ours, diagonal.diag(), **EXACT)


@pytest.mark.usefixtures("float64")
def test_second_derivatives():
    inputs = tuple(
        value.requires_grad_() for value in (torch.randn(4), torch.randn(4), torch.randn(4), torch.rand(4) + 0.5)
    )
    assert torch.autograd.gradgradcheck(additive_kl, inputs)


# --- the multiplicative form --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("mean", [0.0, 0.7, "some of each"])
def test_multiplicative_kl_equals_the_kl_between_two_normals(mean):
    mean = torch.randn(30) * (torch.arange(30) % 2) if mean == "some of each" else torch.full((30,), mean)
    loc, log_alpha, scale = (torch.randn(30).requires_grad_() for _ in range(3))
    kl = kl_divergence(MultiplicativeNormal(loc, log_alpha), dist.Normal(mean, scale.exp()))
    normal = torch.distributions.Normal
    expected = kl_divergence(normal(loc, (0.5 * log_alpha).exp() * loc.abs()), normal(mean, scale.exp()))
    assert_close(kl, expected, **EXACT)
    leaves = (loc, log_alpha, scale)
    for ours, theirs in zip(*(torch.autograd.grad(k.sum(), leaves) for k in (kl, expected)), strict=True):
        assert_close(ours, theirs, **EXACT)


def test_multiplicative_kl_is_finite_at_a_mean_of_zero():
    loc, log_alpha = torch.zeros(3, requires_grad=True), torch.zeros(1, requires_grad=True)
    kl = kl_divergence(MultiplicativeNormal(loc, log_alpha), CentredNormal(torch.ones(3))).sum()
    assert kl.isfinite()
    assert all(g.isfinite().all() for g in torch.autograd.grad(kl, (loc, log_alpha)))


# --- the excess, and torch's registry -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("float64")
def test_excess_is_the_kl_above_its_minimum():
    second_moment, variance = torch.rand(100) * 3 + 1e-3, torch.rand(100) * 3 + 1e-3
    expected = 0.5 * (second_moment / variance - 1 - torch.log(second_moment / variance))
    assert_close(excess(second_moment / variance), expected, **EXACT)
    assert (excess(second_moment / variance) >= 0).all()


def test_excess_and_its_gradient_are_exactly_zero_at_the_optimum():
    second_moment = torch.logspace(-30, 30, 61, requires_grad=True)
    above = excess(second_moment / second_moment.detach())
    (gradient,) = torch.autograd.grad(above.sum(), second_moment)
    assert (above == 0).all()
    assert (gradient == 0).all()


def test_excess_is_finite_at_a_second_moment_of_zero():
    assert excess(torch.zeros(())).isfinite()


def test_kls_of_other_distributions_are_left_alone():
    q, p = dist.Normal(torch.randn(3), 2.0), dist.Normal(torch.randn(3), 3.0)
    expected = math.log(3 / 2) + (4 + (q.loc - p.loc) ** 2) / 18 - 0.5
    assert_close(kl_divergence(q, p), expected)


@pytest.mark.parametrize("inverse_alpha", [1e-12, 1e-8, 1e-4, 1.0, 1e4])
def test_a_small_kl_keeps_its_digits_at_the_optimum(inverse_alpha):
    """In single precision, where 1 + 1/alpha has lost them."""
    q = AdditiveNormal(torch.tensor([inverse_alpha]).sqrt(), torch.zeros(1))
    kl = kl_divergence(q, CentredNormal(q.second_moment))
    torch.testing.assert_close(kl, collapsed(q.inverse_alpha), rtol=1e-5, atol=0.0)
