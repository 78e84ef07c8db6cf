"""What each layer makes of constant inputs, in numbers."""

import pytest
import torch
from torch import nn

from pyro_vbd.compression import cut


def pair(first, second, x):
    """Two layers, of which the first has a unit without weights that emits 1.5."""
    net = nn.Sequential(first, second).eval()
    with torch.no_grad():
        weight = first.weight.transpose(0, 1) if isinstance(first, nn.ConvTranspose2d) else first.weight
        weight[1] = 0.0
        first.bias[1] = 1.5
    found = cut(net, x)
    torch.testing.assert_close(found.network(x), net(x), rtol=1e-5, atol=1e-5)
    return found


@pytest.mark.parametrize(
    ("second", "left"),
    [
        (nn.Conv2d(4, 3, 3), 3),
        (nn.Conv2d(4, 3, 3, padding=1), 4),
        (nn.Conv2d(4, 3, 3, padding="same"), 4),
        (nn.Conv2d(4, 3, 3, padding="valid"), 3),
        (nn.Conv2d(4, 3, 1, padding="same"), 3),
        (nn.Conv2d(4, 3, 3, padding=1, padding_mode="circular"), 3),
        (nn.Conv2d(4, 3, 3, padding=1, padding_mode="reflect"), 3),
        (nn.Conv2d(4, 3, 3, stride=2), 3),
        (nn.ConvTranspose2d(4, 3, 3, stride=2), 4),
    ],
    ids=str,
)
def test_a_constant_is_folded_where_that_is_exact(second, left):
    assert pair(nn.Conv2d(2, 4, 3), second, torch.randn(2, 2, 8, 8)).units["0"] == (4, left)


def test_a_transposed_convolution_loses_units():
    found = pair(nn.ConvTranspose2d(2, 4, 3), nn.Conv2d(4, 3, 3), torch.randn(2, 2, 8, 8))
    assert found.units["0"] == (4, 3)


@torch.no_grad()
def test_an_embedding_loses_features():
    net = nn.Sequential(nn.Embedding(7, 5, padding_idx=2), nn.Flatten(), nn.Linear(15, 3))
    net[0].weight[:, 1] = 2.0
    net[2].weight.view(3, 3, 5)[:, :, 4] = 0.0
    x = torch.randint(7, (4, 3))
    found = cut(net, x)
    assert found.units["0"] == (5, 3)
    assert found.network[0].padding_idx == 2
    torch.testing.assert_close(found.network(x), net(x), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_an_embedding_that_renormalises_its_rows_stays_whole():
    net = nn.Sequential(nn.Embedding(7, 5, max_norm=1.0), nn.Flatten(), nn.Linear(15, 3))
    net[0].weight[:3].mul_(0.01)  # the others are too long, and are not among the example inputs
    net[0].weight[3:].mul_(10.0)
    net[0].weight[:, 1] = 0.1
    found, x = cut(net, torch.randint(3, (4, 3))), torch.arange(7).expand(3, 7).T
    assert found.network[0].weight.shape == (7, 5)
    torch.testing.assert_close(found.network(x), net(x), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_group_whose_inputs_cannot_go_stays():
    net = nn.Sequential(nn.Conv1d(2, 4, 1), nn.Softmax(1), nn.Conv1d(4, 4, 3, groups=2), nn.Conv1d(4, 3, 1))
    net[3].weight[:, :2] = 0.0
    x = torch.randn(2, 2, 9)
    found = cut(net, x)
    assert (found.units["2"], found.network[2].groups) == ((4, 4), 2)
    torch.testing.assert_close(found.network(x), net(x), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_depthwise_channels_go_with_their_inputs():
    net = nn.Sequential(nn.Conv1d(2, 4, 1), nn.Conv1d(4, 4, 3, groups=4), nn.Conv1d(4, 3, 1))
    net[2].weight[:, 2] = 0.0
    x = torch.randn(2, 2, 9)
    found = cut(net, x)
    assert (found.units["0"], found.network[1].groups) == ((4, 3), 3)
    torch.testing.assert_close(found.network(x), net(x), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_part_of_a_group_stays_with_it():
    net = nn.Sequential(nn.Conv1d(2, 6, 1), nn.Conv1d(6, 4, 3, groups=2), nn.Conv1d(4, 3, 1))
    net[2].weight[:, 2] = 0.0
    net[0].weight[0] = 0.0
    x = torch.randn(2, 2, 9)
    found = cut(net, x)
    assert (found.units["0"], found.units["1"]) == ((6, 6), (4, 4))
    torch.testing.assert_close(found.network(x), net(x), rtol=1e-5, atol=1e-5)


def frozen(net, *names):
    for name in names:
        net.get_parameter(name).requires_grad_(False)
    return net


def trained(net):
    return {name for name, p in net.named_parameters() if p.requires_grad}


def test_what_is_frozen_stays_so():
    net = nn.Sequential(
        nn.Conv1d(2, 4, 1), nn.BatchNorm1d(4), nn.PReLU(4), nn.Conv1d(4, 3, 1), nn.Flatten(), nn.Linear(27, 2)
    )
    frozen(net, "0.weight", "1.bias", "2.weight", "5.bias")
    with torch.no_grad():
        net[3].weight[:, 2] = net[5].weight[:, 9:18] = 0.0
    small = cut(net, torch.randn(2, 2, 9)).network
    assert [small[0].out_channels, small[1].num_features, small[2].num_parameters, small[5].in_features] == [3, 3, 3, 18]
    assert trained(small) == trained(net) == {"0.bias", "1.weight", "3.weight", "3.bias", "5.weight"}


def test_what_a_frozen_layer_takes_in_is_frozen():
    """A bias where there was none, and the layer behind the choice of its inputs."""
    net = frozen(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2, bias=False)), "1.weight")
    with torch.no_grad():
        net[0].weight[1] = net[0].weight[:, 2] = 0.0
    small = cut(net, torch.randn(2, 3)).network
    assert small[1].bias is not None
    assert trained(small) == {"0.1.weight", "0.1.bias"}


def test_a_frozen_embedding_stays_so():
    net = frozen(nn.Sequential(nn.Embedding(7, 5), nn.Flatten(), nn.Linear(15, 3)), "0.weight")
    with torch.no_grad():
        net[2].weight.view(3, 3, 5)[:, :, 4] = 0.0
    small = cut(net, torch.randint(7, (4, 3))).network
    assert small[0].embedding_dim == 4
    assert trained(small) == {"2.weight", "2.bias"}


def test_double_precision(float64):
    found = pair(nn.Linear(3, 4), nn.Linear(4, 2), torch.randn(2, 3))
    assert found.network[0].weight.dtype == torch.float64
    assert found.difference < 1e-14
