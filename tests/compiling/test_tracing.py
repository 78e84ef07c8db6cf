"""A step as a graph of plain operators: what it takes, what it gives, and what it leaves as it was."""

import random

import numpy as np
import pyro
import pytest
import torch
from torch import nn
from torch.testing import assert_close

import pyro_vbd as vbd
from pyro_vbd.compiling.tracing import NotStatic, trace_step, trainable_leaves, undisturbed


def pair(net, prior=None):
    model = vbd.Classifier(net, prior or vbd.priors.Horseshoe(), num_data=100)
    return model, vbd.VBDGuide(model)


def trace(model, guide, *data, elbo=None):
    elbo = elbo or vbd.VBD_ELBO()
    parameters = trainable_leaves(elbo(model, guide)(*data))
    return trace_step(elbo, model, guide, parameters, data, {})


def test_what_a_graph_takes_and_gives():
    model, guide = pair(nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)))
    data = torch.randn(6, 5), torch.arange(6) % 3
    elbo = vbd.VBD_ELBO(kl_weight=0.5)
    found = trace(model, guide, *data, elbo=elbo)
    trained = {id(p) for part in (model, guide) for p in part.parameters() if p.requires_grad}
    assert {id(p) for p in found.parameters} == trained
    assert len(found.buffers) == 3
    assert found.sites == ("0.weight_gamma", "0.weight", "2.weight_gamma", "2.weight")
    assert all(node.op != "get_attr" for node in found.graph.graph.nodes)
    assert not list(found.graph.buffers())
    kept = [buffer.clone() for buffer in found.buffers]
    for kl_weight in (0.5, 2.0):
        elbo.kl_weight = kl_weight
        pyro.set_rng_seed(1)
        terms = elbo.terms(model, guide, *data)
        theirs = [terms.report().detach(), *torch.autograd.grad(-terms.elbo, found.parameters)]
        moved = [buffer.clone() for buffer in found.buffers]
        for buffer, value in zip(found.buffers, kept, strict=True):
            buffer.copy_(value)
        pyro.set_rng_seed(1)
        with torch.no_grad():
            ours = found.graph(*data, torch.tensor(kl_weight), *found.tensors)
        assert_close(list(ours), theirs, rtol=1e-4, atol=1e-4)
        assert_close(found.buffers, moved)
        for buffer, value in zip(found.buffers, kept, strict=True):
            buffer.copy_(value)


def test_a_graph_takes_no_tensor_that_it_does_not_read():
    """Nor the network's own weights, nor what a run has made on the CPU and let go, which no CUDA graph could hold."""
    for prior in (vbd.priors.GaussianUniform(), vbd.priors.LogUniform()):
        found = trace(*pair(nn.Linear(5, 3), prior), torch.randn(6, 5), torch.arange(6) % 3)
        assert all(constant.shape == () for constant in found.constants)  # bounds of the prior


def test_the_leaves_of_a_loss_are_found_wherever_they_are():
    hidden = torch.ones((), requires_grad=True)
    frozen = torch.ones(())
    layer = nn.Linear(2, 1)
    layer.bias.requires_grad_(False)
    loss = (layer(torch.randn(3, 2)) * hidden * frozen).sum()
    assert {id(leaf) for leaf in trainable_leaves(loss)} == {id(hidden), id(layer.weight)}
    assert trainable_leaves(torch.zeros(())) == []


def test_checks_of_data_are_noted_with_the_number_of_the_input():
    model, guide = pair(nn.Linear(5, 3))
    found = trace(model, guide, torch.randn(6, 5), torch.arange(6) % 3)
    assert sorted(number for _, number in found.checks) == [0, 1]
    labels = next(look for look, number in found.checks if number == 1)
    labels(torch.tensor([0, 2]))
    with pytest.raises(ValueError, match="label"):
        labels(torch.tensor([3]))


def test_checks_of_a_part_of_an_input_are_not_those_of_the_whole():
    whole, _ = pair(nn.Linear(5, 3))

    def model(x, y):
        return whole(x, y[:6])

    found = trace(model, vbd.VBDGuide(model), torch.randn(6, 5), torch.tensor([0, 1, 2, 0, 1, 2, 7]))
    assert [number for _, number in found.checks] == [0]


class Functional(nn.Module):
    """Normalises by a layer that never runs."""

    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(5, 3), nn.BatchNorm1d(3)

    def forward(self, x):
        return nn.functional.batch_norm(self.linear(x), self.norm.running_mean, self.norm.running_var, training=True)


def test_buffers_of_modules_that_do_not_run_are_buffers():
    model, guide = pair(Functional())
    found = trace(model, guide, torch.randn(6, 5), torch.arange(6) % 3)
    norm = model.network.net.norm
    assert {b.data_ptr() for b in found.buffers} == {norm.running_mean.data_ptr(), norm.running_var.data_ptr()}


def test_buffers_of_modules_that_a_function_calls_are_buffers():
    (whole, _), norm = pair(nn.Linear(5, 3)), nn.BatchNorm1d(5, affine=False)

    def model(x, y):
        return whole(norm(x), y)

    found = trace(model, vbd.VBDGuide(model), torch.randn(6, 5), torch.arange(6) % 3)
    assert {b.data_ptr() for b in found.buffers} == {b.data_ptr() for b in norm.buffers()}


class Acting(nn.Module):
    def __init__(self, act):
        super().__init__()
        self.linear, self.act = nn.Linear(5, 3), act

    def forward(self, x):
        return self.act(self.linear(x))


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (lambda out: out if out.sum() > 0 else -out, "cannot be traced"),
        (lambda out: out * out.sum().item(), "cannot be traced"),
        (lambda out: out + out[out > 0].sum(), "depends on values"),
        (lambda out: out + out.nonzero().sum(), "depends on values"),
        (lambda out: out + out[out[:, 0] > 0, torch.zeros(1, dtype=torch.long)].sum(), "depends on values"),
        (lambda out: out * random.random(), "Python's or NumPy's random state"),
        (lambda out: out * np.random.rand(), "Python's or NumPy's random state"),  # noqa: NPY002
    ],
)
def test_what_cannot_be_traced_says_why(act, reason):
    model, guide = pair(Acting(act))
    with pytest.raises(NotStatic, match=reason):
        trace(model, guide, torch.randn(6, 5), torch.arange(6) % 3)


def test_undisturbed_gives_random_states_buffers_and_flags_back(monkeypatch):
    net = nn.BatchNorm1d(2)
    before = torch.get_rng_state(), random.getstate(), np.random.rand.__self__.get_state()[1].copy()
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", True)
    with undisturbed(net):
        assert not torch.backends.mkldnn.enabled
        net(torch.randn(4, 2))
        random.random()
        np.random.rand()  # noqa: NPY002
    assert torch.backends.mkldnn.enabled
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert (np.random.rand.__self__.get_state()[1] == before[2]).all()
    assert torch.equal(net.running_mean, torch.zeros(2))
