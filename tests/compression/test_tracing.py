import pytest
import torch
from torch import nn

import pyro_vbd as vbd
from pyro_vbd.compression import cut
from pyro_vbd.compression.tracing import call_network, trace, trace_calls
from tests.compression.networks import Residual


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(2, 4)

    def forward(self, first, second, scale=2.0):
        return self.a(first) + scale * self.b(second)


@pytest.mark.parametrize("pack", [lambda a, b: (a, b), lambda a, b: {"second": b, "first": a}])
def test_several_inputs(pack):
    a, b = torch.randn(5, 3), torch.randn(5, 2)
    net = Two()
    traced = trace(net, pack(a, b))
    shapes = {node.name: tuple(node.meta["value"].shape) for node in traced.graph.nodes if node.op == "call_module"}
    assert shapes == {"a": (5, 4), "b": (5, 4)}
    assert torch.equal(call_network(net, pack(a, b)), net(a, b))


class Masked(nn.Module):
    """Code whose course depends on which arguments are given, and a size written into it."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x, mask=None, flatten=False):
        hidden = self.first(x).relu().view(-1, 4)
        if mask is not None:
            hidden = hidden * mask
        return self.second(hidden).flatten() if flatten else self.second(hidden)


@torch.no_grad()
def test_arguments_that_are_not_given_have_their_defaults(tmp_path):
    net, x, mask = Masked(), torch.randn(5, 3), torch.randn(5, 1)
    net.first.weight[1] = 0.0
    for given in ((x,), (x, mask), {"x": x}, {"mask": mask, "x": x}):
        small = cut(net, given).network
        assert small.first.out_features == 3
        expected = call_network(net, given)
        torch.testing.assert_close(call_network(small, given), expected)
        vbd.save_sparse(small, tmp_path / "file")
        torch.testing.assert_close(call_network(vbd.load_sparse(tmp_path / "file", Masked()), given), expected)
    with pytest.raises(TypeError):  # and not silently without the mask
        cut(net, x).network(x, mask)


def test_looks_into_modules_but_those_of_torch_and_those_kept():
    net = nn.Sequential(Residual(nn.Linear(3, 3), nn.Identity()), nn.ReLU())
    assert [str(n.target) for n in trace_calls(net).nodes if n.op == "call_module"] == ["0.body", "0.shortcut", "1"]
    assert [str(n.target) for n in trace_calls(net, ["0"]).nodes if n.op == "call_module"] == ["0", "1"]


class Branching(nn.Module):
    def forward(self, x):
        return x.relu() if x.sum() > 0 else x


class BranchingRoot(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        return self.layer(x) if x.sum() > 0 else x


def test_the_mend_for_code_that_cannot_be_traced_can_be_done():
    nested = nn.Sequential(nn.Linear(3, 3), Branching())
    with pytest.raises(TypeError, match=r"^module '1' cannot be cut, .* cannot be traced \(.*\): name it in keep=$"):
        trace_calls(nested)
    trace_calls(nested, ["1"])
    with pytest.raises(TypeError, match=r"^BranchingRoot cannot be cut, .*: move what .* to a submodule, named in keep=$"):
        trace_calls(BranchingRoot())


def test_running_it_leaves_no_data_behind():
    traced = trace(nn.Sequential(nn.Linear(3, 3)), torch.randn(2, 3))
    assert {n.meta["value"].device.type for n in traced.graph.nodes} == {"meta"}
