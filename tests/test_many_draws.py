from contextlib import nullcontext

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import Predictive
from torch import nn

import pyro_vbd as vbd
from pyro_vbd.paired_traces import estimator_by_site, paired_traces
from tests.lifted import log_likelihood_model, ready

PRIOR = vbd.priors.GaussianUniform()
N = 8


class Squashed(nn.Linear):
    """No rule fits it: its weight is read by its draw."""

    def __init__(self):
        super().__init__(3, 1)

    def forward(self, x):
        return x @ self.weight.T.tanh()


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 1)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


CASES = {
    "linear": (lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)), (N, 3)),
    "convolution": (
        lambda: nn.Sequential(nn.Conv1d(3, 2, 2), nn.GroupNorm(1, 2), nn.Flatten(), nn.Linear(6, 1)), (N, 3, 4)
    ),
    "BatchNorm in train": (lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)), (N, 3)),
    "recurrent": (Recurrent, (N, 4, 3)),
    "weight read whole": (Squashed, (N, 3)),
}  # fmt: skip


@pytest.mark.parametrize("estimator", ["local", "weights", {"[0wl]*": "weights"}])
@pytest.mark.parametrize("name", CASES)
def test_vectorised_particles_agree_with_the_loop(name, estimator):
    make, shape = CASES[name]
    net, x, count = make(), torch.randn(shape), 200
    model = log_likelihood_model(vbd.lift(net, PRIOR), x)
    guide = ready(vbd.VBDGuide(model, init_log_var=-4.0))
    with torch.no_grad():
        elbo = vbd.VBD_ELBO(num_particles=count, estimator=estimator, vectorize_particles=True, max_plate_nesting=1)
        ((trace, _),) = elbo._get_traces(model, guide, (), {})
        at_once = trace.nodes["_RETURN"]["value"]
        one_by_one = torch.stack(
            [
                paired_traces(model, guide, (), {}, estimator_by_site(estimator))[0].nodes["_RETURN"]["value"]
                for _ in range(count)
            ]
        )
    assert at_once.shape == one_by_one.shape == (count, N)
    for statistic in (lambda v: v, lambda v: (v - one_by_one.mean(0)).square()):
        a, b = statistic(at_once), statistic(one_by_one)
        assert ((a.mean(0) - b.mean(0)) / ((a.var(0) + b.var(0)) / count).sqrt()).abs().max() < 4
    assert at_once.std(0).min() > 0


@pytest.mark.parametrize("name", CASES)
def test_elbo_with_vectorised_particles_learns_every_weight(name):
    make, shape = CASES[name]
    model = log_likelihood_model(vbd.lift(make(), PRIOR), torch.randn(shape))
    guide = ready(vbd.VBDGuide(model))
    vbd.VBD_ELBO(num_particles=3, vectorize_particles=True).terms(model, guide).log_likelihood.backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in guide.parameters())


@pytest.mark.parametrize("name", ["linear", "convolution", "recurrent"])
def test_parallel_predictive_agrees_with_the_loop(name):
    make, shape = CASES[name]
    x, count = torch.randn(shape), 200
    model = vbd.Regressor(make(), PRIOR, N)
    guide = vbd.VBDGuide(model, init_log_var=-4.0)
    sites = ["y", next(iter(model.network.priors))]
    loop, parallel = (
        Predictive(model, guide=guide, num_samples=count, return_sites=sites, parallel=parallel)(x)
        for parallel in (False, True)
    )
    for site in sites:
        a, b = (draws[site].reshape(count, -1).detach() for draws in (loop, parallel))
        for statistic in (lambda v: v, lambda v: v.square()):
            z = (statistic(a).mean(0) - statistic(b).mean(0)) / ((statistic(a).var(0) + statistic(b).var(0)) / count).sqrt()
            assert z.abs().max() < 4


@pytest.mark.parametrize("estimator", ["local", "weights"])
@pytest.mark.parametrize("name", ["linear", "recurrent"])
def test_weight_held_at_one_value_under_vectorised_particles(name, estimator):
    """poutine.condition gives it without the particles' dimension."""
    make, shape = CASES[name]
    net, x = make(), torch.randn(shape)
    lifted = vbd.lift(net, PRIOR)
    held = {site: net.get_parameter(site).detach() for site in [*lifted.priors][:-1]}
    model = poutine.condition(log_likelihood_model(lifted, x), data=held)
    guide = ready(vbd.VBDGuide(model, init_log_var=-60.0))
    elbo = vbd.VBD_ELBO(num_particles=5, estimator=estimator, vectorize_particles=True, max_plate_nesting=1)
    ((trace, _),) = elbo._get_traces(model, guide, (), {})
    torch.testing.assert_close(trace.nodes["_RETURN"]["value"], net(x).squeeze(-1).expand(5, N))


def test_prior_predictive_in_parallel():
    model = vbd.Regressor(nn.Linear(3, 1), vbd.priors.Gaussian(), N)
    assert Predictive(model, num_samples=7, parallel=True)(torch.randn(N, 3))["y"].shape == (7, N, 1)


class Several(nn.Module):
    """Outputs in a dict, a tuple and a list, by way of a loop (recurrent) or of vmap."""

    def __init__(self, recurrent: bool):
        super().__init__()
        self.body = nn.LSTM(3, 2) if recurrent else nn.Linear(3, 2)

    def forward(self, x):
        output = self.body(x)
        first = output[0] if isinstance(output, tuple) else output
        return {"pair": (first, first * 2), "list": [first.sum(-1)]}


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("lead", [(5,), (2, 3)])
def test_many_draws_of_several_outputs(recurrent, lead):
    lifted, x = vbd.lift(Several(recurrent), PRIOR), torch.randn(N, 3)
    with (
        pyro.plate("num_particles_vectorized", lead[-1], dim=-2),
        pyro.plate("members", lead[0], dim=-3) if lead[1:] else nullcontext(),
    ):
        output = lifted(x)
    first, twice = output["pair"]
    assert first.shape == (*lead, N, 2)
    assert torch.equal(twice, 2 * first)
    torch.testing.assert_close(output["list"][0], first.sum(-1))
    assert first.flatten(0, len(lead) - 1).std(0).min() > 0


@pytest.mark.parametrize("recurrent", [False, True])
def test_many_draws_of_an_output_without_tensors_are_refused(recurrent):
    net = Several(recurrent)
    net.register_forward_hook(lambda module, inputs, output: (output["pair"][0], None))
    lifted = vbd.lift(net, PRIOR)
    assert lifted(torch.randn(N, 3))[0].shape == (N, 2)
    with pyro.plate("num_particles_vectorized", 5, dim=-2), pytest.raises(ValueError, match="NoneType"):
        lifted(torch.randn(N, 3))


def test_many_draws_of_a_convolution_are_the_same_in_a_loop_and_by_vmap(monkeypatch, device):
    network = vbd.lift(nn.Sequential(nn.Conv1d(2, 3, 3), nn.ReLU(), nn.Conv1d(3, 1, 3)), vbd.priors.GaussianUniform())
    draws = {f"{i}.weight": torch.randn(5, 1, *network.net[i].weight.shape) for i in (0, 2)}
    x = torch.randn(4, 2, 9)
    found = []
    for loops in (True, False):
        monkeypatch.setattr("pyro_vbd.many_draws.needs_loop", lambda net, loops=loops: loops)
        found.append(pyro.condition(network, draws)(x))
    assert found[0].shape == (5, 4, 1, 5)
    assert torch.allclose(*found, atol=1e-5)


class Cell(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.LSTMCell(3, 1)

    def forward(self, x):
        return self.cell(x)[0]


@pytest.mark.parametrize("make", [Cell, lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(3, 1))])
def test_many_draws_where_vmap_does_not_know_the_way(make, device):
    model = vbd.Regressor(make(), PRIOR, N).to(device)
    elbo = vbd.VBD_ELBO(num_particles=3, vectorize_particles=True)
    loss = elbo(model, vbd.VBDGuide(model))(torch.randn(N, 3, device=device), torch.randn(N, device=device))
    assert loss.isfinite()


def test_under_two_plates_each_output_is_that_of_its_own_weights():
    lifted, x = vbd.lift(nn.Linear(3, 2), PRIOR), torch.randn(N, 3)
    with (
        pyro.plate("members", 2, dim=-3),
        pyro.plate("num_particles_vectorized", 3, dim=-2),
        poutine.trace() as capture,
    ):
        output = lifted(x)
    weight = capture.trace.nodes["weight"]["value"].reshape(2, 3, 2, 3)
    torch.testing.assert_close(output, torch.einsum("nj,abij->abni", x, weight) + lifted.net.bias)
