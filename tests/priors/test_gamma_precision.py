"""A gamma precision: Student's t again, with its density on the precision; and the same model written by hand."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch.testing import assert_close

import pyro_vbd as vbd
from pyro_vbd.priors import GammaPrecision
from pyro_vbd.priors.gamma_precision import gamma_precision
from tests.priors.families import FamilyTests


class TestGammaPrecision(FamilyTests):
    make = GammaPrecision
    on = "precision"
    ranges = {"concentration": (0.6, 20.0), "rate": (1e-6, 1e2)}

    def density(self, concentration, rate):
        return stats.gamma(concentration, scale=1 / rate)

    def log_marginal(self, w, concentration, rate):
        return stats.t(2 * concentration, scale=(rate / concentration) ** 0.5).logpdf(w)


@pytest.mark.parametrize("concentration", [0.5, 0.1])
def test_a_precision_without_an_optimum_is_refused(concentration):
    with pytest.raises(ValueError, match=rf"GammaPrecision\(concentration={concentration}\).*more than 0.5, or StudentT"):
        GammaPrecision(concentration)
    GammaPrecision(concentration, per="layer")  # a group of several has one


@pytest.mark.parametrize(("a", "b", "end"), [(0.3, 1.0, "tiny"), (2.0, 1e-45, "max")])
def test_where_there_is_no_optimum_the_precision_is_a_number_at_the_end(a, b, end):
    found = gamma_precision(dist.Gamma(torch.tensor(a), torch.tensor(b)), torch.zeros(1), 1.0)
    assert found == getattr(torch.finfo(found.dtype), end)


@pytest.mark.parametrize("scale_posterior", ["delta", "exact"])
def test_written_by_hand(scale_posterior, float64):
    """A relevance vector machine: precision ~ Gamma(a, b), w ~ N(0, 1 / precision)."""

    def model(x, y):
        tau = pyro.sample("tau", dist.Gamma(2.0, 0.5).expand([3]).to_event(1))
        w = pyro.sample("w", dist.Normal(0.0, tau.rsqrt()).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(x @ w, 0.5), obs=y)

    x = torch.randn(20, 3)
    y = x @ torch.tensor([1.0, 0.0, -2.0]) + 0.5 * torch.randn(20)
    guide = vbd.VBDGuide(model, x, y, scale_posterior=scale_posterior)
    vbd.fit(model, guide, [(x, y)], epochs=200, lr=0.05, progress=False)
    q = guide.posteriors["q/w"]
    total = (q.loc.square() + q.log_var.exp()).detach()
    if scale_posterior == "delta":
        assert_close(guide.median()["tau"], (1 + 2 * 2.0 - 2) / (total + 2 * 0.5))
    else:
        exact = stats.gamma(2.5, scale=1 / (0.5 + total / 2).cpu().numpy())
        assert_close(guide.median()["tau"].cpu(), torch.tensor(exact.median()), rtol=1e-4, atol=0)
    assert_close(q.loc, torch.tensor([1.0, 0.0, -2.0]), atol=0.5, rtol=0)
