import pytest
from torch import nn

from pyro_vbd.frozen import frozen_as


@pytest.mark.parametrize("trained", [True, False])
def test_frozen_by_name(trained):
    before = nn.Sequential(nn.Linear(2, 3, bias=False), nn.Linear(3, 1))
    before[0].requires_grad_(False)
    before[1].requires_grad_(trained)
    new = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    assert frozen_as(before, new) is new
    found = {name: p.requires_grad for name, p in new.named_parameters()}
    assert found == {"0.weight": False, "0.bias": trained, "1.weight": trained, "1.bias": trained}
