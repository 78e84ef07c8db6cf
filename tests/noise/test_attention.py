"""Headwise attention: torch's own function with gates of 1, and heads that gates close."""

import pytest
import torch
from torch import nn

import pyro_vbd as vbd


def pair(**kwargs):
    theirs = nn.MultiheadAttention(8, 4, batch_first=True, **kwargs).eval()
    if theirs.in_proj_bias is not None:
        nn.init.normal_(theirs.in_proj_bias)
    ours = vbd.HeadwiseAttention.from_torch(theirs)
    nn.init.ones_(ours.gate.weight)
    return theirs, ours


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("masked", [None, "bool", "float", "per head", "padding", "both", "causal"])
def test_is_torchs_function_with_open_gates(bias, masked):
    theirs, ours = pair(bias=bias)
    x, memory = torch.randn(3, 5, 8), torch.randn(3, 5, 8)
    mask = torch.ones(5, 5).triu(1).bool()
    padding = torch.zeros(3, 5).bool()
    padding[1, 3:] = True
    given = {
        None: {},
        "bool": {"attn_mask": mask},
        "float": {"attn_mask": torch.randn(5, 5)},
        "per head": {"attn_mask": torch.randn(12, 5, 5)},
        "padding": {"key_padding_mask": padding},
        "both": {"attn_mask": mask, "key_padding_mask": padding},
        "causal": {"attn_mask": mask, "is_causal": True},
    }[masked]
    expected = theirs(x, memory, memory, need_weights=False, **given)[0]
    torch.testing.assert_close(ours(x, memory, memory, **given)[0], expected, rtol=1e-4, atol=1e-5)


def test_a_closed_gate_takes_its_head_out():
    theirs, ours = pair()
    x = torch.randn(2, 5, 8)
    with torch.no_grad():
        ours.gate.weight[2] = 0.0
        theirs.out_proj.weight.view(8, 4, 2)[:, 2] = 0.0
    torch.testing.assert_close(ours(x, x, x)[0], theirs(x, x, x, need_weights=False)[0], rtol=1e-4, atol=1e-5)


def test_dropout_type_and_mode_are_those_of_torchs():
    theirs = nn.MultiheadAttention(8, 4, dropout=0.5, batch_first=True, dtype=torch.float64)
    ours, x = vbd.HeadwiseAttention.from_torch(theirs), torch.randn(2, 5, 8, dtype=torch.float64)
    assert ours.training
    assert not torch.equal(ours(x, x, x)[0], ours(x, x, x)[0])
    ours = vbd.HeadwiseAttention.from_torch(theirs.eval())
    assert (ours.dropout, ours.training) == (0.5, False)
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.float64}
    assert torch.equal(ours(x, x, x)[0], ours(x, x, x)[0])


def test_is_bayesian_whole():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention, self.out = vbd.HeadwiseAttention(8, 2), nn.Linear(8, 3)

        def forward(self, x):
            return self.out(self.attention(x, x, x)[0].mean(1))

    model = vbd.Classifier(Net(), vbd.priors.GaussianUniform(), 8)
    guide = vbd.VBDGuide(model)
    assert set(guide.log_alpha()) == {
        "attention.in_proj_weight", "attention.gate.weight", "attention.out_proj.weight", "out.weight"
    }  # fmt: skip
    loss = vbd.VBD_ELBO().differentiable_loss(model, guide, torch.randn(8, 5, 8), torch.randint(3, (8,)))
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in guide.parameters())


def test_what_cannot_be_is_refused():
    with pytest.raises(TypeError, match="batch_first=True"):
        vbd.HeadwiseAttention.from_torch(nn.MultiheadAttention(8, 4))
    with pytest.raises(ValueError, match="3 heads do not share 8 features"):
        vbd.HeadwiseAttention(8, 3)
    x = torch.randn(2, 5, 8)
    with pytest.raises(ValueError, match="need_weights=False"):
        vbd.HeadwiseAttention(8, 2)(x, x, x, need_weights=True)
    with pytest.raises(ValueError, match="needs attn_mask"):
        vbd.HeadwiseAttention(8, 2)(x, x, x, key_padding_mask=torch.zeros(2, 5).bool(), is_causal=True)


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("gated", [True, False])
def test_a_sequence_without_a_batch(heads, gated):
    attention = vbd.HeadwiseAttention(6, heads, gated=gated)
    x, padding, mask = torch.randn(5, 6), torch.arange(5) > 3, torch.randn(heads, 5, 5)
    expected = attention(x[None], x[None], x[None], padding[None], attn_mask=mask)[0][0]
    torch.testing.assert_close(attention(x, x, x, padding, attn_mask=mask)[0], expected)
