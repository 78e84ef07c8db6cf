import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pyro_vbd as vbd
from pyro_vbd.compression.fine_tune import zero_masks
from tests.compression.pruned import error, trained


def test_lowers_the_loss_and_zeros_stay(device):
    model, guide, train, validation = trained(device)
    small, _ = vbd.compress(model, guide, -1.0, -1.0, batch_sizes=())
    before, keys = zero_masks(small), set(small.state_dict())
    error_before = error(small, validation)
    losses = vbd.fine_tune(small, train, epochs=10, lr=1e-3, progress=False)
    assert losses[-1] < 0.95 * losses[0]
    assert error(small, validation) < error_before + 0.01
    after = zero_masks(small)
    assert all(bool((after[name] <= before[name]).all()) for name in before)
    assert sum(int(mask.sum()) for mask in after.values()) == sum(int(mask.sum()) for mask in before.values())
    assert set(small.state_dict()) == keys
    assert not any(p._backward_hooks for p in small.parameters())


@pytest.mark.parametrize("kind", ["torch's", "headwise"])
def test_attention_keeps_its_zeros(kind):
    attention = nn.MultiheadAttention(8, 2, batch_first=True) if kind == "torch's" else vbd.HeadwiseAttention(8, 2)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention, self.out = attention, nn.Linear(8, 3)

        def forward(self, x):
            return self.out(self.attention(x, x, x, need_weights=False)[0].mean(1))

    net = Net()
    weights = net.attention.in_proj_weight, net.attention.out_proj.weight
    with torch.no_grad():
        for weight in weights:
            weight[::2] = 0.0
    vbd.fine_tune(net, [(torch.randn(6, 4, 8), torch.randint(3, (6,)))], epochs=3, lr=0.1, progress=False)
    for weight in weights:
        assert weight[::2].eq(0).all()
        assert weight[1::2].ne(0).all()


def test_a_closed_gate_stays_closed():
    """Where a factor cannot go into a layer the gate stays, and before a cut it is there anyway."""
    net = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), vbd.Gate(6), nn.Linear(6, 2))
    with torch.no_grad():
        net[2].weight[:4] = 0.0
    before = net[2].weight.detach().clone()
    vbd.fine_tune(net, [(torch.randn(8, 3), torch.randint(2, (8,)))], epochs=3, lr=0.1, progress=False)
    assert net[2].weight[:4].eq(0).all()
    assert (net[2].weight[4:] != before[4:]).all()


def test_regression_and_modes():
    net = nn.Sequential(nn.Linear(3, 4), nn.Dropout(), nn.Linear(4, 1)).eval()
    seen = []
    net[1].register_forward_hook(lambda module, *_: seen.append(module.training))
    vbd.fine_tune(net, [(torch.randn(6, 3), torch.randn(6, 1))], epochs=2, loss=F.mse_loss, progress=False)
    assert seen == [True, True]
    assert not any(module.training for module in net.modules())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_leaves_the_network_as_it_was(bad):
    net = nn.Linear(3, 2)
    before = net.weight.clone()
    data = [(torch.randn(4, 3), torch.randn(4, 2)), (torch.randn(4, 3), torch.full((4, 2), bad))]
    with pytest.raises(FloatingPointError, match=f"the loss is {bad} in epoch 0"):
        vbd.fine_tune(net, data, epochs=1, lr=0.1, loss=F.mse_loss, progress=False)
    assert torch.equal(net.weight, before)
    assert set(net.state_dict()) == {"weight", "bias"}


def test_bad_input():
    with pytest.raises(ValueError, match="epochs=0 trains nothing"):
        vbd.fine_tune(nn.Linear(3, 2), [], epochs=0)
    with pytest.raises(ValueError, match="gave no batch"):
        vbd.fine_tune(nn.Linear(3, 2), [], epochs=1, progress=False)
    with pytest.raises(ValueError, match="ReLU has no parameter to train"):
        vbd.fine_tune(nn.ReLU(), [], epochs=1)


def test_the_rate_of_an_epoch_is_that_of_its_schedule():
    """Where the gradient is always 1 a step of Adam is as long as the rate; the loss is the weight."""
    weights = vbd.fine_tune(
        nn.Linear(1, 1, bias=False), [(torch.ones(1, 1), torch.zeros(1))], epochs=4, lr=0.1, progress=False,
        loss=lambda output, _: output.sum(), lr_schedule=lambda epoch, epochs: 1 / (1 + epoch + epochs),
    )  # fmt: skip
    steps = [before - after for before, after in pairwise(weights)]
    assert steps == pytest.approx([0.1 / 5, 0.1 / 6, 0.1 / 7], rel=1e-3)


def test_the_loss_of_an_epoch_is_the_mean_over_its_batches():
    net = nn.Linear(3, 2)
    data = [(torch.randn(4, 3), torch.randint(2, (4,))) for _ in range(3)]
    expected = sum(F.cross_entropy(net(x), y).item() for x, y in data) / 3
    assert vbd.fine_tune(net, data, epochs=2, lr=0.0, progress=False) == pytest.approx([expected, expected])


def test_frozen_weights_stay_and_a_bias_of_zero_is_trained():
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    net[0].requires_grad_(False)
    nn.init.zeros_(net[1].bias)
    before = net[0].weight.clone()
    vbd.fine_tune(net, [(torch.randn(4, 3), torch.tensor([0, 0, 0, 1]))], epochs=1, lr=0.1, progress=False)
    assert torch.equal(net[0].weight, before)
    assert net[1].bias.ne(0).all()


def test_several_inputs_as_fit_takes_them():
    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x, factor):
            return self.layer(x) * factor

    torch.manual_seed(0)
    x, factor, y = torch.randn(8, 3), torch.rand(8, 1), torch.randint(2, (8,))
    for inputs in ((x, factor), {"factor": factor, "x": x}):
        history = vbd.fine_tune(Product(), [(inputs, y)], epochs=20, lr=1e-2, progress=False)
        assert history[-1] < history[0]
