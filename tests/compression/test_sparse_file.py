"""The file is small, comes back exactly (or within 8 bits), and says so when it is broken."""

import copy
import os

import pytest
import torch
from torch import nn

import pyro_vbd as vbd
from tests.compression.pruned import convnet, trained
from tests.compression.test_cut import ByHand


@pytest.fixture
def small(device):
    model, guide, _, _ = trained(device)
    return vbd.compress(model, guide, 1.0, batch_sizes=())[0]


def test_comes_back_exactly(small, tmp_path, device):
    size = vbd.save_sparse(small, tmp_path / "net")
    new = vbd.load_sparse(tmp_path / "net", convnet().to(device))
    x = torch.randn(5, 8, 8)
    assert torch.equal(new(x), small(x))
    assert size == os.path.getsize(tmp_path / "net")
    assert [type(m) for m in new.modules()] == [type(m) for m in small.modules()]


@pytest.mark.parametrize("bits", [None, 8])
def test_where_new_tensors_go_by_default_does_not_matter(small, tmp_path, bits):
    vbd.save_sparse(small, tmp_path / "here", bits=bits)
    with torch.device("meta"):
        vbd.save_sparse(small, tmp_path / "there", bits=bits)
    assert (tmp_path / "here").read_bytes() == (tmp_path / "there").read_bytes()


def test_eight_bits_are_a_rounding_of_the_largest(small, tmp_path):
    vbd.save_sparse(small, tmp_path / "net", bits=8)
    new = vbd.load_sparse(tmp_path / "net", small)
    for name, p in small.named_parameters():
        q = dict(new.named_parameters())[name]
        if p.dim() > 1:
            assert (p - q).abs().max() <= p.abs().max() / 254 * 1.0001
            assert (p - q).abs().max() > 0
        else:
            assert torch.equal(p, q)


def test_the_size_is_that_of_what_is_not_zero(tmp_path):
    """A tensor of a million zeros and a thousand numbers: some bytes for each number."""
    net = nn.Linear(1000, 1000, bias=False)
    mask = torch.rand(1000, 1000) < 1e-3
    with torch.no_grad():
        net.weight.mul_(mask)
    count = int(mask.sum())
    assert vbd.save_sparse(net, tmp_path / "net") < 7 * count + 1000
    assert vbd.save_sparse(net, tmp_path / "eight", bits=8) < 4 * count + 1000
    assert torch.equal(vbd.load_sparse(tmp_path / "net", nn.Linear(1000, 1000, bias=False)).weight, net.weight)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_types(dtype, tmp_path):
    net = nn.Sequential(nn.Linear(30, 20), nn.BatchNorm1d(20)).to(dtype)
    with torch.no_grad():
        net[0].weight[:, 3:] = 0.0
    vbd.save_sparse(net, tmp_path / "net")
    new = vbd.load_sparse(tmp_path / "net", copy.deepcopy(net).apply(lambda m: None))
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(net.parameters(), new.parameters(), strict=True))


def test_code_with_a_size_in_it(tmp_path):
    net, x = ByHand(), torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        net.conv.weight[1] = 0.0
    small = vbd.cut(net, x).network
    vbd.save_sparse(small, tmp_path / "net")
    assert torch.equal(vbd.load_sparse(tmp_path / "net", ByHand())(x), small(x))
    assert torch.equal(vbd.load_sparse(tmp_path / "net", small)(x), small(x))


def test_broken_files_are_refused(small, tmp_path):
    path = tmp_path / "net"
    vbd.save_sparse(small, path)
    content = path.read_bytes()
    path.write_bytes(content[:-10])
    with pytest.raises(ValueError, match=r"damaged: .* bytes that do not match their checksum"):
        vbd.load_sparse(path, convnet())
    path.write_bytes(content[:200] + bytes([content[200] ^ 1]) + content[201:])
    with pytest.raises(ValueError, match="damaged"):
        vbd.load_sparse(path, convnet())
    path.write_bytes(b"something else")
    with pytest.raises(ValueError, match="no sparse network"):
        vbd.load_sparse(path, convnet())
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"is not of this Linear|has no module"):
        vbd.load_sparse(path, nn.Linear(3, 3))
    with pytest.raises(FileNotFoundError):
        vbd.load_sparse(tmp_path / "none", convnet())


def test_bad_weights_and_bits_leave_the_file_that_was_there(small, tmp_path):
    path = tmp_path / "net"
    vbd.save_sparse(small, path)
    content = path.read_bytes()
    with torch.no_grad():
        small[-1].weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"'7.weight' holds numbers that are not finite"):
        vbd.save_sparse(small, path)
    with pytest.raises(ValueError, match="bits=4 is not available: use 8"):
        vbd.save_sparse(small, path, bits=4)
    assert path.read_bytes() == content
