"""Parameters that SVI finds and that stay with their modules."""

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.nn import PyroModule
from torch import nn

import pyro_vbd as vbd
from pyro_vbd.estimators.local_reparam import LocalReparam
from pyro_vbd.parameters import (
    LocalParameters,
    SampleTrace,
    announce,
    announced,
    captured_parameters,
    module_key,
    unique_label,
)


def test_labels_are_unique_in_the_process():
    kinds = ["GuideOfThisTest", "GuideOfThisTest", "OtherOfThisTest", "GuideOfThisTest"]
    labels = [unique_label(kind) for kind in kinds]
    assert labels == ["GuideOfThisTest", "GuideOfThisTest_1", "OtherOfThisTest", "GuideOfThisTest_2"]


def test_sites_have_a_key_each_that_torch_takes():
    sites = ["a.b", "a/b", "a~1b", "a~0b", "a.b/c", "a/b.c"]
    keys = nn.ParameterDict({module_key(site): nn.Parameter(torch.zeros(())) for site in sites})
    assert len(keys) == len(sites)


def test_announced_parameter_is_itself_where_nobody_listens():
    parameter = nn.Parameter(torch.ones(3))
    assert announce("p", parameter) is parameter
    with LocalReparam(), SampleTrace() as trace:
        assert announce("p", parameter) is parameter
        pyro.param("q", torch.zeros(()))
    assert "p" not in trace.trace
    with poutine.trace() as trace:
        announce("p", parameter)
    assert "p" in trace.trace


def test_announced_parameter_is_a_site_that_leads_back_to_its_leaf():
    parameter = nn.Parameter(torch.arange(3.0))
    with poutine.trace(param_only=True) as seen:
        value = announce("p", parameter)
    site = seen.trace.nodes["p"]
    assert site["type"] == "param"
    assert site["value"].unconstrained() is parameter
    assert torch.equal(value, parameter)
    (value**2).sum().backward()
    assert torch.equal(parameter.grad, 2 * parameter.detach())


def test_handlers_of_parameters_are_heard():
    """A parameter may be replayed, and hidden."""
    parameter, other = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.ones(3))

    def model():
        return announce("p", parameter)

    with poutine.trace(param_only=True) as seen:
        announce("p", other)
    replayed = poutine.replay(model, params={"p": seen.trace.nodes["p"]["value"]})()
    assert replayed.unconstrained() is other
    with poutine.trace(param_only=True) as outer:
        value = poutine.block(model, hide=["p"])()
    assert not outer.trace.nodes
    assert torch.equal(value, parameter)


def test_only_trained_parameters_are_announced():
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    net[0].weight.requires_grad_(False)
    with captured_parameters() as found:
        values = announced("net", net)
    assert list(values) == ["0.bias", "1.weight", "1.bias"]
    assert list(found) == ["net.0.bias", "net.1.weight", "net.1.bias"]
    assert found["net.1.weight"] is net[1].weight


@pytest.mark.parametrize("module_local_params", [False, True])
def test_captured_parameters_are_leaves_of_every_kind(module_local_params):
    """Announced ones, pyro.param under a constraint, and those of a PyroModule."""
    pyro.settings.set(module_local_params=module_local_params)
    parameter = nn.Parameter(torch.ones(2))
    module = PyroModule[nn.Linear](2, 1)

    def model():
        scale = pyro.param("scale", torch.tensor(2.0), constraint=dist.constraints.positive)
        return (scale * module(announce("p", parameter))).sum()

    with captured_parameters() as found:
        loss = model()
    assert {"p", "scale"} <= set(found)
    assert all(value.is_leaf and value.requires_grad for value in found.values())
    assert {id(value) for value in found.values()} >= {id(parameter), id(module.weight), id(module.bias)}
    loss.backward()
    assert all(value.grad is not None for value in found.values())


def test_nothing_is_captured_outside():
    with captured_parameters() as found:
        pass
    announce("p", nn.Parameter(torch.ones(2)))
    assert not found


def test_plain_parameters_of_a_pyro_module_lead_back_to_their_leaves():
    """What SVI asks of them, and misses under module_local_params=True without this handler."""
    pyro.settings.set(module_local_params=True)
    module = PyroModule[nn.Linear](2, 1)
    with poutine.trace(param_only=True) as bare:
        module(torch.ones(1, 2))
    assert not hasattr(bare.trace.nodes["weight"]["value"], "unconstrained")
    with poutine.trace(param_only=True) as seen, LocalParameters():
        output = module(torch.ones(1, 2))
    assert seen.trace.nodes["weight"]["value"].unconstrained() is module.weight
    output.sum().backward()
    assert torch.equal(module.weight.grad, torch.ones(1, 2))


def test_pyros_own_parameters_are_left_as_they_are():
    for setting in (False, True):
        pyro.clear_param_store()
        pyro.settings.set(module_local_params=setting)
        with poutine.trace(param_only=True) as seen, LocalParameters():
            value = pyro.param("scale", torch.tensor(2.0), constraint=dist.constraints.positive)
        torch.testing.assert_close(value.detach(), torch.tensor(2.0))
        torch.testing.assert_close(seen.trace.nodes["scale"]["value"].unconstrained().detach(), torch.tensor(2.0).log())


@pytest.mark.parametrize("module_local_params", [False, True])
def test_the_store_holds_no_announced_value(module_local_params):
    pyro.settings.set(module_local_params=module_local_params)
    parameter = nn.Parameter(torch.ones(2))
    with poutine.trace(param_only=True):  # as SVI does
        announce("p", parameter)
    store = pyro.get_param_store()
    assert not list(store.keys())
    assert store.param_name(parameter) == "p"


def test_names_are_noted_under_svi_alone():
    """The store's map keeps its keys alive: a trace for another purpose must not put a parameter there."""
    parameter = nn.Parameter(torch.ones(2))
    announce("p", parameter)
    with poutine.trace(), poutine.replay(params={}):
        announce("p", parameter)
    with captured_parameters():
        announce("p", parameter)
    assert pyro.get_param_store().param_name(parameter) is None


@pytest.mark.parametrize("elbo", [TraceMeanField_ELBO, Trace_ELBO, vbd.VBD_ELBO])
def test_loss_and_grads_outside_svi_gives_gradients(elbo):
    """Pyro's ELBOs go backward only if they have seen a parameter."""
    model = vbd.Classifier(nn.Linear(3, 2), vbd.priors.Gaussian(1.0), 4)
    guide = vbd.VBDGuide(model)
    elbo().loss_and_grads(model, guide, torch.randn(4, 3), torch.tensor([0, 1, 0, 1]))
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in [*guide.parameters(), model.network.net.bias])
