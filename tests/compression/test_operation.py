"""A kind of module that the library does not know is registered, not edited in."""

import pytest
import torch
from torch import nn

from pyro_vbd.compression import cut, register_operation
from pyro_vbd.compression.channelwise import Channelwise
from pyro_vbd.compression.operation import _OPERATIONS


class Shifted(nn.Module):
    """Adds a learned number to all."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return x + self.shift


@torch.no_grad()
def test_a_users_own_kind(monkeypatch):
    monkeypatch.setattr("pyro_vbd.compression.operation._OPERATIONS", dict(_OPERATIONS))
    monkeypatch.setattr("pyro_vbd.compression.tracing.fx.Tracer.is_leaf_module", lambda s, m, n: not list(m.children()))
    net, x = nn.Sequential(nn.Linear(4, 6), Shifted(), nn.Linear(6, 3)), torch.randn(2, 4)
    net[0].weight[1] = 0.0
    with pytest.raises(TypeError, match="'1' is of type Shifted, which cannot be cut"):
        cut(net, x)

    @register_operation(Shifted)
    class ShiftedStep(Channelwise):
        def constant(self, axis):
            return axis.constant + self.module.shift.double()

    found = cut(net, x)
    assert found.units["0"] == (6, 5)
    torch.testing.assert_close(found.network(x), net(x))
