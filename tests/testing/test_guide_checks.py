"""The truth kit for guides: right ones pass, and each kind of wrong one is caught by the check that is there for it."""

import random

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from torch.distributions import constraints, register_kl
from torch.distributions.kl import _KL_REGISTRY

import pyro_vbd as vbd
from pyro_vbd.testing import GUIDE_CHECKS, check_guide

NAMES = ["sites", "draws", "kl", "gradients"]
X, Y = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 1, 0, 1, 0])
PASSED = dict.fromkeys(NAMES, "passed")


def model(x, y=None):
    """Bayesian logistic regression with a learned scale."""
    tau = pyro.sample("tau", dist.HalfNormal(torch.ones((), device=x.device)))
    w = pyro.sample("w", dist.Normal(torch.zeros(3, device=x.device), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Bernoulli(logits=tau * (x @ w)), obs=None if y is None else y.to(x.dtype))


def guide(x, y=None):
    loc = pyro.param("loc", lambda: torch.full((3,), 0.3, device=x.device))
    scale = pyro.param("scale", lambda: torch.full((3,), 0.5, device=x.device), constraint=constraints.positive)
    where = pyro.param("where", lambda: torch.zeros((), device=x.device))
    pyro.sample("tau", dist.LogNormal(where, 0.3))
    pyro.sample("w", dist.Normal(loc, scale).to_event(1))


def check(wrong, device, num_samples=100):
    return check_guide(model, wrong, X.to(device), Y.to(device), num_samples=num_samples)


# --- right ones ----------------------------------------------------------------------------------------------------------


def test_the_names_and_the_order_of_the_checks():
    assert list(GUIDE_CHECKS) == NAMES
    for name in NAMES:
        assert f"``{name}``" in check_guide.__doc__


def test_a_guide_of_ones_own_passes(device):
    assert check(guide, device) == PASSED


def test_pyros_automatic_guide_passes(device):
    assert check(AutoNormal(model), device) == PASSED


@pytest.mark.parametrize("scale_posterior", ["delta", "lognormal", "exact"])
def test_the_guide_of_this_library_passes(scale_posterior, device):
    pair = vbd.Classifier(torch.nn.Linear(3, 2).to(device), vbd.priors.StudentT(3.0), num_data=12)
    ours = vbd.VBDGuide(pair, init_log_var=-2.0, scale_posterior=scale_posterior)
    assert check_guide(pair, ours, X.to(device), Y.to(device), num_samples=100) == PASSED


def test_an_improper_prior_has_no_kl_to_compare(device):
    pair = vbd.Classifier(torch.nn.Linear(3, 2).to(device), vbd.priors.LogUniform(), num_data=6)
    report = check_guide(pair, vbd.VBDGuide(pair), X.to(device), Y.to(device))
    assert "improper" in report.pop("kl")
    assert set(report.values()) == {"passed"}


def states():
    """Pyro's seed is that of torch, of Python and of NumPy."""
    words, *rest = np.random.get_state()[1:]  # noqa: NPY002
    return torch.get_rng_state().tolist(), random.getstate(), words.tolist(), rest


def test_nothing_is_left_behind(device):
    check(guide, device, num_samples=10)
    random.random()
    kept, before = {name: value.clone() for name, value in pyro.get_param_store().items()}, states()
    check(guide, device, num_samples=10)
    assert states() == before
    with pytest.raises(AssertionError):
        check(more, device)
    assert states() == before
    for name, value in pyro.get_param_store().items():
        assert torch.equal(value, kept[name])
        assert value.unconstrained().grad is None


# --- wrong ones ----------------------------------------------------------------------------------------------------------


def site(name, fn):
    """The guide with another statement for one latent."""

    def wrong(x, y=None):
        with pyro.poutine.block(hide=[name]):
            guide(x)
        pyro.sample(name, fn(x))

    return wrong


def more(x, y=None):
    guide(x)
    pyro.sample("v", dist.Normal(x.new_zeros(()), 1.0))


def auxiliary(x, y=None):
    guide(x)
    pyro.sample("v", dist.Normal(x.new_zeros(()), 1.0), infer={"is_auxiliary": True})


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (pyro.poutine.block(guide, hide=["tau"]), r"does not state \['tau'\]"),
        (more, r"states \['v'\], and the model does not"),
        (
            site("w", lambda x: dist.Normal(x.new_zeros(2), 1.0).to_event(1)),
            r"'w' of shape \(2,\), where the model's has \(3,\)",
        ),
        (site("w", lambda x: dist.Normal(x.new_zeros(3), 1.0)), "declare the same dimensions by to_event"),
        (site("tau", lambda x: dist.Normal(x.new_full((), -9.0), 1.0)), "'tau' outside the model's support"),
    ],
)
def test_sites(wrong, said, device):
    with pytest.raises(AssertionError, match=said):
        check(wrong, device)


def test_auxiliary_latents_are_no_fault(device):
    assert check(auxiliary, device)["sites"] == "passed"


def test_noise_that_is_not_torchs(device):
    def wrong(x, y=None):
        guide(x)
        pyro.sample("v", dist.Delta(x.new_tensor(np.random.default_rng().normal())), infer={"is_auxiliary": True})

    with pytest.raises(AssertionError, match="two runs under one seed draw 'v' differently"):
        check(wrong, device)


def test_noise_that_is_kept(device):
    class Kept(dist.Normal):
        def rsample(self, sample_shape=torch.Size()):
            return self.loc + 0.5 * self.scale

        sample = rsample

    with pytest.raises(AssertionError, match="two runs draw the same 'w'"):
        check(site("w", lambda x: Kept(x.new_zeros(3), 1.0).to_event(1)), device)


def test_a_wrong_closed_form(device, monkeypatch):
    class Other(dist.Normal):
        pass

    monkeypatch.setattr("torch.distributions.kl._KL_MEMOIZE", {})
    register_kl(Other, dist.Normal)(
        lambda q, p: 0.5 * ((q.loc / p.scale) ** 2 + (q.scale / p.scale) ** 2 - 1)
    )  # no logarithm
    try:
        with pytest.raises(AssertionError, match=r"standard errors off: a registered KL"):
            check(site("w", lambda x: Other(x.new_zeros(3), 0.5).to_event(1)), device)
    finally:
        del _KL_REGISTRY[Other, dist.Normal]


def test_a_scale_in_the_guide_alone(device):
    with pytest.raises(ValueError, match=r"'tau' has scale 1.0 in the model and 2.0 in the guide"):
        check(pyro.poutine.scale(guide, scale=2.0), device)


def test_a_parameter_without_an_effect(device):
    def wrong(x, y=None):
        guide(x)
        pyro.param("idle", lambda: torch.zeros(2, device=x.device))

    with pytest.raises(AssertionError, match=r"does not depend on \['idle'\]"):
        check(wrong, device)


def test_a_draw_that_carries_no_gradient(device):
    def wrong(x, y=None):
        with pyro.poutine.block(hide=["w"]):
            guide(x)
        loc = pyro.param("centre", lambda: torch.zeros(3, device=x.device))
        pyro.sample("w", dist.Delta(loc.detach() + 0.1, event_dim=1))

    with pytest.raises(AssertionError, match=r"does not depend on \['centre', 'loc', 'scale'\]"):
        check(wrong, device)


def test_a_gradient_that_is_not_finite(device):
    def wrong(x, y=None):
        zero = pyro.param("root", lambda: torch.zeros((), device=x.device))
        with pyro.poutine.block(hide=["tau"]):
            guide(x)
        pyro.sample("tau", dist.LogNormal(zero.sqrt(), 0.3))

    with pytest.raises(AssertionError, match="the gradient of 'root' is not finite"):
        check(wrong, device)


def test_a_guide_without_parameters(device):
    with pytest.raises(AssertionError, match="no parameter to learn"):
        check(
            lambda x, y=None: (
                pyro.sample("tau", dist.LogNormal(x.new_zeros(()), 0.3)),
                pyro.sample("w", dist.Normal(x.new_zeros(3), 1.0).to_event(1)),
            ),
            device,
        )
