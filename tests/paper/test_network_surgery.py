import pytest
import torch
from torch.nn.utils import parametrize

from examples.paper.network_surgery import Surgery, operate, quantile, revise, update_probability
from models import mlp


def test_the_masks_rule_by_hand():
    mask = torch.ones(7)
    revise(mask, torch.tensor([0.5, 0.89, 0.95, 1.05, 1.2, 0.5, 1.2]), 1.0)  # between 0.9 and 1.1 as it was: 1
    assert mask.tolist() == [0, 0, 1, 1, 1, 0, 1]
    revise(mask, torch.tensor([1.2, 1.05, 0.5, 1.2, 0.95, 1.2, 0.0]), 1.0)
    assert mask.tolist() == [1, 0, 0, 1, 1, 1, 0]


def test_gradients_reach_the_weights_that_are_gone():
    net = mlp(6, (), 3)
    layer = net[1]
    operate(net, [0.5])
    surgery = layer.parametrizations["weight"][0]
    surgery.update(layer.parametrizations["weight"].original)
    x = torch.randn(8, 6)
    net(x).sum().backward()
    expected = x.sum(0).expand(3, 6)
    torch.testing.assert_close(layer.parametrizations["weight"].original.grad, expected)
    torch.testing.assert_close(layer.weight, layer.parametrizations["weight"].original * surgery.mask)
    assert 0 < surgery.mask.sum() < surgery.mask.numel()


def test_the_threshold_is_the_quantile_of_the_present_weights():
    sizes = torch.rand(1000)
    assert float((sizes < quantile(sizes, 0.98)).float().mean()) == pytest.approx(0.98, abs=1e-6)
    assert quantile(sizes, 1.0) == sizes.max()
    surgery = Surgery(sizes, 0.9)
    for grown in (sizes, 3 * sizes):  # the same weights go when all have grown
        surgery.update(grown)
        assert float(surgery.mask.mean()) == pytest.approx(0.1, abs=0.12)
    assert float(surgery.mask.mean()) < 0.25


def test_the_state_holds_the_masks():
    net, other = mlp(6, (), 3), mlp(6, (), 3)
    for made in (net, other):
        operate(made, [0.5])
        assert parametrize.is_parametrized(made[1], "weight")
    net[1].parametrizations["weight"][0].update(net[1].parametrizations["weight"].original)
    other.load_state_dict(net.state_dict())
    assert torch.equal(net[1].weight, other[1].weight)


def test_updates_grow_rare():
    assert update_probability(0) == 1.0
    assert update_probability(10_000) == 0.5
    assert update_probability(10_000, gamma=3e-4, power=0.5) == 0.5
