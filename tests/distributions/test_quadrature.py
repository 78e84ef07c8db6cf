"""Integrals over the line against those that are known, wherever the peak lies and however wide it is."""

import math

import pytest
import torch
from scipy import stats
from torch.testing import assert_close

from pyro_vbd.distributions.quadrature import grid

LINE = torch.float64


def normals(device=None):
    """Peaks of several places and widths, in a tensor of two dimensions."""
    loc = torch.tensor([[0.0, -250.0, 120.0], [1e-3, 30.0, -7.0]], dtype=LINE)
    scale = torch.tensor([[1.0, 1e-3, 3.0], [8.0, 1e-5, 0.2]], dtype=LINE)
    return loc, scale


def test_gaussians_of_any_place_and_width():
    loc, scale = normals()
    curve = grid(lambda x: -0.5 * ((x - loc) / scale).square() + 7.0, loc)
    assert curve.x.shape == curve.log_f.shape == (160, 2, 3)
    assert_close(curve.log_integral(), scale.log() + 0.5 * math.log(2 * math.pi) + 7.0, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("size", [-1e4, 0.0, 1e4])
def test_the_size_of_the_integrand_is_of_no_consequence(size):
    curve = grid(lambda x: size - 0.5 * x.square(), torch.zeros((), dtype=LINE))
    assert_close(curve.log_integral().item() - size, 0.5 * math.log(2 * math.pi), rtol=0, atol=1e-8)


def test_expectations():
    loc, scale = normals()
    curve = grid(lambda x: -0.5 * ((x - loc) / scale).square(), loc)
    small = torch.tensor(1e-2, dtype=LINE)
    assert_close(
        curve.expectation(small * curve.x), (small * loc + 0.5 * (small * scale).square()).exp(), rtol=1e-9, atol=0
    )


@pytest.mark.parametrize("skew", [-0.5, 0.5, 20.0, 5000.0])
def test_tails_that_fall_at_different_rates(skew):
    """exp(a x - e^x) is the density of the logarithm of a gamma variable; its integral is Gamma(a)."""
    a = abs(skew)
    sign = math.copysign(1.0, skew)
    curve = grid(lambda x: a * sign * x - (sign * x).exp(), torch.zeros((), dtype=LINE))
    assert_close(curve.log_integral().item(), math.lgamma(a), rtol=1e-6, atol=1e-6)


def test_heavy_tails():
    """A half-Cauchy scale on its logarithm: tails that fall as e^-|x|."""
    curve = grid(lambda x: x - torch.log1p((2 * x).exp()), torch.zeros((), dtype=LINE), 1000)
    assert_close(curve.log_integral().item(), math.log(math.pi / 2), rtol=0, atol=1e-8)


@pytest.mark.parametrize("rate", [0.0, 0.01, -0.01])
def test_an_integrand_that_does_not_fall_off_has_no_integral(rate):
    curve = grid(lambda x: rate * x, torch.zeros(2, dtype=LINE))
    assert curve.log_integral().isnan().all()
    half = grid(lambda x: -x.clamp_min(0.0), torch.zeros((), dtype=LINE))  # on one side only
    assert half.log_integral().isnan()
    slow = grid(lambda x: -x.abs() / 30, torch.zeros((), dtype=LINE))  # e^-10 is left where it ends
    assert slow.log_integral().isnan()


def test_one_bad_integrand_among_good_ones():
    bad = torch.tensor([False, True, False])
    curve = grid(lambda x: torch.where(bad, torch.zeros_like(x), -0.5 * x.square()), torch.zeros(3, dtype=LINE))
    assert torch.equal(curve.log_integral().isnan(), bad)


def test_values_that_overflow_count_as_nothing():
    """exp(-e^x) beyond the largest number, and a NaN far out, as the densities have them."""
    curve = grid(lambda x: torch.where(x.abs() > 200, math.nan, -x.exp() + x), torch.zeros((), dtype=LINE))
    assert_close(curve.log_integral().item(), 0.0, rtol=0, atol=1e-9)


@pytest.mark.parametrize("shape", [(), (4,), (4, 2, 3)], ids=str)
def test_quantiles_against_scipy(shape):
    loc, scale = normals()
    curve = grid(lambda x: -0.5 * ((x - loc) / scale).square(), loc, 1000)
    p = torch.rand(shape, dtype=LINE) if len(shape) > 1 else torch.rand((*shape, 1, 1), dtype=LINE)
    found = curve.quantile(p)
    expected = stats.norm(loc.cpu(), scale.cpu()).ppf(p.cpu())
    assert found.shape == expected.shape == torch.broadcast_shapes(p.shape, (2, 3))
    assert ((found.cpu() - torch.tensor(expected)).abs() / scale.cpu()).max() < 2e-3


def test_quantiles_of_a_scalar_integral_and_the_ends():
    curve = grid(lambda x: -0.5 * x.square(), torch.zeros((), dtype=LINE), 1000)
    p = torch.tensor([0.0, 1e-6, 0.5, 1.0 - 1e-6, 1.0], dtype=LINE)
    found = curve.quantile(p)
    assert found.isfinite().all()
    assert (found.diff() > 0).all()
    assert_close(found[1:4].cpu(), torch.tensor(stats.norm.ppf(p[1:4].cpu())), rtol=0, atol=2e-3)


def test_gradients_of_the_logarithm():
    """d/da log Gamma(a) is the digamma function: the nodes may be held fixed."""
    a = torch.tensor([0.5, 2.0, 30.0], dtype=LINE, requires_grad=True)
    value = grid(lambda x: a * x - x.exp(), a.detach()).log_integral()
    (slope,) = torch.autograd.grad(value.sum(), a)
    assert_close(value.detach(), torch.lgamma(a.detach()), rtol=1e-6, atol=1e-6)
    assert_close(slope, torch.digamma(a.detach()), rtol=1e-5, atol=1e-6)


def test_quantiles_of_integrals_by_their_numbers():
    loc, scale = normals()
    curve = grid(lambda x: -0.5 * ((x - loc) / scale).square(), loc, 1000)
    p = torch.tensor([[1e-9, 0.1, 0.5, 0.999], [0.3, 0.7, 1.0 - 1e-9, 0.5]], dtype=LINE)
    number = torch.tensor([[0, 5, 1, 2], [3, 3, 4, 5]])
    found = curve.quantiles()(p, number)
    where, width = loc.flatten()[number], scale.flatten()[number]
    expected = torch.as_tensor(stats.norm.ppf(p.cpu().numpy()), device=p.device)
    assert_close((found - where) / width, expected, rtol=1e-4, atol=1e-4)


def test_an_integral_that_there_is_none_of_has_no_quantile_and_leaves_the_others_theirs():
    slope = torch.tensor([1.0, 0.0, 2.0], dtype=LINE)
    curve = grid(lambda x: -0.5 * slope * x.square(), slope, 1000)
    found = curve.quantile(torch.tensor([[0.5], [0.975]], dtype=LINE))
    assert found[:, 1].isnan().all()
    assert_close(found[:, [0, 2]], torch.tensor([[0.0, 0.0], [1.95996, 1.38590]], dtype=LINE), rtol=0, atol=1e-4)
