"""Heads that go, and the gates of those that stay."""

import pytest
import torch
from torch import nn

import pyro_vbd as vbd
from pyro_vbd.compression import cut


class Net(nn.Module):
    def __init__(self, gated, weights=False, bias=True):
        super().__init__()
        kind = vbd.HeadwiseAttention if gated else lambda *a, **k: nn.MultiheadAttention(*a, batch_first=True, **k)
        self.attention, self.out, self.weights = kind(8, 4, bias=bias), nn.Linear(8, 3), weights

    def forward(self, x):
        found, weights = self.attention(x, x, x, need_weights=self.weights)
        out = self.out(found[:, 0])
        return (out, weights) if self.weights else out


def small_of(net, **kwargs):
    x = torch.randn(2, 5, 8)
    found = cut(net.eval(), x, **kwargs)
    if not net.weights:
        torch.testing.assert_close(found.network(x), net(x), rtol=1e-4, atol=1e-5)
    return found.network.attention


@torch.no_grad()
@pytest.mark.parametrize("bias", [True, False])
def test_closed_gates(bias):
    net = Net(gated=True, bias=bias)
    net.attention.gate.weight.copy_(torch.tensor([0.5, 0.0, -2.0, 0.0]))
    small = small_of(net)
    assert (small.num_heads, small.head_dim, type(small.gate)) == (2, 2, nn.Identity)


@torch.no_grad()
@pytest.mark.parametrize("training", [True, False])
def test_dropout_and_mode_stay(training):
    net = Net(gated=True)
    net.attention.dropout = 0.25
    net.attention.gate.weight[1] = 0.0
    small = cut(net.train(training), torch.randn(2, 5, 8)).network.attention
    assert (small.num_heads, small.dropout) == (3, 0.25)
    assert {module.training for module in small.modules()} == {training}


@pytest.mark.parametrize("gated", [True, False])
def test_frozen_attention_stays_frozen(gated):
    net = Net(gated=gated)
    for part in (net.attention.in_proj_weight, net.attention.out_proj.weight):
        part.requires_grad_(False)
    with torch.no_grad():
        if gated:
            net.attention.gate.weight[1] = 0.0
        else:
            net.attention.in_proj_weight[-2:] = 0.0  # the values of the last head
    small = small_of(net)
    assert small.num_heads == 3
    trained = {name for name, p in small.named_parameters() if p.requires_grad}
    assert trained == {"in_proj_bias", "out_proj.bias"}


@torch.no_grad()
def test_no_head_is_dead():
    assert type(small_of(Net(gated=False))) is nn.MultiheadAttention


@torch.no_grad()
def test_all_are_dead():
    net = Net(gated=True)
    net.attention.gate.weight.zero_()
    assert small_of(net).num_heads == 1


@torch.no_grad()
def test_attention_weights_that_are_used_keep_it_whole():
    net = Net(gated=False, weights=True)
    net.attention.out_proj.weight[:, :2] = 0.0
    assert type(small_of(net)) is nn.MultiheadAttention


class Masked(Net):
    """Attention under a mask of each head, by place or by name."""

    def __init__(self, gated, by_name):
        super().__init__(gated)
        self.by_name = by_name

    def forward(self, x, mask):
        if self.by_name:
            found = self.attention(x, x, x, need_weights=False, attn_mask=mask)
        else:
            found = self.attention(x, x, x, None, False, mask)
        return self.out(found[0][:, 0])


@torch.no_grad()
@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("by_name", [True, False])
def test_a_mask_for_each_head_keeps_it_whole(gated, by_name):
    net = Masked(gated, by_name).eval()
    net.attention.out_proj.weight[:, 2:4] = 0.0
    x = torch.randn(2, 5, 8)
    for mask, heads in ((torch.randn(8, 5, 5), 4), (torch.randn(5, 5), 3)):
        small = cut(net, (x, mask)).network
        assert small.attention.num_heads == heads
        torch.testing.assert_close(small(x, mask), net(x, mask), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_attention_weights_that_are_unpacked_and_not_used_keep_nothing():
    net = Net(gated=False)  # its code unpacks both
    net.attention.out_proj.weight[:, 2:4] = 0.0
    assert small_of(net).num_heads == 3


@torch.no_grad()
def test_attention_weights_that_are_asked_for_and_not_used_keep_it_whole():
    """There are none to be had of the smaller module."""

    class Asking(Net):
        def forward(self, x):
            return self.out(self.attention(x, x, x, need_weights=True)[0][:, 0])

    net = Asking(gated=False)
    net.attention.out_proj.weight[:, 2:4] = 0.0
    assert type(small_of(net)) is nn.MultiheadAttention
