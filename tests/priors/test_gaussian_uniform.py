"""The paper's prior, and the optimum of its gamma: eq. (16), clipped into the support."""

import math

import numpy as np
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from scipy import special, stats
from torch.testing import assert_close

from pyro_vbd.distributions import base_distribution
from pyro_vbd.priors import GaussianUniform, find_optimum
from pyro_vbd.priors.gaussian_uniform import clipped_second_moment, uniform_evidence
from tests.priors.families import FamilyTests


class TestGaussianUniform(FamilyTests):
    make = GaussianUniform
    on = "variance"
    ranges = {}
    numbers = ("high",)

    def draw(self, rng):
        return {"low": rng.choice([0.0, 10 ** rng.uniform(-5, -2)]), "high": 10 ** rng.uniform(-1, 4)}

    def density(self, low=0.0, high=1e3):
        return stats.uniform(low, high - low)

    def log_marginal(self, w, low, high):
        """The integral of N(w; 0, gamma) from 0 to x is sqrt(2 x / pi) exp(-z^2) - |w| erfc(z), z = |w| / sqrt(2 x)."""
        parts = []
        for x in (high, max(low, 1e-300)):
            z = w / np.sqrt(2 * x)
            parts.append(np.exp(-(z**2)) * (np.sqrt(2 * x / np.pi) - w * special.erfcx(z)))
        return np.log((parts[0] - parts[1]) / (high - low))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_statements(dtype, device):
    init = torch.randn(4, 3, dtype=dtype)
    trace = poutine.trace(GaussianUniform(0.25, 4.0).sample).get_trace("w", init)
    assert trace.stochastic_nodes == ["w_gamma", "w"]
    gamma, weight = trace.nodes["w_gamma"], trace.nodes["w"]
    hyperprior = base_distribution(gamma["fn"])
    assert isinstance(hyperprior, dist.Uniform)
    assert_close(hyperprior.low.expand(4, 3), init.new_full((4, 3), 0.25))
    assert_close(hyperprior.high.expand(4, 3), init.new_full((4, 3), 4.0))
    assert_close(base_distribution(weight["fn"]).variance, gamma["value"])  # the density stands on the variance
    assert gamma["value"].dtype == weight["value"].dtype == dtype
    assert gamma["value"].device.type == device.type
    assert weight["infer"]["init"] is init


def test_gamma_is_uniform():
    gamma = poutine.trace(GaussianUniform(1.0, 4.0).sample).get_trace("w", torch.zeros(20_000)).nodes["w_gamma"]["value"]
    assert gamma.min() >= 1
    assert gamma.max() < 4
    assert abs((gamma.mean() - 2.5) / (3 / 12**0.5) * 20_000**0.5) < 4


@pytest.mark.parametrize(
    ("low", "high"),
    [(-1.0, 1.0), (1.0, 1.0), (2.0, 1.0), (0.0, 0.0), (0.0, math.inf), (math.nan, 1.0), (0.0, math.nan), (False, 1.0)],
)
def test_an_interval_of_variances_is_asked_for(low, high):
    with pytest.raises(ValueError, match="no interval of variances"):
        GaussianUniform(low, high)


def test_repr_and_defaults():
    assert repr(GaussianUniform()) == "GaussianUniform(low=0, high=1000)"


# --- the optimum ---------------------------------------------------------------------------------------------------------


def uniform(low, high, dtype=torch.float32):
    return dist.Uniform(torch.tensor(low, dtype=dtype), torch.tensor(high, dtype=dtype), validate_args=True)


def test_the_optimum_is_registered_for_the_variance_alone():
    assert find_optimum(dist.Uniform, "variance") is clipped_second_moment
    assert find_optimum(dist.Uniform, "scale") is None
    assert find_optimum(dist.Uniform, "precision") is None


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("count", [1.0, 5.0, "a tensor"])
def test_the_optimum_is_the_argmin_of_j(count):
    n = torch.tensor([1.0, 2.0, 7.0, 40.0]) if count == "a tensor" else torch.full((4,), count)
    sum_of_squares = torch.tensor([0.003, 0.7, 30.0, 1000.0])
    low, high = 0.01, 10.0
    log_gamma = torch.linspace(math.log(low), math.log(high), 200_001)[:, None]
    j = 0.5 * n * log_gamma + 0.5 * sum_of_squares / log_gamma.exp()
    expected = log_gamma[j.argmin(0)].exp().squeeze(1)
    found = clipped_second_moment(uniform(low, high, torch.float64), sum_of_squares, n if count == "a tensor" else count)
    assert_close(found, expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("low", "high"), [(0.0, 1e3), (0.5, 2.0), (0.0, 1e-6), (1e3, 1001.0)])
@pytest.mark.parametrize("count", [1.0, 8.0, "a tensor"])
def test_the_optimum_stays_in_the_half_open_support(dtype, low, high, count):
    sums = torch.tensor([0.0, 1e-45, 1e-30, 0.5 * low, low, 0.5 * (low + high), high, 2 * high, 1e30], dtype=dtype)
    n = torch.arange(1, 10, dtype=dtype) if count == "a tensor" else count
    prior = uniform(low, high, dtype)
    gamma = clipped_second_moment(prior, sums * n, n)
    assert gamma.dtype == dtype
    assert (gamma > 0).all()
    assert gamma.sqrt().square().log().isfinite().all()
    assert prior.log_prob(gamma).isfinite().all()  # validation would refuse what is outside
    assert_close(gamma[5], torch.tensor(0.5 * (low + high), dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_optimum_of_a_dead_weight_is_a_scale_that_a_normal_takes(dtype):
    gamma = clipped_second_moment(uniform(0.0, 1e3, dtype), torch.zeros(3, dtype=dtype), 1.0)
    assert (gamma == torch.finfo(dtype).tiny).all()
    dist.Normal(torch.zeros((), dtype=dtype), gamma.sqrt(), validate_args=True)


def test_a_group_of_none_has_an_optimum_too():
    prior = uniform(0.5, 2.0)
    gamma = clipped_second_moment(prior, torch.tensor([0.0, 3.0]), torch.tensor([0.0, 3.0]))
    assert prior.log_prob(gamma).isfinite().all()
    assert_close(gamma[1].item(), 1.0)


def test_bounds_of_each_group():
    prior = dist.Uniform(torch.tensor([0.0, 2.0, 0.0]), torch.tensor([9.0, 9.0, 0.5]))
    assert_close(clipped_second_moment(prior, torch.ones(3), 1.0), torch.tensor([1.0, 2.0, 0.5]))


def test_the_evidence_of_a_weight_far_below_the_lower_bound():
    r"""As S goes to 0, E[1/gamma] goes to 1/sqrt(ab), and Z to 2 (sqrt(b) - sqrt(a)) / (b - a)."""
    low, high = torch.tensor(1e-6, dtype=torch.float64), torch.tensor(1e-2, dtype=torch.float64)
    total = torch.tensor([1e-12, 1e-20, 1e-38, 1e-60, 1e-300], dtype=torch.float64)
    log_z, precision = uniform_evidence(dist.Uniform(low, high, validate_args=False), total, 1.0)
    assert_close(precision, torch.full_like(total, 1e4), rtol=1e-5, atol=0)
    expected = (2 * (high.sqrt() - low.sqrt()) / (high - low)).log()
    assert_close(log_z, expected.expand(5), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("total", "low", "closed"), [(1.0, 0.0, True), (1.0, 0.5, True), (2880.0, 0.0, False), (1.0, 1.999, False)]
)
def test_the_evidence_is_closed_but_where_digits_would_be_lost(total, low, closed):
    for part in uniform_evidence(uniform(low, 2.0, torch.float64), torch.tensor([total], dtype=torch.float64), 1.0):
        assert part.isfinite() == closed
