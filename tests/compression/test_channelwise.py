"""What nonlinearities, pooling, gates and norms of each channel make of constants."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyro_vbd.compression import cut
from pyro_vbd.noise import Gate
from tests.compression.networks import through


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
                                    Function(lambda x: F.dropout(x, 0.0)), Function(lambda x: F.dropout(x, 0.0, True)),
                                    Function(lambda x: torch.clamp(x, max=x.size(0) - 3))])  # fmt: skip
def test_constants_that_do_not_pass(middle):
    """A mean that counts other zeros or is none; what mixes the channels; noise; a number from the batch's size."""
    through(middle, 4)


@torch.no_grad()
def test_pooling_over_the_units_themselves_holds_them():
    """An input without channels, which pooling takes for one of many places."""
    net, x = nn.Sequential(nn.Linear(5, 4), nn.MaxPool1d(3, 1, 1), nn.Linear(4, 3)), torch.randn(2, 5)
    net[0].weight[1] = 0.0
    found = cut(net, x)
    assert found.units["0"] == (4, 4)
    torch.testing.assert_close(found.network(x), net(x), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_closed_gate_counted_from_the_end_takes_its_unit():
    net, x = nn.Sequential(nn.Linear(5, 4), Gate(4, dim=-1), nn.Tanh(), nn.Linear(4, 3)), torch.randn(2, 6, 5)
    net[1].weight[2] = 0.0
    found = cut(net, x)
    assert found.units["0"] == (4, 3)
    torch.testing.assert_close(found.network(x), net(x), rtol=1e-5, atol=1e-5)


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
