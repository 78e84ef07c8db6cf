"""Opened transformer layers compute torch's function, are traced, and see gates in evaluation mode too."""

import copy
import pickle

import pytest
import torch
from torch import nn

import pyro_vbd as vbd
from pyro_vbd.compression import cut
from pyro_vbd.noise.transformer import OpenEncoderLayer, open_transformers

LAYERS = {
    "after": {},
    "before": {"norm_first": True, "activation": "gelu"},
    "batch second": {"batch_first": False},
    "no bias": {"bias": False},
}


def layer(kind, **kwargs):
    return kind(8, 2, 12, 0.1, **{"batch_first": True, **kwargs})


def closed_and_open(net):
    opened = copy.deepcopy(net)
    open_transformers(opened)
    assert [name for name, _ in net.named_modules()] == [name for name, _ in opened.named_modules()]
    return net.eval(), opened.eval()


@pytest.mark.parametrize("given", LAYERS.values(), ids=list(LAYERS))
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
@torch.no_grad()
def test_is_torchs_function(given, masked):
    x, y = torch.randn(3, 5, 8), torch.randn(3, 5, 8)
    mask = nn.Transformer.generate_square_subsequent_mask(5)
    norm = nn.LayerNorm(8)
    encoder = nn.TransformerEncoder(layer(nn.TransformerEncoderLayer, **given), 2, norm, enable_nested_tensor=False)
    decoder = nn.TransformerDecoder(layer(nn.TransformerDecoderLayer, **given), 2, norm)
    both = nn.Transformer(8, 2, 1, 1, 12, **{"batch_first": True, **given})
    for net, args, names in (
        (encoder, (x,), ["mask"]),
        (decoder, (x, y), ["tgt_mask", "memory_mask"]),
        (both, (x, y), ["src_mask", "tgt_mask", "memory_mask"]),
    ):
        theirs, ours = closed_and_open(net)
        size = 3 if given.get("batch_first") is False else 5
        masks = {name: mask[:size, :size] for name in names} if masked else {}
        torch.testing.assert_close(ours(*args, **masks), theirs(*args, **masks), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@torch.no_grad()
def test_padding_counts_for_nothing():
    net = nn.TransformerEncoder(layer(nn.TransformerEncoderLayer), 2)
    theirs, ours = closed_and_open(net)
    x, padding = torch.randn(2, 5, 8), torch.tensor([[False] * 5, [False, False, False, True, True]])
    expected, found = (part(x, src_key_padding_mask=padding)[~padding] for part in (theirs, ours))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_padding_of_sources_and_targets():
    """Each hides other tokens, so that one in the place of another shows."""
    net = nn.Transformer(8, 2, 1, 1, 12, batch_first=True)
    theirs, ours = closed_and_open(net)
    source, target = torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    for names in (["src"], ["tgt"], ["memory"], ["src", "tgt", "memory"]):
        masks = {f"{name}_key_padding_mask": torch.rand(2, 5) < 0.4 for name in names}
        for mask in masks.values():
            mask[:, 0], mask[0, 1 + len(masks)] = False, True
        seen = ~masks.get("tgt_key_padding_mask", torch.zeros(2, 5).bool())
        expected, found = (part(source, target, **masks)[seen] for part in (theirs, ours))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert (found - ours(source, target)[seen]).abs().max() > 1e-3


@torch.no_grad()
def test_gates_on_heads_and_units_count_in_evaluation():
    net = nn.TransformerEncoder(layer(nn.TransformerEncoderLayer, activation=nn.GELU()), 1, enable_nested_tensor=False)
    x = torch.randn(2, 5, 8)
    gated = vbd.add_gates(net, after=(nn.GELU, nn.MultiheadAttention), inputs=x, dim=-1).eval()
    gates = [module for module in gated.modules() if isinstance(module, vbd.Gate)]
    assert sorted(gate.size for gate in gates) == [2, 12]
    for gate in gates:
        nn.init.ones_(gate.weight)
    torch.testing.assert_close(gated(x), net.eval()(x), rtol=1e-4, atol=1e-5)
    for gate in gates:
        before = gated(x)
        gate.weight[0] = 0.0
        assert (gated(x) - before).abs().max() > 1e-3
    found = cut(gated, x)
    assert found.network.layers[0].self_attn.num_heads == 1
    assert found.network.layers[0].linear1.out_features == 11
    torch.testing.assert_close(found.network(x), gated(x), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_network_without_a_head_comes_back_from_a_file(tmp_path):
    net, x = nn.TransformerEncoder(layer(nn.TransformerEncoderLayer), 1).eval(), torch.randn(2, 5, 8)
    fresh = copy.deepcopy(net)
    net.layers[0].self_attn.out_proj.weight[:, :4] = 0.0
    small = cut(net, x).network
    assert small.layers[0].self_attn.num_heads == 1
    vbd.save_sparse(small, tmp_path / "file")
    found = vbd.load_sparse(tmp_path / "file", fresh)(x)
    torch.testing.assert_close(found, net(x), rtol=1e-4, atol=1e-5)


def test_is_of_its_old_class_and_can_be_pickled():
    net = nn.Sequential(layer(nn.TransformerEncoderLayer), layer(nn.TransformerEncoderLayer))
    open_transformers(net, ("1",))
    assert type(net[0]) is OpenEncoderLayer
    assert isinstance(net[0], nn.TransformerEncoderLayer)
    assert type(net[1]) is nn.TransformerEncoderLayer
    x = torch.randn(2, 3, 8)
    assert torch.equal(pickle.loads(pickle.dumps(net)).eval()(x), net.eval()(x))
