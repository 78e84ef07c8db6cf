"""The registry of what the exact posterior of a scale has in closed form."""

import math

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy import integrate

from pyro_vbd.priors import find_evidence, register_evidence
from pyro_vbd.priors.evidence import conjugate_evidence


class Ours(dist.Weibull):
    pass


class Theirs(Ours):
    pass


pytestmark = pytest.mark.usefixtures("registries")


def test_the_decorator_registers_and_returns_the_function():
    @register_evidence(Ours, "precision")
    def pair(hyperprior, sum_of_squares, count):
        return sum_of_squares, count

    assert find_evidence(Ours, "precision") is pair
    assert pair(None, 6.0, 3.0) == (6.0, 3.0)
    assert find_evidence(Ours, "variance") is None
    assert find_evidence(dist.Weibull, "precision") is None


def test_subclasses_inherit_and_the_nearest_counts():
    register_evidence(Ours, "scale")(len)
    assert find_evidence(Theirs, "scale") is len
    register_evidence(Theirs, "scale")(abs)
    assert find_evidence(Theirs, "scale") is abs
    assert find_evidence(Ours, "scale") is len


def test_an_unknown_role_is_refused():
    with pytest.raises(ValueError, match=r"on='std'.*variance, scale, precision"):
        register_evidence(Ours, "std")


@pytest.mark.parametrize("seed", range(5))
def test_the_conjugate_pair_against_quadrature(seed):
    """Z is the integral of Gamma(tau; a, b) tau^(n/2) exp(-S tau / 2), and E[tau] its mean."""
    rng = np.random.default_rng(seed)
    (a, b, total), n = 10 ** rng.uniform(-1, 1, 3), float(rng.choice([1, 3, 8]))

    def integrand(tau, power):
        return b**a / math.gamma(a) * tau ** (a - 1 + 0.5 * n + power) * math.exp(-(b + 0.5 * total) * tau)

    size, more = (integrate.quad(integrand, 0, np.inf, args=(power,), epsabs=0)[0] for power in (0, 1))
    found = conjugate_evidence(*(torch.tensor(v).double() for v in (a, b, total)), n)
    np.testing.assert_allclose([found[0].item(), found[1].item()], [math.log(size), more / size], rtol=1e-7)
