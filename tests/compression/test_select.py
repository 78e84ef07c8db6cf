import pytest
import torch

from pyro_vbd.compression import Select


def test_passes_on_what_is_named():
    x = torch.randn(2, 5, 3)
    assert torch.equal(Select([3, 0])(x), x[:, [3, 0]])
    assert torch.equal(Select(torch.tensor([2]), dim=-1)(x), x[..., 2:])


def test_moves_and_saves_with_the_network(device):
    select = Select([1, 4])
    assert select.state_dict()["index"].tolist() == [1, 4]
    assert select.to(device).index.device.type == device.type


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
def test_goes_into_torchscript():
    x = torch.randn(2, 5, 3)
    assert torch.equal(torch.jit.script(Select([3, 0]))(x), x[:, [3, 0]])
