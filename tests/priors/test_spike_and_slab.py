"""Spike and slab: a variance that is one of two numbers."""

import math

import numpy as np
import pyro
import pyro.poutine as poutine
import pytest
import torch
from scipy import special, stats

from pyro_vbd.distributions.positive import TwoPoint
from pyro_vbd.posterior.exact_scale import ExactScale
from pyro_vbd.priors import SpikeAndSlab
from pyro_vbd.priors.spike_and_slab import two_point_variance
from pyro_vbd.testing import check_prior
from tests.priors.families import FamilyTests, as_numpy, as_tensor, at


class TwoNumbers:
    def __init__(self, spike, slab, probability):
        self.points, self.log_mass = (spike**2, slab**2), (np.log1p(-probability), np.log(probability))

    def logpdf(self, x):
        at = [np.isclose(x, point, rtol=1e-6) for point in self.points]
        return np.select(at, [np.broadcast_to(mass, np.shape(x)) for mass in self.log_mass], -np.inf)


class TestSpikeAndSlab(FamilyTests):
    make = SpikeAndSlab
    on = "variance"
    ranges = {}
    numbers = ("spike", "slab", "probability")
    discrete = True

    def draw(self, rng):
        spike = 10 ** rng.uniform(-4, -1)
        return {"spike": spike, "slab": spike * 10 ** rng.uniform(0.3, 3), "probability": rng.uniform(0.05, 0.95)}

    def density(self, spike=0.01, slab=1.0, probability=0.1):
        return TwoNumbers(spike, slab, probability)

    def _log_weights(self, total, n, h):
        mass = np.array(self.density(**h).log_mass)
        points = np.array(self.density(**h).points)
        return mass - 0.5 * n * np.log(points) - 0.5 * total / points, points

    def best(self, total, n, **h):
        terms, points = self._log_weights(total, n, h)
        return np.where(terms[1] > terms[0], points[1], points[0])

    def evidence(self, total, n, **h):
        terms, points = self._log_weights(total, n, h)
        return special.logsumexp(terms), (special.softmax(terms) / points).sum()

    def log_marginal(self, w, spike, slab, probability):
        ends = [
            stats.norm(0, spike).logpdf(w) + math.log1p(-probability),
            stats.norm(0, slab).logpdf(w) + math.log(probability),
        ]
        return np.logaddexp(*ends)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_the_density_is_scipys(self, dtype):
        hyperprior = at(SpikeAndSlab(0.1, 2.0, 0.3), dtype=dtype)
        gamma = torch.stack([hyperprior.low, hyperprior.high, 0.5 * hyperprior.high])
        np.testing.assert_allclose(as_numpy(hyperprior.log_prob(gamma)), [math.log(0.7), math.log(0.3), -np.inf], rtol=1e-6)

    def test_draws_follow_the_density(self):
        with pyro.plate("draws", 3000, dim=-2), poutine.trace() as capture:
            SpikeAndSlab(0.1, 2.0, 0.3).sample("w", torch.zeros(2, dtype=torch.float64))
        gamma, w = (as_numpy(capture.trace.nodes[site]["value"]) for site in ("w_gamma", "w"))
        assert set(np.round(np.unique(gamma), 9)) == {0.01, 4.0}
        assert abs((gamma > 1).mean() - 0.3) < 4 * math.sqrt(0.3 * 0.7 / gamma.size)
        assert stats.kstest((w / np.sqrt(gamma)).ravel(), stats.norm.cdf).pvalue > 1e-4

    def test_the_truth_kit_passes(self, device):
        report = check_prior(SpikeAndSlab(), device=device, num_samples=100_000)
        assert report.pop("density") == "gamma is discrete"
        assert set(report.values()) == {"passed"}, report


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [({"spike": 1.0, "slab": 1.0}, "no spike"), ({"spike": 2.0}, "no spike"), ({"probability": 1.0}, "leaves no spike")],
    ids=str,
)
def test_what_is_no_spike_is_refused(arguments, reason):
    with pytest.raises(ValueError, match=rf"SpikeAndSlab\(.*{reason}"):
        SpikeAndSlab(**arguments)


def test_the_exact_posterior_is_the_probability_of_the_slab():
    family, prior = TestSpikeAndSlab(), SpikeAndSlab(0.1, 2.0, 0.3)
    total = 10 ** np.linspace(-3, 1, 9)
    exact = family.exact(prior, total, 1.0, family.registered(prior))
    in_slab = [stats.norm(0, s).pdf(total**0.5) * p for s, p in ((0.1, 0.7), (2.0, 0.3))]
    expected = in_slab[1] / (in_slab[0] + in_slab[1])
    np.testing.assert_allclose(as_numpy(exact.log_prob(as_tensor(np.full(9, 4.0))).exp()), expected, rtol=1e-6)
    share = as_numpy((exact.sample((20_000,)) > 1).double().mean(0))
    assert (abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / 20_000) + 1e-3).all()


@pytest.mark.parametrize("n", [1.0, 7.0])
@pytest.mark.parametrize("probability", [0.01, 0.5, 0.99])
def test_a_group_is_in_the_slab_from_the_sum_that_the_formula_names(probability, n):
    """S (1/s0^2 - 1/s1^2) = n log(s1^2/s0^2) + 2 log((1 - pi)/pi), where both have the same weight."""
    hyperprior = at(SpikeAndSlab(0.1, 2.0, probability), dtype=torch.float64)
    edge = (n * math.log(400.0) + 2 * math.log((1 - probability) / probability)) / (100.0 - 0.25)
    found = two_point_variance(hyperprior, as_tensor([0.999 * edge, 1.001 * edge]).clamp_min(0.0), n)
    np.testing.assert_allclose(as_numpy(found), [0.01, 4.0] if edge > 0 else [4.0, 4.0])


def test_the_evidence_of_groups_with_probabilities_of_their_own():
    total, probability = as_tensor([0.1, 3.0]), as_tensor([0.3, 0.6])
    hyperprior = at(SpikeAndSlab(0.1, 2.0), dtype=torch.float64)
    several = TwoPoint(hyperprior.low, hyperprior.high, probability)
    together = ExactScale(several, torch.clone, torch.clone, total, 1.0).evidence()
    for i in range(2):
        own = at(SpikeAndSlab(0.1, 2.0, probability[i].item()), dtype=torch.float64)
        alone = ExactScale(own, torch.clone, torch.clone, total[i], 1.0).evidence()
        torch.testing.assert_close(tuple(part[i] for part in together), alone)
