"""What norms, nonlinearities and pooling make of constants."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyro_vbd.compression import cut
from pyro_vbd.noise import Gate
from tests.compression.networks import LastToken


@torch.no_grad()
def through(middle, left, x=None, last=None):
    """A middle step behind a channel that is constant at -1.5, in front of a convolution that can fold."""
    net = nn.Sequential(nn.Conv2d(2, 4, 3), middle, last or nn.Conv2d(4, 3, 3)).eval()
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    net[0].weight[1] = 0.0
    net[0].bias[1] = -1.5
    x = torch.randn(2, 2, 10, 10) if x is None else x
    found = cut(net, x)
    assert found.units["0"] == (4, left)
    torch.testing.assert_close(found.network(x), net(x), rtol=1e-5, atol=1e-5)
    return found.network


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize(
    "middle",
    [nn.ReLU(), nn.Softplus(), nn.LeakyReLU(0.1), nn.Hardtanh(), nn.PReLU(), nn.PReLU(4), nn.GELU(), nn.BatchNorm2d(4),
     nn.InstanceNorm2d(4, affine=True), nn.Dropout2d(), nn.MaxPool2d(3, 2, padding=1), nn.AvgPool2d(2),
     Function(lambda x: F.leaky_relu(x, 0.3)), Function(lambda x: torch.clamp(x, -1, 1)), Function(lambda x: x.tanh()),
     Function(lambda x: 2.0 - x / 3 + 1), Function(lambda x: F.avg_pool2d(x, 2)), Function(lambda x: F.max_pool2d(x, 2)),
     Function(lambda x: F.dropout(x, training=False)), nn.Upsample(scale_factor=2), Function(lambda x: x * x + x),
     Function(lambda x: F.interpolate(x, x.shape[2:], mode="bilinear")), Function(lambda x: x**2 + x / x)],
    ids=lambda m: type(m).__name__,
)  # fmt: skip
def test_constants_pass(middle):
    through(middle, 3)


@pytest.mark.parametrize("middle", [nn.AvgPool2d(2, padding=1), Function(lambda x: F.avg_pool2d(x, 2, padding=1)),
                                    Function(lambda x: F.avg_pool2d(x, 2, None, 1)), nn.Softmax(1),
                                    nn.AvgPool2d(2, divisor_override=3), Function(lambda x: x * x.size(0)),
                                    Function(lambda x: F.avg_pool2d(x, 2, None, 0, False, True, 3)),
                                    Function(lambda x: torch.clamp(x, max=x.size(0) - 3))])  # fmt: skip
def test_constants_that_do_not_pass(middle):
    """A mean that counts other zeros or is none; what mixes the channels; a number that follows from the batch's size."""
    through(middle, 4)


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
def test_an_open_gate_that_cannot_be_absorbed_is_cut():
    net = nn.Sequential(nn.Linear(5, 4), Gate(4), nn.LayerNorm(4), nn.Linear(4, 3))
    x = torch.randn(3, 5)
    torch.testing.assert_close(cut(net, x).network(x), net(x), rtol=1e-5, atol=1e-5)
    net = nn.Sequential(nn.Linear(5, 4), Gate(4), nn.Tanh(), nn.Linear(4, 3))
    net[1].weight[2] = 0.0
    small = cut(net, x).network
    assert small[1].size == 3
    torch.testing.assert_close(small(x), net(x), rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("norm", [nn.GroupNorm(1, 8), nn.BatchNorm1d(8), nn.PReLU(8)])
def test_behind_code_that_has_no_units_to_follow_it_stays(norm):
    net = nn.Sequential(nn.Embedding(11, 8), LastToken(), norm, nn.Linear(8, 4)).eval()
    tokens = torch.tensor([[1, 0, 3, 3, 9], [2, 1, 9, 4, 7]])
    torch.testing.assert_close(cut(net, tokens).network(tokens), net(tokens))
