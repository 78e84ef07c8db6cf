"""Guide and model run once, with the guide's draws in the model; what does not fit is refused."""

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer.autoguide import AutoNormal

import pyro_vbd as vbd
from pyro_vbd.estimators.gaussian_tensor import GaussianTensor
from pyro_vbd.paired_traces import check_pair, estimator_by_site, paired_traces


def model(x):
    gamma = pyro.sample("gamma", dist.Uniform(x.new_zeros(()), 10.0).expand([3]).to_event(1))
    w = pyro.sample("w", dist.Normal(x.new_zeros(()), gamma.sqrt()).to_event(1))
    shift = pyro.sample("shift", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
    with pyro.plate("data", 8, subsample=x):
        pyro.sample("y", dist.Normal(x @ w + shift.sum(), 1.0), obs=x.new_zeros(len(x)))


def everywhere(_):
    return "local"


@pytest.mark.parametrize(
    ("estimator", "found"),
    [
        ("local", ["local", "local", "local"]),
        ({"b.*": "weights"}, ["auto", "weights", "weights"]),
        ({"b.bias": "local", "*": "weights"}, ["weights", "weights", "local"]),
        ({"b.bias": "local", "b.*": "weights"}, ["auto", "weights", "local"]),
        ({}, ["auto", "auto", "auto"]),
    ],
)
def test_first_pattern_decides_and_auto_is_the_rest(estimator, found):
    of = estimator_by_site(estimator)
    assert [of(site) for site in ("a.weight", "b.weight", "b.bias")] == found


@pytest.mark.parametrize("estimator", ["reinforce", {"*": "Local"}, ""])
def test_unknown_estimator_is_refused(estimator):
    with pytest.raises(ValueError, match="use 'auto', 'local', 'flipout' or 'weights'"):
        estimator_by_site(estimator)


def test_model_gets_the_guides_draws():
    x = torch.randn(4, 3)
    guide = vbd.VBDGuide(model, x)
    model_trace, guide_trace = paired_traces(model, guide, (x,), {}, lambda site: "local" if site == "w" else "weights")
    for site in ("gamma", "w", "shift"):
        assert model_trace.nodes[site]["value"] is guide_trace.nodes[site]["value"]
    assert isinstance(guide_trace.nodes["w"]["value"], GaussianTensor)
    assert not isinstance(guide_trace.nodes["shift"]["value"], GaussianTensor)
    assert "data" not in model_trace.nodes
    observed = model_trace.nodes["y"]
    torch.testing.assert_close(observed["log_prob_sum"], observed["fn"].log_prob(observed["value"]).sum() * 8 / 4)
    assert "log_prob" not in model_trace.nodes["w"]


def test_weight_that_was_not_read_is_refused_by_name():
    def forgetful(x):
        model(x)
        pyro.sample("idle", dist.Normal(x.new_zeros(3), 1.0).to_event(1))

    x = torch.randn(8, 3)
    guide = vbd.VBDGuide(forgetful, x)
    with pytest.raises(RuntimeError, match=r"never read \['idle'\]"):
        paired_traces(forgetful, guide, (x,), {}, everywhere)
    paired_traces(forgetful, guide, (x,), {}, lambda site: "weights" if site == "idle" else "local")


def test_a_look_at_a_weights_shape_is_no_reading():
    def looking(x):
        w = pyro.sample("w", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
        pyro.sample("y", dist.Normal(x.new_zeros(w.shape[0], dtype=w.dtype).sum(), 1.0), obs=x.new_zeros(()))

    x = torch.randn(8, 3)
    with pytest.raises(RuntimeError, match="never read"):
        paired_traces(looking, vbd.VBDGuide(looking, x), (x,), {}, everywhere)


def test_latent_that_the_guide_does_not_know_is_refused_by_name():
    def longer(x, more=False):
        model(x)
        if more:
            pyro.sample("late", dist.Normal(0.0, 1.0))

    x = torch.randn(8, 3)
    guide = vbd.VBDGuide(longer, x)
    with pytest.raises(ValueError, match=r"the latents \['late'\], which the guide does not know"):
        paired_traces(longer, guide, (x, True), {}, everywhere)
    guide = vbd.VBDGuide(longer, x, more=True)
    with pytest.raises(ValueError, match="the guide states 'late', which the model did not"):
        paired_traces(longer, guide, (x,), {}, everywhere)


def test_auxiliary_sites_of_a_guide_are_its_own_affair():
    x = torch.randn(8, 3)
    guide = AutoNormal(poutine.block(model, hide=["y"]))
    _, guide_trace = paired_traces(model, guide, (x,), {}, everywhere)
    assert "w_unconstrained" in guide_trace.nodes


def test_pair_is_known_through_handlers():
    x = torch.randn(8, 3)
    guide = vbd.VBDGuide(model, x)

    def other(x):
        return model(x)

    for ours in (guide, poutine.scale(guide, scale=2.0)):
        check_pair(model, ours)
        check_pair(poutine.scale(poutine.condition(model, data={}), scale=2.0), ours)
        with pytest.raises(ValueError, match=f"{guide.name} was made for another model"):
            check_pair(other, ours)
    check_pair(other, vbd.VBDGuide(poutine.scale(other, scale=2.0), x))
    check_pair(other, AutoNormal(model))


def test_targets_that_no_plate_declares_are_refused():
    """(N, 1) against (N,) broadcasts to (N, N): a plausible wrong number."""

    def model(x, y):
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("data", 5):
            pyro.sample("y", dist.Normal((x @ w).unsqueeze(-1), 1.0), obs=y)

    x, y = torch.randn(5, 3), torch.randn(5, 1)
    guide = vbd.VBDGuide(model, x, y)
    with pytest.raises(ValueError, match="invalid log_prob shape"):
        vbd.VBD_ELBO().loss(model, guide, x, y)
    with pyro.validation_enabled(False):
        paired_traces(model, guide, (x, y), {}, everywhere)
