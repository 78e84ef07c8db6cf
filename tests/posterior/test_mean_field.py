"""The two Gaussians against dist.Normal, their draws by z-score, and their gradients where the variance underflows."""

import math

import pyro.distributions as dist
import pytest
import torch
from torch.testing import assert_close

from pyro_vbd.posterior.mean_field import AdditiveNormal, MultiplicativeNormal

FORMS = pytest.mark.parametrize("form", [AdditiveNormal, MultiplicativeNormal])


def plain(q):
    """The Normal of the same mean and variance, from the parameters."""
    log_var = q.log_var if isinstance(q, AdditiveNormal) else q.log_alpha + 2 * q.loc.abs().log()
    return dist.Normal(q.loc, (0.5 * log_var).exp())


@FORMS
@pytest.mark.parametrize("sample", ["sample", "rsample"])
def test_moments_of_draws(form, sample):
    q = form(torch.randn(4, 3) * 2, torch.randn(4, 3))
    n = 10_000
    draws = getattr(q, sample)((n,))
    assert draws.shape == (n, 4, 3)
    mean, scale = q.loc, plain(q).scale
    assert ((draws.mean(0) - mean) / scale * math.sqrt(n)).abs().max() < 4
    assert ((draws.var(0) / scale**2 - 1) * math.sqrt(n / 2)).abs().max() < 4
    correlation = torch.corrcoef(draws.reshape(n, 12).T) - torch.eye(12)
    assert (correlation * math.sqrt(n)).abs().max() < 4.5  # of 66 pairs


@FORMS
def test_draws_have_all_digits_of_their_dtype(form):
    draws = form(torch.ones(10, dtype=torch.float64), torch.zeros(10)).sample()
    assert (draws - 1.0 != (draws - 1.0).float()).all()


@FORMS
def test_gradients_of_draws_are_pathwise(form, float64):
    loc, parameter = torch.randn(5, requires_grad=True), torch.randn(5, requires_grad=True)
    q = form(loc, parameter)
    draw = q.rsample()
    noise = ((draw - loc) / q.scale).detach()
    by_loc, by_parameter = torch.autograd.grad(draw.sum(), (loc, parameter))
    sigma = plain(q).scale
    assert_close(by_parameter, 0.5 * sigma * noise)
    assert_close(by_loc, torch.ones(5) if form is AdditiveNormal else 1 + sigma * noise / loc)


@FORMS
def test_sample_has_no_gradient_and_rsample_has(form):
    q = form(torch.ones(2, requires_grad=True), torch.zeros(2, requires_grad=True))
    assert q.has_rsample
    assert not q.sample().requires_grad
    assert q.rsample().requires_grad


@FORMS
@pytest.mark.parametrize("shapes", [((3, 4), (3, 4)), ((3, 1), (4,)), ((), (4,)), ((4,), ())], ids=str)
def test_is_a_normal_in_every_respect(form, shapes, float64):
    q = form(torch.randn(shapes[0]), torch.randn(shapes[1]))
    p = plain(q)
    assert isinstance(q, dist.Normal)
    assert (q.batch_shape, q.event_shape) == (p.batch_shape, p.event_shape)
    for name in ("mean", "mode", "stddev", "variance", "loc", "scale"):
        assert_close(getattr(q, name), getattr(p, name), msg=lambda m, name=name: f"{name}: {m}")
    value = torch.randn(2, 3, 4) if q.batch_shape == (3, 4) else torch.randn(2, 4)
    assert_close(q.log_prob(value), p.log_prob(value))
    assert_close(q.cdf(value), p.cdf(value))
    assert_close(q.entropy(), p.entropy())
    probability = torch.rand(q.batch_shape)
    assert_close(q.icdf(probability), p.icdf(probability))
    assert q.inverse_alpha.shape == p.batch_shape


@FORMS
def test_expand(form):
    q = form(torch.randn(3, 1), torch.randn(1, 1))
    wide = q.expand(torch.Size([2, 3, 4]))
    assert type(wide) is form
    assert wide.batch_shape == wide.sample().shape == (2, 3, 4)
    for name in ("loc", "scale", "variance", "inverse_alpha", "second_moment"):
        assert_close(getattr(wide, name), getattr(q, name).expand(2, 3, 4))
    assert wide.expand_by([5]).batch_shape == (5, 2, 3, 4)
    assert wide.to_event(2).event_shape == (3, 4)


@FORMS
def test_an_expanded_posterior_computes_nothing_again(form):
    q = form(torch.randn(4), torch.randn(4, requires_grad=True))
    wide = q.expand((1000, 4))
    assert wide.variance.untyped_storage().data_ptr() == q.variance.untyped_storage().data_ptr()
    assert wide.scale.untyped_storage().data_ptr() == q.scale.untyped_storage().data_ptr()
    assert torch.equal(wide.variance[7], q.variance)
    assert wide.variance.requires_grad


@FORMS
def test_draws_of_an_expanded_posterior_are_independent(form):
    draws = form(torch.ones(1), torch.zeros(1)).expand(torch.Size([5])).sample()
    assert len(draws.unique()) == 5


def test_parameters_of_each_form(float64):
    loc, parameter = torch.randn(6), torch.randn(6)
    additive, multiplicative = AdditiveNormal(loc, parameter), MultiplicativeNormal(loc, parameter)
    assert_close(additive.variance, parameter.exp())
    assert_close(additive.inverse_alpha, loc**2 / parameter.exp())
    assert_close(multiplicative.variance, parameter.exp() * loc**2)
    assert_close(multiplicative.inverse_alpha, 1 / parameter.exp())
    for q in (additive, multiplicative):
        assert_close(q.second_moment, loc**2 + q.variance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("log_var", [-1000.0, -200.0, -95.0, -10.0])
def test_inverse_alpha_is_zero_at_a_mean_of_zero(dtype, log_var):
    q = AdditiveNormal(torch.zeros(3, dtype=dtype), torch.tensor(log_var, dtype=dtype))
    assert (q.inverse_alpha == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("loc", [0.0, 1e-30, 0.1])
@pytest.mark.parametrize("log_var", [-1000.0, -200.0, -95.0, -60.0, -10.0])
@pytest.mark.parametrize("what", ["scale", "second_moment", "inverse_alpha", "rsample", "log_prob"])
def test_gradients_are_finite_where_the_variance_underflows(dtype, loc, log_var, what):
    loc = torch.tensor(loc, dtype=dtype, requires_grad=True)
    log_var = torch.tensor(log_var, dtype=dtype, requires_grad=True)
    q = AdditiveNormal(loc, log_var)
    value = {"rsample": q.rsample, "log_prob": lambda: q.log_prob(loc.detach())}.get(what, lambda: getattr(q, what))()
    if what == "inverse_alpha":
        value = value.log1p()
    assert value.isfinite()
    gradients = torch.autograd.grad(value, (loc, log_var), allow_unused=True)
    assert all(g is None or g.isfinite() for g in gradients)


@pytest.mark.parametrize("what", ["scale", "second_moment", "inverse_alpha", "rsample"])
def test_multiplicative_gradients_are_finite_at_a_mean_of_zero(what):
    loc, log_alpha = torch.zeros(3, requires_grad=True), torch.ones(3, requires_grad=True)
    q = MultiplicativeNormal(loc, log_alpha)
    value = q.rsample() if what == "rsample" else getattr(q, what)
    gradients = torch.autograd.grad(value.sum(), (loc, log_alpha), allow_unused=True)
    assert all(g is None or g.isfinite().all() for g in gradients)


@FORMS
def test_what_follows_from_the_parameters_is_computed_once(form):
    q = form(torch.randn(3), torch.randn(3))
    for name in ("variance", "scale", "inverse_alpha"):
        assert getattr(q, name) is getattr(q, name)


def test_the_lazy_variance_keeps_its_gradient_when_first_asked_without_one():
    log_var = torch.zeros(2, requires_grad=True)
    q = AdditiveNormal(torch.zeros(2), log_var)
    with torch.no_grad():
        q.sample()
    assert q.variance.requires_grad


@FORMS
def test_validation_on_request(form):
    wrong = torch.full((2,), torch.nan)
    with pytest.raises(ValueError, match="loc"):
        form(wrong, torch.zeros(2), validate_args=True)
    q = form(torch.ones(2), torch.zeros(2), validate_args=True)
    for each in (q, q.expand(torch.Size([3, 2]))):
        with pytest.raises(ValueError, match="support"):
            each.log_prob(wrong)
    assert form(torch.ones(2), torch.zeros(2)).expand(torch.Size([3, 2])).log_prob(wrong).isnan().all()
