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
