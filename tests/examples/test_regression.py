import math

import pytest
import torch
from measures.regression import LEVELS, coverage, mixture, quantile, scores
from torch.distributions import Normal


def test_one_gaussian_has_the_closed_forms():
    y = torch.randn(50, dtype=torch.float64)
    predictive = mixture(torch.zeros(1, 50), torch.tensor(2.0))
    found = scores(predictive, y)
    assert found["nll"] == pytest.approx(-float(Normal(0.0, 2.0).log_prob(y).mean()))
    assert found["error"] == pytest.approx(float(y.square().mean().sqrt()))
    assert found["width"] == pytest.approx(2 * 1.6448536269514722 * 2.0, rel=1e-6)


def test_the_density_is_the_mean_over_draws_not_the_density_of_the_mean():
    means, scales = torch.tensor([[-3.0], [3.0]]), torch.tensor([[0.5], [1.0]])
    y = torch.tensor([3.0])
    truth = 0.5 * (Normal(-3.0, 0.5).log_prob(y).exp() + Normal(3.0, 1.0).log_prob(y).exp())
    assert scores(mixture(means, scales), y)["nll"] == pytest.approx(-math.log(float(truth)), rel=1e-6)


def test_scales_of_each_draw_broadcast_over_data():
    means = torch.randn(7, 4)
    assert mixture(means, torch.ones(7, 1)).batch_shape == (4,)
    torch.testing.assert_close(mixture(means, torch.ones(7, 1)).mean, means.double().mean(0))


@pytest.mark.parametrize("level", [0.05, 0.5, 0.95])
def test_quantiles_invert_the_distribution(level):
    predictive = mixture(torch.randn(9, 20) * 3, torch.rand(9, 20) + 0.1)
    torch.testing.assert_close(
        predictive.cdf(quantile(predictive, level)), torch.full((20,), level, dtype=torch.float64), atol=1e-9, rtol=0
    )


def test_a_true_model_covers_what_it_says():
    count = 40_000
    means = torch.randn(5, count)
    scales = torch.rand(5, 1) + 0.5
    chosen = torch.randint(5, (count,))
    y = (means[chosen, torch.arange(count)] + scales[chosen, 0] * torch.randn(count)).double()
    covered = coverage(mixture(means, scales), y)
    z = (covered - LEVELS) / (LEVELS * (1 - LEVELS) / count).sqrt()
    assert z.abs().max() < 4


def test_misses_of_either_sign_add_up():
    """All targets lie just inside the interval of level 0.5: none below it is covered, and all from it on."""
    y = torch.tensor([0.67, -0.67], dtype=torch.float64)
    found = scores(mixture(torch.zeros(1, 2), torch.tensor(1.0)), y)
    assert found["calibration"] == pytest.approx(100 * (2.25 + 2.75) / 19)
    assert found["overconfidence"] == pytest.approx(100 * (2.25 - 2.75) / 19)


@pytest.mark.parametrize(("stated", "sign"), [(0.5, 1), (2.0, -1)])
def test_overconfidence_is_positive_for_intervals_too_narrow(stated, sign):
    y = torch.randn(4000, dtype=torch.float64)
    found = scores(mixture(torch.zeros(1, 4000), torch.tensor(stated)), y)
    expected = 2 * Normal(0.0, 1.0).cdf(torch.tensor(1.6448536 * stated)) - 1
    assert abs(found["coverage"] / 100 - expected) < 4 * math.sqrt(expected * (1 - expected) / 4000)
    assert found["overconfidence"] * sign > 10
    assert found["calibration"] == pytest.approx(abs(found["overconfidence"]))
