"""The beta-prime prior, cut off below a floor where its density is unbounded."""

import math

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy import special, stats
from torch.testing import assert_close

from pyro_vbd.priors import BetaPrime, Horseshoe
from pyro_vbd.priors.beta_prime import beta_prime_variance
from tests.priors.families import Above, FamilyTests, at


class TestBetaPrime(FamilyTests):
    make = BetaPrime
    on = "variance"
    ranges = {"concentration1": (1.0, 10.0), "concentration0": (0.3, 10.0), "scale": (1e-3, 1e2)}
    beside = {"floor": 1e-6}

    def density(self, concentration1=1.0, concentration0=0.5, scale=1.0, floor=None):
        return stats.betaprime(concentration1, concentration0, scale=scale**2)

    def log_marginal(self, w, concentration1, concentration0, scale):
        a, b, z = concentration1, concentration0, 0.5 * (w / scale) ** 2
        with np.errstate(divide="ignore"):
            tricomi = np.log(special.hyperu(b + 0.5, 1.5 - a, z))
        constant = special.gammaln(b + 0.5) - special.betaln(a, b) - 0.5 * math.log(2 * math.pi) - math.log(scale)
        return constant + tricomi


class TestBetaPrimeAboveAFloor(FamilyTests):
    make = BetaPrime
    on = "variance"
    ranges = {"concentration1": (0.1, 0.9), "concentration0": (0.3, 10.0), "scale": (1e-2, 1e2)}
    numbers = ("floor",)
    defaults = {"concentration1": 0.5, "floor": 1e-6}

    def draw(self, rng):
        return {**super().draw(rng), "floor": 10 ** rng.uniform(-8, -4)}

    def density(self, concentration1, concentration0=0.5, scale=1.0, floor=None):
        return Above(stats.betaprime(concentration1, concentration0, scale=scale**2), floor)


def test_concentration_one_and_a_large_scale_are_variational_bayesian_dropout(float64):
    total, n = 10 ** torch.linspace(-8, 3, 12), torch.arange(1.0, 13)
    assert_close(beta_prime_variance(at(BetaPrime(1.0, 0.5, 1e12)), total, n), total / n, rtol=1e-12, atol=0)


def test_halves_are_the_horseshoe_with_its_density_on_the_variance(float64):
    """p(gamma) = p(lambda) dlambda/dgamma at lambda = sqrt(gamma), and a mass of nearly one above the floor."""
    gamma = 10 ** torch.linspace(-4, 3, 12)
    on_variance, on_scale = at(BetaPrime(0.5, 0.5, 0.3, floor=1e-12)), at(Horseshoe(0.3))
    jacobian = -(2 * gamma.sqrt()).log()
    assert_close(on_variance.log_prob(gamma), on_scale.log_prob(gamma.sqrt()) + jacobian, rtol=0, atol=1e-5)


@pytest.mark.parametrize("concentration1", [0.5, dist.Gamma(2.0, 1.0)], ids=str)
def test_an_unbounded_density_is_refused_with_the_reason(concentration1):
    with pytest.raises(ValueError, match=r"BetaPrime\(concentration1=.*unbounded at 0.*without a lower bound.*pass floor="):
        BetaPrime(concentration1)
    BetaPrime(concentration1, floor=1e-8)
