"""What the recipes of the plain methods ask of each phase: rates, decay, steps between, and whose error is measured."""

import pytest
import torch
import torch.nn.functional as F

from examples.paper import (
    bayesian_pruning,
    dropouts,
    magnitude_pruning,
    network_surgery,
    soft_weight_sharing,
    structured_sparsity,
    table1,
    table2,
    table4,
    table5,
)
from pyro_vbd import noise
from tests.paper.phases import asked

BY_NAME = {table.name: table for module in (table1, table2, table4, table5) for table in module.TABLES}


def settings(phase):
    """The learning rate and the decay of a phase's optimizer."""
    (group,) = phase["made"].param_groups
    return group["lr"], group["weight_decay"]


def test_magnitude_pruning(monkeypatch):
    phases, *_ = asked(monkeypatch, magnitude_pruning, "pruning", BY_NAME["4"])
    assert [phase["epochs"] for phase in phases] == [80, 30, 30, 30, 30]
    assert [settings(phase) for phase in phases] == [(1e-3, 1e-5), *[(pytest.approx(1e-4), 1e-5)] * 4]
    assert [phase["lr_schedule"](60, 80) for phase in phases[:1]] == [0.5]
    assert len({phase["phase"] for phase in phases}) == 5  # checkpoints of their own


def test_network_surgery(monkeypatch):
    phases, recipe, _ = asked(monkeypatch, network_surgery, "dns", BY_NAME["4"], last_update=40)
    assert [phase["epochs"] for phase in phases] == [80, 120]
    for phase in phases:
        assert settings(phase) == (1e-2, 5e-4)
        assert phase["made"].param_groups[0]["momentum"] == 0.9
        assert phase["lr_schedule"](7, 120) == pytest.approx((1 + 1e-4 * 3 * 7) ** -0.75)  # three steps an epoch
    net, after_step = phases[1]["net"], phases[1]["after_step"]
    weights = [module.parametrizations["weight"] for module in net if hasattr(module, "weight")]
    after_step(40)
    assert all(bool(weight[0].mask.all()) for weight in weights)  # the last update is over
    after_step(0)
    for weight, share in zip(weights, recipe["sparsity"], strict=True):
        size = weight.original.detach().abs()
        assert torch.equal(weight[0].mask == 1, size > 0.9 * network_surgery.quantile(size, share))


def test_soft_weight_sharing(monkeypatch):
    (dense, mixture), _, found = asked(monkeypatch, soft_weight_sharing, "sws", BY_NAME["4"])
    assert (dense["epochs"], mixture["epochs"]) == (100, 100)
    assert settings(dense) == (1e-3, 1e-4)
    shared = mixture["net"]
    assert [group["lr"] for group in mixture["made"].param_groups] == [5e-4, 1e-4, 3e-3]
    assert [len(group["params"]) for group in mixture["made"].param_groups] == [6, 1, 2]
    x, y = torch.randn(5, 784), torch.arange(5)
    torch.testing.assert_close(mixture["loss"](shared, x, y), shared.loss(x, y, 0.05, 60))
    quantised = mixture["measure"](shared, x, y)
    assert found["compression"] == quantised["compression"] > 1  # of the network as it is stored


def test_structured_sparsity(monkeypatch):
    steps = []
    monkeypatch.setattr(structured_sparsity, "shrink_groups", lambda net, step: steps.append(step))
    (lasso, tune), recipe, _ = asked(monkeypatch, structured_sparsity, "ssl", BY_NAME["5"])
    assert lasso["epochs"] + tune["epochs"] == 200
    assert [settings(phase)[0] for phase in (lasso, tune)] == [1e-3, pytest.approx(1e-3 * recipe["tune_lr"])]
    epoch = round(0.75 * lasso["epochs"])
    for step in (0, 3 * epoch, 3 * epoch + 2):  # three steps an epoch
        lasso["after_step"](step)
    whole = recipe["lambda"] * 1e-3
    assert steps == pytest.approx([whole, 0.5 * whole, 0.5 * whole], rel=0.05)
    assert steps[1] == steps[2]
    assert steps[1] / whole == lasso["lr_schedule"](epoch, lasso["epochs"])


def test_structured_bayesian_pruning(monkeypatch):
    phases, recipe, _ = asked(monkeypatch, bayesian_pruning, "sbp", BY_NAME["5"])
    gates = phases[-1]
    assert sum(phase["epochs"] for phase in phases) == 200
    (group,) = gates["made"].param_groups
    assert (group["lr"], group["betas"]) == (recipe["lr"], (recipe["beta1"], 0.999))
    net, x, y = gates["net"].eval(), torch.randn(5, 1, 28, 28), torch.arange(5)
    expected = F.cross_entropy(net(x), y) + recipe["kl_weight"] * noise.penalty(net) / 60
    torch.testing.assert_close(gates["loss"](net, x, y), expected)


@pytest.mark.parametrize("name", ["bernoulli", "concrete", "adversarial"])
def test_dropouts(monkeypatch, name):
    table = BY_NAME["2" if name == "adversarial" else "1"]
    (phase,), recipe, found = asked(monkeypatch, dropouts, name, table)
    assert phase["epochs"] == recipe["epochs"]
    assert settings(phase) == (recipe["lr"], 0.0)
    net, y = phase["net"].train(name == "adversarial"), torch.arange(5)
    x = torch.randn(5, *((3, 32, 32) if name == "adversarial" else (1, 28, 28)))
    torch.manual_seed(3)
    ours = phase["loss"](net, x, y)
    if name == "adversarial":
        torch.manual_seed(3)
        torch.testing.assert_close(ours, noise.adversarial_loss(net, x, y, 1.0))
    else:
        penalty = noise.penalty(net) / 60 if name == "concrete" else 0.0
        torch.testing.assert_close(ours, F.cross_entropy(net(x), y) + penalty)
    assert ("rates" in found) == (name == "concrete")
