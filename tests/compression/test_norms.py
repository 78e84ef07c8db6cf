"""Norms: what they make of constants, what of them is left, and which channels can only go together."""

import pytest
import torch
from torch import nn

from pyro_vbd.compression import cut
from tests.compression.networks import LastToken, through


@torch.no_grad()
def test_a_norm_without_weight_makes_a_constant():
    for norm in (nn.BatchNorm2d(4), nn.InstanceNorm2d(4, affine=True)):
        norm.weight[3] = 0.0
        norm.bias.normal_()
        through(norm, 2)


@torch.no_grad()
def test_a_layer_norm_keeps_its_inputs_and_its_constants_are_not_read():
    net = nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.Linear(6, 3))
    net[1].weight[2] = 0.0
    net[1].bias[2] = 1.0
    x = torch.randn(4, 5)
    found = cut(net, x)
    assert found.units["0"] == (6, 6)
    assert found.network[2][0].index.tolist() == [0, 1, 3, 4, 5]
    torch.testing.assert_close(found.network(x), net(x), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_layer_norm_of_several_dimensions_keeps_all():
    net = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm((6, 6)), nn.Linear(6, 3))
    net[1].weight[:, 2] = 0.0
    net[1].bias.normal_()
    x = torch.randn(2, 6, 4)
    found = cut(net, x)
    assert found.units["0"] == (6, 6)
    torch.testing.assert_close(found.network(x), net(x), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_groups_of_a_group_norm_go_whole():
    net = nn.Sequential(nn.Conv2d(2, 6, 3), nn.GroupNorm(3, 6), nn.ReLU(), nn.Conv2d(6, 3, 3))
    net[3].weight[:, [0, 2, 3]] = 0.0
    x = torch.randn(2, 2, 8, 8)
    found = cut(net, x)
    assert found.units["0"] == (6, 4)
    assert found.network[1].num_groups == 2
    torch.testing.assert_close(found.network(x), net(x), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_norms_in_training_are_their_old_selves():
    """Buffers and settings are those of the channels that stay."""
    norm = nn.BatchNorm2d(4, eps=0.1, momentum=0.3)
    norm.num_batches_tracked += 7
    small = through(norm, 3)[1]
    assert (small.eps, small.momentum, int(small.num_batches_tracked)) == (0.1, 0.3, 7)
    assert torch.equal(small.running_mean, norm.running_mean[[0, 2, 3]])


@torch.no_grad()
@pytest.mark.parametrize("norm", [nn.GroupNorm(1, 8), nn.BatchNorm1d(8), nn.PReLU(8)])
def test_behind_code_that_has_no_units_to_follow_it_stays(norm):
    net = nn.Sequential(nn.Embedding(11, 8), LastToken(), norm, nn.Linear(8, 4)).eval()
    tokens = torch.tensor([[1, 0, 3, 3, 9], [2, 1, 9, 4, 7]])
    torch.testing.assert_close(cut(net, tokens).network(tokens), net(tokens))
