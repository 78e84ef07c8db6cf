"""Steps of training by a compiled loss against the three usual lines, with Adam inside the graph and with others."""

import copy

import pyro
import pytest
import torch
from torch import nn
from torch.testing import assert_close

import pyro_vbd as vbd
from pyro_vbd.compiling.compiled_step import adam_key


def losses(prior=None):
    """The same loss twice, with parameters of its own each."""
    net = nn.Sequential(nn.Linear(5, 4, bias=False), nn.BatchNorm1d(4), nn.Linear(4, 3)).double()
    model = vbd.Classifier(net, prior or vbd.priors.Horseshoe(), num_data=100)
    first = vbd.VBD_ELBO()(model, vbd.VBDGuide(model))
    return first, copy.deepcopy(first)


def batch(size=6):
    return torch.randn(size, 5, dtype=torch.float64), torch.arange(size) % 3


def trained(loss):
    return [parameter for parameter in loss.parameters() if parameter.requires_grad]


def train(loss, optimizer, steps, data, compiled=None, scheduler=None):
    """Reports of some steps, by ``update`` where the compiled loss is given, else by hand."""
    reports = []
    for step in range(steps):
        loss.elbo.kl_weight = 0.1 * (step + 1)
        pyro.set_rng_seed(step)
        if compiled is not None:
            reports.append(compiled.update(optimizer, *data)[0].clone())
        else:
            optimizer.zero_grad()
            terms = loss.elbo.terms(loss.model, loss.guide, *data)
            (-terms.elbo).backward()
            optimizer.step()
            reports.append(terms.report().detach())
        if scheduler is not None:
            scheduler.step()
    return torch.stack(reports)


def compare(make_optimizer, steps=4, tolerance=1e-8, eagerly=False):
    ours, theirs = losses()
    data, ends, reports = batch(), [], []
    compiled = vbd.compile(ours)
    compiled._is_static = not eagerly
    for loss in (ours, theirs):
        optimizer = make_optimizer(trained(loss))
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
        reports.append(train(loss, optimizer, steps, data, compiled if loss is ours else None, scheduler))
        ends.append((loss.state_dict(), optimizer.state_dict()["state"]))
    assert_close(reports[0], reports[1], rtol=tolerance, atol=tolerance)
    assert_close(ends[0], ends[1], rtol=tolerance, atol=tolerance)
    return compiled, optimizer


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.Adam(p, lr=1e-2),
        lambda p: torch.optim.Adam(p, lr=1e-2, fused=True),
        lambda p: torch.optim.Adam([{"params": p[:3], "lr": 1e-3}, {"params": p[3:]}], lr=1e-2, betas=(0.5, 0.9)),
        lambda p: torch.optim.Adam(p, lr=1e-2, weight_decay=0.1),
        lambda p: torch.optim.SGD(p, lr=1e-5, momentum=0.9),
    ],
)
def test_updates_are_the_steps_of_torchs_optimizers(make):
    compare(make)


def test_updates_that_run_eagerly_are_these_steps_too():
    compare(lambda p: torch.optim.SGD(p, lr=1e-5, momentum=0.9), eagerly=True)


def test_an_update_compiled_by_inductor():
    compare(lambda p: torch.optim.Adam(p, lr=1e-2, fused=True))


@pytest.mark.usefixtures("traced")
def test_the_report_names_its_sites():
    loss, _ = losses()
    report, sites = vbd.compile(loss).update(torch.optim.Adam(trained(loss)), *batch())
    assert tuple(sites) == ("0.weight_gamma", "0.weight", "2.weight_gamma", "2.weight")
    assert report[0].item() == pytest.approx((report[2:].sum() - report[1]).item(), rel=1e-5)
    assert not report.requires_grad


@pytest.mark.usefixtures("traced")
def test_the_state_may_be_loaded_and_settings_changed_between_updates():
    ours, theirs = losses()
    data, compiled = batch(), vbd.compile(ours)
    optimizers = [torch.optim.Adam(trained(loss), lr=1e-2) for loss in (ours, theirs)]
    for number, change in enumerate((None, "load", "lr", "betas")):
        for optimizer in optimizers:
            if change == "load":
                optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
            if change == "betas":
                optimizer.param_groups[0]["betas"] = (0.3, 0.7)
            if change == "lr":
                optimizer.param_groups[0]["lr"] = 0.3
        train(ours, optimizers[0], 1 + number % 2, data, compiled)
        train(theirs, optimizers[1], 1 + number % 2, data)
        assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-8, atol=1e-8)


def test_of_an_adam_all_but_the_learning_rates_is_built_into_a_program():
    parameters = [torch.zeros(2, requires_grad=True)]
    optimizer = torch.optim.Adam(parameters)
    keys = [adam_key(optimizer), adam_key(torch.optim.Adam(parameters))]
    optimizer.param_groups[0]["lr"] = 0.5
    assert adam_key(optimizer) == keys[0]
    for name, value in (("betas", (0.5, 0.9)), ("eps", 0.1)):
        optimizer.param_groups[0][name] = value
        keys.append(adam_key(optimizer))
    optimizer.add_param_group({"params": [torch.zeros(1, requires_grad=True)]})
    assert len({*keys, adam_key(optimizer)}) == 5


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD])
@pytest.mark.parametrize("eagerly", [False, True])
def test_a_loss_that_is_not_finite_moves_nothing_until_restart(optimizer, eagerly):
    loss, _ = losses()
    compiled = vbd.compile(loss)
    optimizer = optimizer(trained(loss), lr=1e-3)
    (x, y), run = batch(), compiled.update
    bad = x.index_fill(0, torch.tensor([1]), torch.inf)
    run(optimizer, x, y)
    if eagerly:
        compiled._is_static = False
        x, y, bad = x[:4], y[:4], bad[:4]

    def state():
        return copy.deepcopy((dict(loss.named_parameters()), optimizer.state_dict()["state"]))

    before = state()
    with pyro.validation_enabled(False):
        report, _ = run(optimizer, bad, y)
        assert not report[0].isfinite()
        assert run(optimizer, bad, y)[0].isnan().any()
    loss.model.network.net[1].reset_running_stats()
    assert run(optimizer, x, y)[0][0].isfinite()
    assert_close(state(), before, rtol=0, atol=0)
    compiled.restart()
    run(optimizer, x, y)
    assert not torch.equal(state()[0]["model.network.net.2.bias"], before[0]["model.network.net.2.bias"])


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD])
def test_a_parameter_of_something_else_stays_and_no_gradients_are_left(optimizer):
    loss, _ = losses()
    other = nn.Parameter(torch.ones(2))
    other.grad = torch.ones(2)  # of an earlier step
    vbd.compile(loss).update(optimizer([*trained(loss), other], lr=0.1), *batch())
    assert torch.equal(other, torch.ones(2))
    assert all(parameter.grad is None for parameter in trained(loss))


@pytest.mark.usefixtures("traced")
def test_an_optimizer_of_another_network_is_refused():
    ours, theirs = losses()
    with pytest.raises(ValueError, match="none of the parameters of this loss"):
        vbd.compile(ours).update(torch.optim.Adam(trained(theirs)), *batch())
