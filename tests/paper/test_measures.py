import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from examples.paper.measures import error, structure, weight_sparsity
from models import lenet_5_caffe, lenet_500_300, mlp


class Fixed(nn.Module):
    def forward(self, x):
        return x


def test_error_in_per_cent():
    outputs = torch.eye(4)
    assert error(Fixed(), outputs, torch.tensor([0, 1, 2, 0])) == 25.0
    net = nn.Dropout(0.5).train()
    assert error(net, 9 * outputs.repeat(50, 1), torch.arange(4).repeat(50), batch_size=7) == 0.0
    assert net.training
    error(net.eval(), outputs, torch.arange(4))
    assert not net.training


def test_sparsity_counts_masked_weights():
    net = mlp(4, (5,), 2)
    prune.random_unstructured(net[1], "weight", amount=15)
    found = weight_sparsity(net)
    assert found["weights"] == 15
    assert found["compression"] == 2.0
    assert found["sparsity"] == [75.0, 0.0]


def test_filters_are_counted_with_the_weights():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2, 4))
    with torch.no_grad():
        net[0].weight[0] = 0
    assert weight_sparsity(net) == {"weights": 17, "compression": 26 / 17, "sparsity": [50.0, 0.0]}


def test_the_dense_lenets():
    found = structure(lenet_500_300(), torch.zeros(1, 1, 28, 28))
    assert found == {"neurons": [784, 500, 300], "weights": 545_000, "macs": 545_000}
    found = structure(lenet_5_caffe(), torch.zeros(1, 1, 28, 28))
    assert found == {"neurons": [20, 50, 800, 500], "weights": 430_500, "macs": 2_293_000}


def keep(weight, *counts):
    """Zero out all but the first of each dimension."""
    mask = torch.zeros_like(weight)
    mask[tuple(slice(count) for count in counts)] = 1.0
    with torch.no_grad():
        weight.mul_(mask)


def test_the_papers_row_for_lenet_5():
    net = lenet_5_caffe()
    conv1, conv2, fc1, fc2 = (m for m in net if hasattr(m, "weight"))
    keep(conv1.weight, 16, 1)
    keep(conv2.weight, 34, 16)
    fc1.weight.data[:, 123:] = 0
    # 123 inputs spread over 34 channels
    kept = torch.zeros(800)
    kept[
        torch.cat([torch.arange(34) * 16, torch.arange(34) * 16 + 1, torch.arange(34) * 16 + 2, torch.arange(21) * 16 + 3])
    ] = 1
    fc1.weight.data = torch.randn(500, 800) * kept
    keep(fc2.weight, 10, 62)
    found = structure(net, torch.zeros(1, 1, 28, 28))
    assert found == {"neurons": [16, 34, 123, 62], "weights": 22_246, "macs": 1_109_046}


def test_what_nobody_reads_or_reaches_is_gone():
    net = mlp(4, (3, 3), 2)
    first, second, third = net[1], net[3], net[5]
    with torch.no_grad():
        third.weight[:, 0] = 0  # nobody reads the second layer's unit 0
        second.weight[1:, 2] = 0  # so nobody reads the first layer's unit 2 either
        first.weight[:2, 3] = 0  # nor the input 3
        first.weight[1] = 0  # nothing reaches the first layer's unit 1
    assert structure(net, torch.zeros(1, 4)) == {"neurons": [3, 1, 2], "weights": 3 + 2 + 4, "macs": 9}


def test_what_only_the_unreachable_reaches_is_gone():
    net = mlp(4, (3, 3), 2)
    with torch.no_grad():
        net[1].weight[0] = 0  # nothing reaches the first layer's unit 0
        net[3].weight[2, 1:] = 0  # nor, but through it, the second layer's unit 2
    assert structure(net, torch.zeros(1, 4)) == {"neurons": [4, 2, 2], "weights": 8 + 4 + 4, "macs": 16}


def test_one_weight_of_a_filter_links_two_channels():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2, 4))
    with torch.no_grad():
        net[0].weight.zero_()
        net[0].weight[0, 0, 2, 2] = 1.0
    assert structure(net, torch.zeros(1, 1, 3, 3))["neurons"] == [1, 1]


def test_nothing_left():
    net = mlp(4, (3,), 2)
    with torch.no_grad():
        net[3].weight.zero_()
    assert structure(net, torch.zeros(1, 4)) == {"neurons": [0, 0], "weights": 0, "macs": 0}


def test_compression_of_nothing_left_is_finite():
    net = nn.Sequential(nn.Linear(3, 2))
    with torch.no_grad():
        net[0].weight.zero_()
    assert weight_sparsity(net)["compression"] == pytest.approx(6.0)
