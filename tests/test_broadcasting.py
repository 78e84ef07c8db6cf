"""A hand-written model under parallel draws: it broadcasts and agrees with the loop, or an error says that it does not."""

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Predictive

import pyro_vbd as vbd

D = 4


def latents():
    gamma = pyro.sample("gamma", dist.Uniform(0, 1e3).expand([D]).to_event(1))
    return pyro.sample("w", dist.Normal(0, gamma.sqrt()).to_event(1))


def stiff(x, y=None):
    mean = x @ latents()
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(mean, 0.1), obs=y)


def broadcasting(x, y=None):
    w = latents()
    w = w.unsqueeze(-2) if w.dim() > 1 and w.shape[-2] != 1 else w
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal((x * w).sum(-1), 0.1), obs=y)


def pair(model):
    x = torch.randn(30, D)
    return x, x.sum(-1), vbd.VBDGuide(model, x, x.sum(-1))


@pytest.mark.parametrize("num_samples", [3, D, 30])
def test_a_model_that_does_not_broadcast_is_told_so(num_samples):
    x, y, guide = pair(stiff)
    with pytest.raises(ValueError, match=r"does not broadcast over draws of its latents.*parallel=False"):
        Predictive(stiff, guide=guide, num_samples=num_samples, parallel=True)(x)
    with pytest.raises(ValueError, match=r"does not broadcast.*vectorize_particles=False"):
        vbd.VBD_ELBO(num_particles=num_samples, vectorize_particles=True, max_plate_nesting=1).loss(stiff, guide, x, y)
    assert Predictive(stiff, guide=guide, num_samples=num_samples)(x)["y"].shape == (num_samples, 30)


@pytest.mark.parametrize("validation", [True, False])
def test_draws_that_land_among_the_dimensions_of_the_data_are_told_so(validation):
    """Each draw would meet the data once for every other draw, and the bound be off by a factor."""

    def model(x, y=None):
        with pyro.plate("out", 2, dim=-1), pyro.plate("in", D, dim=-2):
            w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):  # under S draws x @ w is (S, data, out), and a plate of theirs at -3
            return pyro.sample("y", dist.Normal(x @ w, 1.0).to_event(1), obs=y)

    x, y = torch.randn(30, D), torch.randn(30, 2)
    guide = vbd.VBDGuide(model, x, y)
    elbo = vbd.VBD_ELBO(num_particles=7, vectorize_particles=True, max_plate_nesting=2)
    with pyro.validation_enabled(validation), pytest.raises(ValueError, match=r"'y' has batch shape \(3, 30\) instead of"):
        elbo.loss(model, guide, x, y)
    with pytest.raises(ValueError, match="does not broadcast over draws of its latents"):
        Predictive(model, guide=guide, num_samples=3, parallel=True)(x)


def test_a_model_that_broadcasts_draws_in_parallel():
    x, y, guide = pair(broadcasting)
    parallel = Predictive(broadcasting, guide=guide, num_samples=500, parallel=True)(x)["y"]
    loop = Predictive(broadcasting, guide=guide, num_samples=500)(x)["y"]
    error = (parallel.var(0) / 500 + loop.var(0) / 500).sqrt()
    assert ((parallel.mean(0) - loop.mean(0)) / error).abs().max() < 4
    assert vbd.VBD_ELBO(num_particles=7, vectorize_particles=True).loss(broadcasting, guide, x, y) > 0


def test_what_a_model_says_on_many_draws_does_not_matter_before_it_is_asked_for_them():
    """A warning is no fault, and an error without words is one."""

    def warning(x, y=None):
        w = latents()
        if w.dim() > 1:
            warnings.warn("many draws", stacklevel=1)
        w = w.unsqueeze(-2) if w.dim() > 1 and w.shape[-2] != 1 else w
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Normal((x * w).sum(-1), 0.1), obs=y)

    def silent(x, y=None):
        w = latents()
        if w.dim() > 1:
            raise AssertionError  # pytest puts words into a statement of assert
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Normal(x @ w, 0.1), obs=y)

    x = torch.randn(30, D)
    guide = vbd.VBDGuide(warning, x, x.sum(-1))
    with pytest.warns(UserWarning, match="many draws"):
        Predictive(warning, guide=guide, num_samples=3, parallel=True)(x)
    with pytest.raises(ValueError, match=r"it failed: AssertionError\(\)"):
        Predictive(silent, guide=vbd.VBDGuide(silent, x, x.sum(-1)), num_samples=3, parallel=True)(x)


def test_each_plate_is_judged_by_itself():
    """Particles leave room for the data in front of a latent's event dimensions, predictive draws leave none."""

    def model(x, y=None):
        w = latents()
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Normal((x * w).sum(-1), 0.1), obs=y)

    x, y, guide = pair(model)
    elbo = vbd.VBD_ELBO(num_particles=7, vectorize_particles=True, max_plate_nesting=1)
    assert elbo.loss(model, guide, x, y) > 0
    with pytest.raises(ValueError, match=r"does not broadcast over draws of its latents.*parallel=False"):
        Predictive(model, guide=guide, num_samples=3, parallel=True)(x)
