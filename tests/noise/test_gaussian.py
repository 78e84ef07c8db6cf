import math

import pytest
import torch

from pyro_vbd.noise import GaussianNoise

N = 40_000


@pytest.mark.parametrize("p", [0.2, 0.5, 0.8])
def test_noise_has_the_mean_and_variance_of_binary_dropout(p):
    x = torch.full((N,), 2.0, dtype=torch.float64)
    noisy = GaussianNoise(p)(x)
    variance = 4.0 * p / (1 - p)  # that of x * Bernoulli(1 - p) / (1 - p)
    assert abs(float(noisy.mean()) - 2.0) < 4 * math.sqrt(variance / N)
    assert abs(float(noisy.var()) - variance) < 4 * variance * math.sqrt(2 / N)


def test_units_have_noise_of_their_own():
    noisy = GaussianNoise(0.5)(torch.ones(N, 2, dtype=torch.float64)) - 1
    assert abs(float((noisy[:, 0] * noisy[:, 1]).mean())) < 4 / math.sqrt(N)


def test_evaluation_and_rate_zero_leave_the_input():
    x = torch.randn(5, 3)
    assert GaussianNoise(0.5).eval()(x) is x
    assert GaussianNoise(0.0)(x) is x


@pytest.mark.parametrize("p", [-0.1, 1.0, math.nan])
def test_a_rate_that_is_none(p):
    with pytest.raises(ValueError, match="no dropout rate"):
        GaussianNoise(p)
