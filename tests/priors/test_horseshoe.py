"""The horseshoe, with its global scale; and the same model written by hand."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import special, stats
from torch.testing import assert_close

import pyro_vbd as vbd
from pyro_vbd.priors import Horseshoe
from pyro_vbd.priors.horseshoe import half_cauchy_scale
from tests.priors.families import FamilyTests, as_numpy, at


class TestHorseshoe(FamilyTests):
    make = Horseshoe
    on = "scale"
    ranges = {"scale": (1e-3, 1e2)}

    def density(self, scale):
        return stats.halfcauchy(scale=scale)

    def log_marginal(self, w, scale):
        x = 0.5 * (w / scale) ** 2
        # exp(x) E1(x) is U(1, 1, x), which does not overflow
        return np.log(special.hyperu(1.0, 1.0, x)) - 0.5 * math.log(2 * math.pi**3) - np.log(scale)


def test_a_large_scale_is_variational_bayesian_dropout(float64):
    total, n = 10 ** torch.linspace(-8, 3, 12), torch.arange(1.0, 13)
    assert_close(half_cauchy_scale(at(Horseshoe(1e12)), total, n).square(), total / n, rtol=1e-12, atol=0)


@pytest.mark.parametrize("scale_posterior", ["delta", "exact"])
def test_written_by_hand(scale_posterior, float64):
    """w ~ N(0, tau * lambda): the local scales at their optimum given the global one, which is a learned point."""

    def model(x, y):
        tau = pyro.sample("tau", dist.HalfCauchy(1.0))
        lam = pyro.sample("lam", dist.HalfCauchy(torch.ones(4)).to_event(1))
        w = pyro.sample("w", dist.Normal(0.0, tau * lam).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(x @ w, 0.3), obs=y)

    x = torch.randn(30, 4)
    truth = torch.tensor([2.0, 0.0, 0.0, -1.0])
    y = x @ truth + 0.3 * torch.randn(30)
    guide = vbd.VBDGuide(model, x, y, scale_posterior=scale_posterior)
    vbd.fit(model, guide, [(x, y)], epochs=200, lr=0.05, progress=False)
    assert set(guide.optima) == {"q/lam"}
    median, q = guide.median(), guide.posteriors["q/w"]
    assert_close(q.loc, truth, atol=0.3, rtol=0)
    scaled = as_numpy(q.loc.square() + q.log_var.exp()) / median["tau"].item() ** 2
    family = TestHorseshoe()
    if scale_posterior == "delta":
        best = family.best(scaled, np.ones(4), scale=np.ones(4))
        np.testing.assert_allclose(as_numpy(median["lam"]), best, rtol=1e-5)
    else:
        for total, middle in zip(scaled, as_numpy(median["lam"]), strict=True):
            below = family.evidence(total, 1.0, scale=1.0, end=middle)[0] - family.evidence(total, 1.0, scale=1.0)[0]
            assert abs(math.exp(below) - 0.5) < 1e-3
