"""Distributions on the positive line against scipy's."""

import math

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy import special, stats
from torch.testing import assert_close

from pyro_vbd.distributions import positive
from pyro_vbd.distributions.positive import log_bessel_k
from pyro_vbd.distributions.truncated import Truncated


def tensor(values, dtype=torch.float64):
    return torch.tensor(np.asarray(values), dtype=dtype)


def gig(p, a, b):
    return stats.geninvgauss(p, math.sqrt(a * b), scale=math.sqrt(b / a))


class HalfT:
    def __init__(self, df, scale):
        self.whole = stats.t(df, scale=scale)

    def logpdf(self, x):
        return math.log(2) + self.whole.logpdf(x)

    def cdf(self, x):
        return 2 * self.whole.cdf(x) - 1

    def support(self):
        return 0.0, np.inf


class Above:
    def __init__(self, base, floor):
        self.base, self.floor = base, floor

    def logpdf(self, x):
        return np.where(x < self.floor, -np.inf, self.base.logpdf(x) - self.base.logsf(self.floor))

    def cdf(self, x):
        return 1 - self.base.sf(x) / self.base.sf(self.floor)


def truncated_gamma(k, rate, floor):
    return Truncated(dist.Gamma(k, rate), floor, validate_args=False)


#: The distribution, scipy's, and where each parameter is drawn from (its logarithm, or the number itself).
CASES = {
    "HalfStudentT": (positive.HalfStudentT, HalfT, [(-1, 1.5), (-3, 3)]),
    "BetaPrime": (
        positive.BetaPrime,
        lambda a, b, s: stats.betaprime(a, b, scale=s),
        [(-0.5, 1), (-0.5, 1), (-3, 3)],
    ),
    "GIG": (positive.GeneralizedInverseGaussian, gig, [None, (-2, 2), (-3, 1)]),
    "Reciprocal": (positive.Reciprocal, stats.loguniform, [(-8, -2), (-1, 4)]),
    "Truncated": (
        truncated_gamma,
        lambda k, r, f: Above(stats.gamma(k, scale=1 / r), f),
        [(-1, 1), (-1, 1), (-5, -1)],
    ),
}
EVERY = pytest.mark.parametrize("name", CASES)


def draw(name, rng):
    return [rng.uniform(-3, 3) if ends is None else 10 ** rng.uniform(*ends) for ends in CASES[name][2]]


def make(name, parameters, dtype=torch.float64):
    return CASES[name][0](*(tensor(p, dtype) for p in parameters))


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_prob(name, dtype):
    rng = np.random.default_rng(0)
    for _ in range(10):
        parameters = draw(name, rng)
        theirs = CASES[name][1](*parameters)
        x = 10 ** rng.uniform(-4, 3, 15)
        x = np.clip(x, *parameters) if name == "Reciprocal" else x
        found = make(name, parameters, dtype).log_prob(tensor(x, dtype))
        assert found.dtype == dtype
        tolerance = 1e-7 if dtype == torch.float64 else 3e-4
        np.testing.assert_allclose(found.cpu().double(), theirs.logpdf(x), rtol=tolerance, atol=tolerance)


@EVERY
def test_draws(name):
    rng = np.random.default_rng(1)
    for _ in range(2):
        parameters = draw(name, rng)
        draws = make(name, parameters).sample((1000,))
        assert draws.shape == (1000,)
        assert stats.kstest(draws.cpu().numpy(), CASES[name][1](*parameters).cdf).pvalue > 1e-4


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes(name, dtype, device):
    rng = np.random.default_rng(2)
    rows = [draw(name, rng) for _ in range(3)]
    batch = make(name, list(zip(*rows, strict=True)), dtype)
    wide = batch.expand(torch.Size((4, 3)))
    assert batch.batch_shape == (3,)
    assert wide.batch_shape == (4, 3)
    assert batch.event_shape == wide.event_shape == ()
    x = wide.sample((5,))
    assert x.shape == (5, 4, 3)
    assert x.dtype == dtype
    assert x.device.type == device.type
    assert wide.support.check(x).all()
    assert (x > 0).all()
    alone = torch.stack([make(name, row, dtype).log_prob(x[..., i]) for i, row in enumerate(rows)], -1)
    assert_close(wide.log_prob(x), alone)
    assert len(wide.sample().unique()) == 12  # each its own draw


@EVERY
def test_gradients_of_the_density(name):
    """In the value and in each parameter, against central differences."""
    parameters = draw(name, np.random.default_rng(3))
    x = float(np.clip(1.3, *parameters)) if name == "Reciprocal" else 1.3
    leaves = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (x, *parameters)]
    grads = torch.autograd.grad(CASES[name][0](*leaves[1:]).log_prob(leaves[0]), leaves)
    for i, (leaf, grad) in enumerate(zip(leaves, grads, strict=True)):
        if name == "Truncated" and i == 3:
            continue  # the floor is a number
        step = 1e-5 * abs(leaf.item())
        ends = []
        for sign in (1, -1):
            moved = [leaf.detach() + sign * step * (i == j) for j, leaf in enumerate(leaves)]
            ends.append(CASES[name][0](*moved[1:]).log_prob(moved[0]).item())
        np.testing.assert_allclose(grad.item(), (ends[0] - ends[1]) / (2 * step), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["HalfStudentT", "BetaPrime", "Reciprocal"])
def test_reparameterised_draws_follow_the_scale(name):
    """A draw is the scale times a draw of scale 1: its derivative is draw / scale."""
    scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    two = torch.tensor(2.0, dtype=torch.float64)
    fn = {
        "HalfStudentT": lambda: positive.HalfStudentT(two, scale),
        "BetaPrime": lambda: positive.BetaPrime(two, two, scale),
        "Reciprocal": lambda: positive.Reciprocal(scale, 10 * scale),
    }[name]()
    assert fn.has_rsample
    x = fn.rsample()
    (slope,) = torch.autograd.grad(x, scale)
    assert_close(slope, x.detach() / 0.7)


@pytest.mark.parametrize(
    ("make_it", "parameter"),
    [
        (lambda v: positive.HalfStudentT(v, torch.tensor(1.0), validate_args=True), "df"),
        (lambda v: positive.BetaPrime(torch.tensor(1.0), v, torch.tensor(1.0), validate_args=True), "concentration0"),
        (lambda v: positive.GeneralizedInverseGaussian(v, v, torch.tensor(1.0), validate_args=True), "rate"),
        (lambda v: positive.Reciprocal(v, torch.tensor(1.0), validate_args=True), "low"),
        (lambda v: positive.TwoPoint(torch.tensor(1.0), v, torch.tensor(0.5), validate_args=True), "high"),
    ],
)
def test_validation(make_it, parameter):
    with pytest.raises(ValueError, match=parameter):
        make_it(torch.tensor(-1.0))


@pytest.mark.parametrize("name", ["HalfStudentT", "BetaPrime", "GIG", "Reciprocal"])
def test_values_outside_the_support_are_refused_under_validation(name):
    """Of a distribution that has been expanded too; and without it they are not looked at."""
    parameters = [tensor(value) for value in draw(name, np.random.default_rng(4))]
    fn = CASES[name][0](*parameters, validate_args=True)
    for each in (fn, fn.expand(torch.Size([3]))):
        with pytest.raises(ValueError, match="support"):
            each.log_prob(tensor(-1.0))
    CASES[name][0](*parameters, validate_args=False).expand(torch.Size([3])).log_prob(tensor(-1.0))


def test_two_points_under_validation():
    fn = positive.TwoPoint(tensor(0.1), tensor(1.0), tensor(0.5), validate_args=True)
    assert fn.log_prob(tensor(0.3)) == -math.inf
    with pytest.raises(ValueError, match="support"):
        fn.log_prob(tensor(-0.3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draws_of_heavy_tails_stay_finite_and_positive(dtype):
    small = torch.full((2000,), 0.02, dtype=dtype)
    x = positive.BetaPrime(small, small, torch.ones_like(small)).sample()
    assert x.isfinite().all()
    assert (x > 0).all()


def test_draws_whose_quotient_overflows_stay_finite():
    small = torch.full((2000,), 0.02)
    x = positive.BetaPrime(torch.full_like(small, 10.0), small, torch.ones_like(small)).sample()
    assert x.isfinite().all()
    assert (x > 1e38).any()


def test_draws_between_close_bounds_lie_between_them():
    low = torch.rand(1000) + 0.1
    fn = positive.Reciprocal(low, torch.nextafter(low, 2 * low))
    assert fn.support.check(fn.sample((100,))).all()


# --- two points ----------------------------------------------------------------------------------------------------------


def test_two_points():
    fn = positive.TwoPoint(tensor(0.1), tensor(4.0), tensor(0.3)).expand(torch.Size((2, 3)))
    x = fn.sample((4000,))
    assert x.shape == (4000, 2, 3)
    assert set(x.unique().tolist()) == {0.1, 4.0}
    assert abs((x == 4.0).double().mean() - 0.3) < 4 * math.sqrt(0.21 / x.numel())
    values = tensor([0.1, 4.0, 1.0])
    found = positive.TwoPoint(tensor(0.1), tensor(4.0), tensor(0.3)).log_prob(values)
    assert_close(found, tensor([math.log(0.7), math.log(0.3), -math.inf]))


@pytest.mark.parametrize("shape", [(), (2, 3)])
def test_both_points_are_listed(shape):
    fn = positive.TwoPoint(tensor(0.1), tensor(4.0), tensor(0.3)).expand(torch.Size(shape))
    ends = tensor([0.1, 4.0])
    assert torch.equal(fn.enumerate_support(), ends.reshape(2, *(1 for _ in shape)).expand(2, *shape))
    assert torch.equal(fn.enumerate_support(expand=False), ends.reshape(2, *(1 for _ in shape)))


# --- Bessel's function ---------------------------------------------------------------------------------------------------


def test_log_bessel_k_against_scipy():
    rng = np.random.default_rng(5)
    order, x = rng.uniform(-60, 60, 60), 10 ** rng.uniform(-5, 3, 60)
    expected = np.log(special.kve(order, x)) - x
    assert np.isfinite(expected).sum() > 50
    keep = np.isfinite(expected)
    np.testing.assert_allclose(log_bessel_k(tensor(order), tensor(x)).cpu()[keep], expected[keep], rtol=1e-7, atol=1e-7)


def test_log_bessel_k_of_large_orders():
    """Debye's expansion, DLMF 10.41.4, to its first term: groups of thousands of weights."""
    order, z = 5000.0, 0.7
    p = 1 / math.sqrt(1 + z**2)
    eta = math.sqrt(1 + z**2) + math.log(z / (1 + math.sqrt(1 + z**2)))
    series = 1 - (3 * p - 5 * p**3) / 24 / order
    expected = 0.5 * math.log(math.pi / (2 * order)) - order * eta - 0.25 * math.log(1 + z**2) + math.log(series)
    assert_close(log_bessel_k(tensor(order), tensor(order * z)).item(), expected, rtol=1e-9, atol=1e-6)


def test_log_bessel_k_is_that_of_the_half_orders():
    """K_1/2(x) = sqrt(pi / 2x) exp(-x), and its derivatives; -1/2 is the same."""
    x = tensor([1e-8, 0.1, 3.0, 700.0]).requires_grad_()
    for order in (0.5, -0.5):
        value = log_bessel_k(torch.full_like(x, order), x)
        assert_close(value.detach(), (0.5 * (math.pi / (2 * x)).log() - x).detach(), rtol=1e-7, atol=1e-7)
        (slope,) = torch.autograd.grad(value.sum(), x)
        assert_close(slope, (-0.5 / x - 1).detach(), rtol=1e-5, atol=1e-6)


def test_log_bessel_k_has_a_gradient_in_the_order():
    order = tensor([-2.0, 0.3, 4.0]).requires_grad_()
    x = tensor([0.5, 1.0, 20.0])
    (slope,) = torch.autograd.grad(log_bessel_k(order, x).sum(), order)
    ends = [np.log(special.kve(order.detach().cpu() + step, x.cpu())) for step in (1e-5, -1e-5)]
    assert_close(slope.cpu(), torch.as_tensor((ends[0] - ends[1]) / 2e-5), rtol=1e-5, atol=1e-6)


def test_log_bessel_k_broadcasts():
    order, x = tensor([[-1.5], [0.0], [7.0]]), tensor([0.2, 3.0])
    expected = np.log(special.kv(order.cpu(), x.cpu()))
    np.testing.assert_allclose(log_bessel_k(order, x).cpu(), expected, rtol=1e-7, atol=1e-7)


def test_log_bessel_k_keeps_the_dtype():
    assert log_bessel_k(torch.tensor(1.0), torch.tensor(2.0)).dtype == torch.float32
