import pytest
import torch
from torch import nn

from pyro_vbd.compression.multiply_adds import multiply_adds
from tests.compression.networks import Block


def test_multiply_adds_of_attention():
    block = Block(8, 2, gated=False)
    counts = multiply_adds(block, torch.randn(3, 5, 8))
    assert counts["up"] == 5 * 8 * 24
    assert sum(counts.values()) == 5 * (3 * 8 * 8 + 8 * 8 + 2 * 8 * 24) + 2 * 5 * 5 * 8
    assert torch.backends.mha.get_fastpath_enabled()


class Listed(nn.Module):
    """Layers in a list, which is never called itself, one of them under a second name; a product in the code."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(4, 2)
        self.layers = nn.ModuleList([nn.Linear(3, 4), nn.Linear(4, 4), self.last])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x @ x.transpose(-1, -2)


def test_of_layers_in_a_list():
    assert multiply_adds(Listed(), torch.randn(3, 5, 3)) == {
        "": 5 * 5 * 2, "last": 5 * 4 * 2, "layers.0": 5 * 3 * 4, "layers.1": 5 * 4 * 4,
    }  # fmt: skip


@pytest.mark.parametrize(("kind", "products"), [(nn.RNN, 1), (nn.GRU, 3), (nn.LSTM, 4)])
@pytest.mark.parametrize("directions", [1, 2])
def test_of_recurrent_layers(kind, products, directions, device):
    net = kind(4, 6, batch_first=True, bidirectional=directions == 2).to(device)
    counts = multiply_adds(net, torch.randn(2, 5, 4, device=device))
    assert counts == {"": directions * products * 5 * 6 * (4 + 6)}


def test_counting_leaves_modes_statistics_and_settings():
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    torch.backends.mha.set_fastpath_enabled(False)
    backends = torch.backends.mkldnn, torch.backends.cudnn
    before = [backend.enabled for backend in backends]
    try:
        assert multiply_adds(net, torch.randn(5, 4))["0"] == 12
        assert not torch.backends.mha.get_fastpath_enabled()
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    assert [backend.enabled for backend in backends] == before
    assert net[1].training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    assert int(net[1].num_batches_tracked) == 0
