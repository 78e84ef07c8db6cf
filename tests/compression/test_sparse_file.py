"""The file is small, comes back exactly (or within 8 bits), and says so when it is broken."""

import copy
import os

import pytest
import torch
from torch import nn

import pyro_vbd as vbd
from tests.compression.networks import Tied
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


@pytest.mark.parametrize("bits", [None, 8])
def test_buffers_are_stored_as_they_are(tmp_path, bits):
    """A causal mask, and a table of positions in which every digit counts."""

    def network():
        net = nn.Linear(8, 8)
        net.register_buffer("mask", torch.zeros(8, 8).masked_fill(torch.ones(8, 8).triu(1).bool(), -torch.inf))
        net.register_buffer("positions", torch.zeros(8, 8))
        return net

    net = network()
    net.positions.normal_()
    vbd.save_sparse(net, tmp_path / "net", bits=bits)
    new = vbd.load_sparse(tmp_path / "net", network())
    assert torch.equal(new.mask, net.mask)
    assert torch.equal(new.positions, net.positions)
    assert torch.equal(new.weight, net.weight) == (bits is None)


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


def test_the_type_of_layers_that_the_cut_made_smaller(tmp_path):
    def make():
        return nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))

    net, x = make().double(), torch.randn(4, 8, dtype=torch.float64)
    with torch.no_grad():
        net[3].weight[:, 2] = net[0].weight[:, 5] = 0.0
    small = vbd.cut(net, x).network.eval()
    vbd.save_sparse(small, tmp_path / "net")
    for before in (make().double(), make()):
        assert torch.equal(vbd.load_sparse(tmp_path / "net", before.eval())(x), small(x))


def test_code_with_a_size_in_it(tmp_path):
    net, x = ByHand(), torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        net.conv.weight[1] = 0.0
    small = vbd.cut(net, x).network
    vbd.save_sparse(small, tmp_path / "net")
    assert torch.equal(vbd.load_sparse(tmp_path / "net", ByHand())(x), small(x))
    assert torch.equal(vbd.load_sparse(tmp_path / "net", small)(x), small(x))


@pytest.mark.parametrize("bits", [None, 8])
@pytest.mark.parametrize("tied", [True, False])
def test_a_shared_tensor_is_written_once_and_shared_again(tmp_path, bits, tied):
    net = Tied(400, 50)
    size = vbd.save_sparse(net, tmp_path / "net", bits=bits)
    assert size < 400 * 50 * (1 if bits else 4) * 1.1 + 14_000
    new = vbd.load_sparse(tmp_path / "net", Tied(400, 50, tied))
    assert new.out.weight is new.words.weight
    assert len(list(new.parameters())) == 4
    atol = float(net.words.weight.detach().abs().max()) / 250 if bits else 0.0
    torch.testing.assert_close(dict(new.state_dict()), dict(net.state_dict()), rtol=0.0, atol=atol)


def test_shared_buffers_and_modules(tmp_path):
    """A module at two places, and a mask that two modules hold."""

    def network():
        layer, mask = nn.Linear(3, 3), torch.ones(3, 3)
        net = nn.Sequential(layer, nn.ReLU(), layer, nn.Linear(3, 3))
        net[0].register_buffer("mask", mask)
        net[3].register_buffer("mask", mask)
        return net

    net = network()
    vbd.save_sparse(net, tmp_path / "net")
    new = vbd.load_sparse(tmp_path / "net", network())
    assert new[0] is new[2]
    assert new[0].mask is new[3].mask
    torch.testing.assert_close(dict(new.state_dict()), dict(net.state_dict()), rtol=0.0, atol=0.0)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("version", [1, 2])
def test_files_of_earlier_versions_are_read(tmp_path, tied, version):
    """In version 1 a shared tensor was written under each of its names."""
    net, path = Tied(20, 5, tied=False), tmp_path / "net"
    with torch.no_grad():
        net.out.weight.copy_(net.words.weight)
    vbd.save_sparse(net, path)
    path.write_bytes(path.read_bytes().replace(b"network 3\n", b"network %d\n" % version, 1))
    new = vbd.load_sparse(path, Tied(20, 5, tied))
    torch.testing.assert_close(dict(new.state_dict()), dict(net.state_dict()), rtol=0.0, atol=0.0)


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


def test_gaps_of_any_length(tmp_path):
    for size in (10, 100, 1000):  # gaps of one, of two and of more bytes
        net = nn.Linear(size, size, bias=False)
        with torch.no_grad():
            net.weight.view(-1)[1:-1] = 0.0
        vbd.save_sparse(net, tmp_path / "net")
        assert torch.equal(vbd.load_sparse(tmp_path / "net", nn.Linear(size, size, bias=False)).weight, net.weight)
