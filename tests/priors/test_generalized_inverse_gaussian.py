"""A generalised inverse Gaussian variance, between the gamma and the inverse gamma."""

import math
from types import SimpleNamespace

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy import special
from torch.testing import assert_close

from pyro_vbd.priors import GeneralizedInverseGaussian, Learned
from pyro_vbd.priors.generalized_inverse_gaussian import generalized_inverse_gaussian_variance
from pyro_vbd.priors.normal_gamma import gamma_variance
from pyro_vbd.priors.student_t import inverse_gamma_variance
from tests.priors.families import FamilyTests, at


class Gig:
    """Its density by scipy's Bessel function (scipy.stats.geninvgauss integrates anew for each number of its cdf)."""

    def __init__(self, order, rate, inverse_rate):
        self.p, self.a, self.b = order, rate, inverse_rate

    def logpdf(self, x):
        omega = np.sqrt(self.a * self.b)
        log_k = np.log(special.kve(self.p, omega)) - omega
        constant = 0.5 * self.p * np.log(self.a / self.b) - np.log(2) - log_k
        return constant + (self.p - 1) * np.log(x) - 0.5 * (self.a * x + self.b / x)

    def cdf(self, x):
        grid = np.linspace(-40, 20, 20_001)
        with np.errstate(over="ignore"):
            density = np.exp(self.logpdf(np.exp(grid)) + grid)
        return np.interp(np.log(x), grid[1:], np.cumsum(0.5 * (density[1:] + density[:-1]) * np.diff(grid)))

    def support(self):
        return 0.0, np.inf


class TestGeneralizedInverseGaussian(FamilyTests):
    make = GeneralizedInverseGaussian
    on = "variance"
    ranges = {"rate": (1e-2, 1e2), "inverse_rate": (1e-6, 1e1)}

    def draw(self, rng):
        return {**super().draw(rng), "order": rng.uniform(-3, 3)}

    def density(self, rate, inverse_rate, order):
        return Gig(order, rate, inverse_rate)

    def log_marginal(self, w, rate, inverse_rate, order):
        """The symmetric generalised hyperbolic density."""
        p, a, b = order - 0.5, rate, inverse_rate + w**2
        omega = np.sqrt([a * inverse_rate, *(a * b)])
        log_k = np.log(special.kve([order, *(p for _ in w)], omega)) - omega
        return 0.5 * (order * np.log(a / inverse_rate) - p * np.log(a / b) - math.log(2 * math.pi)) + log_k[1:] - log_k[0]


def test_its_ends_are_the_gamma_and_the_inverse_gamma(float64):
    total, n = 10 ** torch.linspace(-8, 3, 12), torch.arange(1.0, 13)
    gamma = dist.Gamma(torch.tensor(1.5), torch.tensor(0.35))
    found = generalized_inverse_gaussian_variance(at(GeneralizedInverseGaussian(1.5, 0.7, 1e-25)), total, n)
    assert_close(found, gamma_variance(gamma, total, n))
    inverse_gamma = SimpleNamespace(concentration=torch.tensor(1.5), rate=torch.tensor(0.35))
    found = generalized_inverse_gaussian_variance(at(GeneralizedInverseGaussian(-1.5, 1e-25, 0.7)), total, n)
    assert_close(found, inverse_gamma_variance(inverse_gamma, total, n))


@pytest.mark.parametrize("order", [math.nan, math.inf, True, "1", None, Learned(1.0), torch.ones(3)], ids=str)
def test_an_order_that_is_no_number_is_refused(order):
    with pytest.raises(ValueError, match=r"GeneralizedInverseGaussian\(order=.*no power of gamma"):
        GeneralizedInverseGaussian(order)
