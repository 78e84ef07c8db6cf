"""The normal-gamma prior: a Gaussian with a gamma variance, cut off below a floor where its density is unbounded."""

import math

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch.testing import assert_close

from pyro_vbd.priors import Laplace, Learned, NormalGamma
from pyro_vbd.priors.laplace import exponential_variance
from pyro_vbd.priors.normal_gamma import gamma_variance
from tests.priors.families import Above, FamilyTests, at


class TestNormalGamma(FamilyTests):
    make = NormalGamma
    on = "variance"
    ranges = {"concentration": (1.0, 10.0), "rate": (1e-3, 1e3)}
    beside = {"floor": 1e-6}

    def density(self, concentration, rate, floor=None):
        return stats.gamma(concentration, scale=1 / rate)

    def log_marginal(self, w, concentration, rate):
        k, z = concentration, np.sqrt(2 * rate) * w
        bessel = np.log(special.kve(k - 0.5, z)) - z
        constant = k * math.log(rate) - special.gammaln(k) + 0.5 * math.log(2 / math.pi)
        return constant + 0.5 * (k - 0.5) * np.log(w**2 / (2 * rate)) + bessel


class TestNormalGammaAboveAFloor(FamilyTests):
    make = NormalGamma
    on = "variance"
    ranges = {"concentration": (0.1, 0.9), "rate": (1e-3, 1e3)}
    numbers = ("floor",)
    defaults = {"concentration": 0.3, "floor": 1e-6}

    def draw(self, rng):
        return {**super().draw(rng), "floor": 10 ** rng.uniform(-8, -3)}

    def density(self, concentration, rate=0.5, floor=None):
        return Above(stats.gamma(concentration, scale=1 / rate), floor)


def test_concentration_one_is_laplace(float64):
    total, n = 10 ** torch.linspace(-8, 3, 12), torch.arange(1.0, 13)
    ours, theirs = at(NormalGamma(1.0, 0.5 / 0.3**2)), at(Laplace(0.3))
    assert_close(gamma_variance(ours, total, n), exponential_variance(theirs, total, n))
    assert_close(ours.log_prob(total), theirs.log_prob(total))


def test_a_small_rate_is_variational_bayesian_dropout(float64):
    total, n = 10 ** torch.linspace(-8, 3, 12), torch.arange(1.0, 13)
    assert_close(gamma_variance(at(NormalGamma(1.0, 1e-20)), total, n), total / n, rtol=1e-12, atol=0)


@pytest.mark.parametrize("concentration", [0.5, Learned(2.0)], ids=str)
def test_an_unbounded_density_is_refused_with_the_reason(concentration):
    with pytest.raises(
        ValueError, match=r"NormalGamma\(concentration=.*unbounded at 0.*without a lower bound.*pass floor="
    ):
        NormalGamma(concentration)
    NormalGamma(concentration, floor=1e-8)
