"""Looking at a model: which sites it has, runs at chosen values, and nothing of the process changed by that."""

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer.util import is_validation_enabled
from torch import nn
from torch.nn import functional as F

from pyro_vbd.prototype import latent_sites, observed_sites, run_with, sample_sites, typical_value, untouched


def regression(x):
    gamma = pyro.sample("gamma", dist.Uniform(0.0, 10.0).expand([3]).to_event(1))
    w = pyro.sample("w", dist.Normal(0.0, gamma.sqrt()).to_event(1))
    pyro.deterministic("norm", w.norm())
    with pyro.plate("data", 8, subsample=x):
        return pyro.sample("y", dist.Normal(x @ w, 1.0), obs=torch.zeros(len(x)))


def test_sites_are_the_models_random_variables_in_order():
    """Neither the subsample of a plate nor what is recorded by pyro.deterministic is one."""
    trace = poutine.trace(regression).get_trace(torch.randn(4, 3))
    assert list(sample_sites(trace)) == ["gamma", "w", "y"]
    assert list(latent_sites(trace)) == ["gamma", "w"]
    assert list(observed_sites(trace)) == ["y"]


@pytest.mark.parametrize(
    "fn",
    [
        lambda: dist.Uniform(2.0, 3.0).expand([4, 5]).to_event(1),
        lambda: dist.HalfCauchy(torch.ones(6)),
        lambda: dist.Beta(2.0, 3.0),
        lambda: dist.Dirichlet(torch.ones(2, 3)),
        lambda: dist.LogNormal(torch.zeros(3), torch.ones(3)).to_event(1),
        lambda: dist.MultivariateNormal(torch.zeros(3), torch.eye(3)),
        lambda: dist.Bernoulli(torch.full((3,), 0.5)),
        lambda: dist.Poisson(torch.full((3,), 2.0)),
    ],
)
def test_typical_value_lies_in_the_support(fn, device):
    value = typical_value(fn())
    assert value.shape == fn().shape()
    assert fn().support.check(value).all()
    assert value.device.type == device.type


def test_typical_value_takes_the_dtype_and_the_spread():
    value = typical_value(dist.Normal(torch.zeros(20_000, dtype=torch.float64), 1.0), 0.7)
    assert value.dtype == torch.float64
    z = (value.std() / 0.7 - 1) * (2 * 20_000) ** 0.5
    assert abs(z) < 4


def test_run_with_sets_latents_and_leads_gradients_back_to_them():
    leaves = {}
    gamma = torch.tensor([1.0, 4.0, 9.0])
    trace = run_with({"gamma": gamma}, regression, (torch.randn(4, 3),), {}, leaves)
    assert list(leaves) == ["gamma", "w"]
    torch.testing.assert_close(trace.nodes["w"]["fn"].base_dist.scale.detach(), gamma.sqrt())
    (grad,) = torch.autograd.grad(trace.nodes["w"]["fn"].base_dist.scale.sum(), leaves["gamma"])
    torch.testing.assert_close(grad, 0.5 / gamma.sqrt())
    assert not gamma.requires_grad
    assert trace.nodes["y"]["is_observed"]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_run_with_gives_gradients_where_there_are_none(mode):
    leaves = {}
    with mode():
        trace = run_with({}, regression, (torch.randn(4, 3),), {}, leaves)
    assert trace.nodes["w"]["fn"].base_dist.scale.requires_grad


def test_run_with_has_no_gradients_to_discrete_latents():
    leaves = {}

    def model():
        pyro.sample("k", dist.Categorical(torch.ones(3)))
        pyro.sample("w", dist.Normal(0.0, 1.0))

    run_with({}, model, (), {}, leaves)
    assert list(leaves) == ["w"]


@pytest.mark.parametrize("around", [True, False])
def test_run_with_validates_held_out_data_alone(around):
    seen = []
    with pyro.validation_enabled(around):
        for held_out in (False, True):
            run_with({}, lambda: seen.append(is_validation_enabled()), (), {}, held_out=held_out)
    assert seen == [False, around]


def test_run_with_is_unseen_and_unmoved_by_handlers_around_it():
    with poutine.trace() as outer, poutine.condition(data={"w": torch.full((3,), 7.0)}), poutine.scale(scale=3.0):
        trace = run_with({}, regression, (torch.randn(4, 3),), {})
    assert not outer.trace.nodes
    assert not trace.nodes["w"]["is_observed"]
    assert (trace.nodes["w"]["value"] != 7.0).all()
    assert trace.nodes["w"]["scale"] == 1.0


def test_run_with_chooses_values_after_plates_have_broadcast_the_site():
    def model():
        with pyro.plate("rows", 3, dim=-2), pyro.plate("columns", 4, dim=-1):
            pyro.sample("w", dist.Normal(0.0, 1.0))

    value = run_with({}, model, (), {}).nodes["w"]["value"]
    assert value.shape == (3, 4)
    assert len(value.unique()) == 12


@pytest.mark.parametrize("as_function", [False, True])
def test_untouched_restores_random_state_and_buffers(as_function):
    """Also the buffers of modules that a plain function calls."""
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    before = {name: value.clone() for name, value in net.named_buffers()}
    inputs = torch.randn(8, 3)
    expected = torch.get_rng_state()
    with untouched(net.__call__ if as_function else net):
        F.dropout(net(inputs))
        net(inputs + torch.randn_like(inputs))
        assert not torch.equal(net[1].running_mean, before["1.running_mean"])
    assert torch.equal(torch.get_rng_state(), expected)
    for name, value in net.named_buffers():
        assert torch.equal(value, before[name]), name
    net(inputs)
    assert not torch.equal(net[1].running_mean, before["1.running_mean"])


def test_untouched_restores_buffers_of_the_model_that_no_call_announces():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    mean = net[1].running_mean
    with untouched(net):
        net[1].running_mean.add_(1.0)
    assert (net[1].running_mean == 0).all()
    assert net[1].running_mean is mean


def test_untouched_restores_buffers_that_a_run_replaces_beside_those_that_are_none_or_trained():
    class Counts(nn.BatchNorm1d):
        def forward(self, x):
            self.seen = self.seen + len(x)
            return super().forward(x)

    net = Counts(4, track_running_stats=False)
    net.register_buffer("seen", torch.zeros(()))
    net.register_buffer("trained", torch.ones(4, requires_grad=True))
    seen = net.seen
    with untouched(net):
        net(torch.randn(8, 4))
        assert net.seen == 8
    assert net.seen is seen
    assert seen == 0


def test_untouched_restores_what_an_error_has_left():
    net = nn.BatchNorm1d(4)
    with pytest.raises(RuntimeError, match="3 elements"), untouched(net):
        net(net(torch.randn(8, 4) + 3.0)[:, :3])
    assert (net.running_mean == 0).all()
    assert not nn.modules.module._global_forward_pre_hooks


@pytest.mark.filterwarnings("ignore:Using `torch.compile")
def test_untouched_leaves_alone_what_is_compiled():
    """Its hook on all modules is nothing that a graph could hold."""
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    compiled = torch.compile(net, backend="eager")
    with untouched(None):
        compiled(torch.randn(8, 3))
    assert (net[1].running_mean == 0).all()
    compiled(torch.randn(8, 3))
    assert (net[1].running_mean != 0).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_untouched_restores_the_devices_random_state():
    before = torch.cuda.get_rng_state()
    with untouched(None):
        torch.randn(3, device="cuda")
    assert torch.equal(torch.cuda.get_rng_state(), before)
