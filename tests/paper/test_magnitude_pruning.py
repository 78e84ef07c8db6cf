import pytest
import torch

from examples.paper.magnitude_pruning import prune_round
from models import mlp


def test_the_smallest_weights_of_each_layer_go_round_by_round():
    net = mlp(10, (10,), 10)
    layers = [net[1], net[3]]
    before = [layer.weight.detach().clone() for layer in layers]
    for rounds, expected in ((1, 50), (2, 25)):
        prune_round(net, [0.75, 0.75], 2)
        for layer, weight in zip(layers, before, strict=True):
            kept = layer.weight != 0
            assert int(kept.sum()) == expected, rounds
            assert weight.abs()[kept].min() > weight.abs()[~kept].max()


def test_a_round_sees_the_weights_that_were_loaded():
    """A run that goes on loads them, and may come to its next round before a forward pass."""
    net = mlp(10, (10,), 10)
    prune_round(net, [0.75, 0.75], 2)
    state = net.state_dict()
    state["1.weight_orig"] = 1 / state["1.weight_orig"]
    net.load_state_dict(state)
    prune_round(net, [0.75, 0.75], 2)
    kept, left = net[1].weight_mask > 0, state["1.weight_mask"] > 0
    assert int(kept.sum()) == 25
    size = state["1.weight_orig"].abs()
    assert size[kept].min() > size[left & ~kept].max()


def test_layers_have_their_own_shares():
    net = mlp(10, (10,), 10)
    prune_round(net, [0.9, 0.2], 1)
    assert [int((layer.weight == 0).sum()) for layer in (net[1], net[3])] == [90, 20]


def test_pruned_weights_stay_at_zero_in_training():
    net = mlp(10, (10,), 10)
    prune_round(net, [0.5, 0.5], 1)
    gone = net[1].weight == 0
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        net(torch.randn(8, 10)).square().sum().backward()
        optimizer.step()
    net(torch.randn(1, 10))
    assert (net[1].weight[gone] == 0).all()
    assert (net[1].weight[~gone] != 0).all()


def test_a_share_for_each_layer():
    with pytest.raises(ValueError, match="zip"):
        prune_round(mlp(4, (3,), 2), [0.5], 1)
