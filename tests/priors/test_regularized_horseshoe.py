"""The regularised horseshoe, its slab, and the same model written by hand."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch.testing import assert_close

import pyro_vbd as vbd
from pyro_vbd.priors import RegularizedHorseshoe, Slab
from pyro_vbd.priors.horseshoe import half_cauchy_scale
from pyro_vbd.priors.regularized_horseshoe import half_cauchy_under_slab
from tests.priors.families import FamilyTests, as_numpy


class TestRegularizedHorseshoe(FamilyTests):
    make = RegularizedHorseshoe
    on = "scale"
    ranges = {"scale": (1e-3, 1e2)}
    numbers = ("slab",)
    defaults = {"slab": 2.0}

    def draw(self, rng):
        return {**super().draw(rng), "slab": 10 ** rng.uniform(-2, 2)}

    def density(self, scale=1.0, slab=2.0):
        return stats.halfcauchy(scale=scale)

    def variance(self, gamma, scale=1.0, slab=2.0):
        return 1.0 / (1.0 / gamma**2 + 1.0 / slab**2)


def test_a_wide_slab_is_the_horseshoe(float64):
    total, n = 10 ** torch.linspace(-8, 3, 12), torch.arange(1.0, 13)
    prior = dist.HalfCauchy(torch.tensor(0.3))
    assert_close(half_cauchy_under_slab(prior, total, n, Slab(1e10)), half_cauchy_scale(prior, total, n))


def test_a_group_of_none_has_an_optimum_too():
    prior = dist.HalfCauchy(torch.tensor(0.3), validate_args=True)
    found = half_cauchy_under_slab(prior, torch.tensor([0.0, 3.0]), torch.tensor([0.0, 3.0]), Slab(2.0))
    assert (found > 0).all()
    assert prior.log_prob(found).isfinite().all()


# --- the transform -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_slab_is_a_transform(dtype):
    slab = Slab(0.7)
    x = 10 ** torch.linspace(-4, 1, 30, dtype=dtype)
    y = slab(x)
    assert y.dtype == dtype
    assert_close(y, (x**-2 + 0.7**-2) ** -0.5)
    assert_close(slab.inv(y), x, rtol=1e-3 if dtype == torch.float32 else 1e-8, atol=0)
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(slab(leaf).sum(), leaf)
    assert_close(slab.log_abs_det_jacobian(x, y), slope.log(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_slab_at_extremes(dtype):
    finfo = torch.finfo(dtype)
    y = Slab(2.0)(torch.tensor([finfo.tiny, 1.0, finfo.max], dtype=dtype))
    assert_close(y, torch.tensor([finfo.tiny, 0.8**0.5, 2.0], dtype=dtype))
    assert Slab(2.0).inv(y).isfinite().all()


def test_slabs_are_equal_by_their_scale():
    assert Slab(2.0) == Slab(2.0)
    assert Slab(2.0) != Slab(3.0)
    assert len({Slab(2.0), Slab(2.0), Slab(3.0)}) == 2


# --- by hand -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale_posterior", ["delta", "lognormal", "exact"])
def test_written_by_hand(scale_posterior, float64):
    slab = Slab(1.5)

    def model(x, y):
        lam = pyro.sample("lam", dist.HalfCauchy(torch.full((4,), 0.2)).to_event(1), infer={"link": slab})
        w = pyro.sample("w", dist.Normal(0.0, slab(lam)).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(x @ w, 0.3), obs=y)

    x = torch.randn(30, 4)
    truth = torch.tensor([2.0, 0.0, 0.0, -1.0])
    y = x @ truth + 0.3 * torch.randn(30)
    guide = vbd.VBDGuide(model, x, y, scale_posterior=scale_posterior)
    vbd.fit(model, guide, [(x, y)], epochs=200, lr=0.05, progress=False)
    assert_close(guide.posteriors["q/w"].loc, truth, atol=0.3, rtol=0)
    assert ("q/lam" in guide.optima) == (scale_posterior != "lognormal")
    if scale_posterior == "delta":
        q = guide.posteriors["q/w"]
        total = as_numpy(q.loc.square() + q.log_var.exp())
        best = TestRegularizedHorseshoe().best(total, np.ones(4), scale=np.full(4, 0.2), slab=np.full(4, 1.5))
        np.testing.assert_allclose(as_numpy(guide.median()["lam"]), best, rtol=1e-5)


def test_a_slab_without_its_link_gets_a_learned_scale():
    """Then nothing says what takes the place of the scale, and the guide does not guess."""

    def model():
        lam = pyro.sample("lam", dist.HalfCauchy(1.0))
        return pyro.sample("w", dist.Normal(torch.zeros(3), Slab(1.5)(lam)).to_event(1))

    guide = vbd.VBDGuide(model)
    with pytest.warns(UserWarning, match=r"\['lam'\] act on the scale of a weight, but not as its variance"):
        guide()
    assert not guide.optima


def test_slabs_of_one_scale_are_equal():
    assert Slab(2.0) == Slab(2)
    assert hash(Slab(2.0)) == hash(Slab(2))
    assert Slab(2.0) != Slab(1.0)
    assert Slab(2.0) != 2.0
