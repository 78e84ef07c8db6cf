import copy
import inspect
import json
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pyro_vbd as vbd
from pyro_vbd.compression import Select, cut
from pyro_vbd.compression.skeleton import build, describe, rebuild, sizes, sliced
from tests.compression.networks import assert_same_function
from tests.compression.test_cut import ByHand

MODULES = [
    nn.Linear(3, 4, bias=False),
    nn.Conv2d(4, 6, (3, 5), stride=2, padding=(1, 2), dilation=2, groups=2, padding_mode="circular"),
    nn.Conv1d(4, 6, 3, padding="same"),
    nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1),
    nn.BatchNorm2d(5, eps=1e-3, momentum=None, affine=False),
    nn.InstanceNorm1d(4, affine=True),
    nn.GroupNorm(2, 6),
    nn.PReLU(4),
    nn.Embedding(7, 3, padding_idx=1),
    nn.Identity(),
    vbd.Gate(4, dim=-1),
    Select([1, 3], dim=-1),
    vbd.HeadwiseAttention(8, 3, head_dim=2, gated=False),
]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: type(module).__name__)
def test_a_module_from_its_sizes(module):
    described = json.loads(json.dumps(sizes(module)))
    new = build(described, module)
    assert repr(new) == repr(module)
    assert {n: v.shape for n, v in new.state_dict().items()} == {n: v.shape for n, v in module.state_dict().items()}
    assert sizes(new) == sizes(module)


def test_building_leaves_the_random_state():
    module = nn.Linear(3, 4)
    before = torch.get_rng_state()
    build(sizes(module), module)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    "make", [ByHand, lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 3))]
)
def test_a_cut_network_from_the_one_before(make):
    net, x = make(), torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.weight[1] = 0.0
                if module.weight.shape[1] == 64:
                    module.weight[:, :5] = 0.0
    small = cut(net, x).network
    new = rebuild(make(), json.loads(json.dumps(describe(small))))
    new.load_state_dict(small.state_dict())
    torch.testing.assert_close(new(x), small(x), rtol=0, atol=0)
    assert describe(new) == describe(small)
    assert not any(module.training for module in rebuild(make().eval(), describe(small)).modules())


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Keeping(nn.Module):
    """A size in the code, and a module that cannot be looked into."""

    def __init__(self):
        super().__init__()
        self.conv, self.branching, self.out = nn.Conv2d(1, 4, 3), Branching(), nn.Linear(144, 3)

    def forward(self, x):
        return self.out(self.conv(x).relu().view(-1, 144)) + self.branching(x).mean()


@pytest.mark.parametrize(
    "copied",
    [lambda net: net, copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))],
    ids=["itself", "a copy", "from a pickle"],
)
def test_what_was_kept_is_not_looked_into_again(copied):
    net, x = Keeping(), torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        net.conv.weight[1] = 0.0
    small = copied(cut(net, x, keep=["branching"]).network)
    assert small.conv.out_channels == 3
    new = rebuild(Keeping(), json.loads(json.dumps(describe(small))))
    new.load_state_dict(small.state_dict())
    torch.testing.assert_close(new(x), small(x), rtol=0, atol=0)


def test_the_mode_of_the_network_before_leaves_no_trace_in_the_code():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.out = nn.Conv2d(1, 4, 3), nn.Linear(144, 3)

        def forward(self, x):
            if self.training:
                x = x.view(-1, 1, 8, 8) + torch.randn_like(x)
            return self.out(F.dropout(self.conv(x).relu().view(-1, 144), 0.5, self.training))

    net, x = Net().train(), torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        net.conv.weight[1] = 0.0
    small = cut(net, x).network
    new = rebuild(net, json.loads(json.dumps(describe(small))))
    new.load_state_dict(small.state_dict())
    assert new.training
    assert net.training
    torch.testing.assert_close(new.eval()(x), small.eval()(x), rtol=0, atol=0)


class Listed(nn.Module):
    """Its last layer stands in a list as well, and is called by its other name."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(6, 5), nn.Linear(5, 4)])
        self.head = nn.Linear(4, 3)
        self.layers.append(self.head)

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.head(x)


@pytest.mark.parametrize("unread", [0, 2])
def test_a_module_with_two_names_is_replaced_under_both(unread):
    net, x = Listed(), torch.randn(2, 6)
    with torch.no_grad():
        net.layers[1].weight[2] = 0.0  # a unit of the layer before
        net.layers[1].bias[2] = 1.0
        net.head.weight[:, :unread] = 0.0
    small = cut(net, x).network
    assert small.head is small.layers[2]
    assert_same_function(net, small, x)
    new = rebuild(Listed(), json.loads(json.dumps(describe(small))))
    assert new.head is new.layers[2]
    new.load_state_dict(small.state_dict())
    torch.testing.assert_close(new(x), small(x), rtol=0, atol=0)


@pytest.mark.parametrize("make", [lambda: nn.Linear(6, 3), lambda: nn.Conv2d(6, 3, 3)])
@pytest.mark.parametrize("unread", [0, 2])
def test_a_network_of_a_single_layer(make, unread):
    net, x = make().eval(), torch.randn(2, 6) if isinstance(make(), nn.Linear) else torch.randn(2, 6, 5, 5)
    with torch.no_grad():
        net.weight[:, :unread] = 0.0
    small = cut(net, x).network
    assert isinstance(small, nn.Sequential) == (unread > 0)
    new = rebuild(net, json.loads(json.dumps(describe(small))))
    new.load_state_dict(small.state_dict())
    torch.testing.assert_close(new(x), small(x), rtol=0, atol=0)
    assert not any(module.training for module in new.modules())


def test_what_is_frozen_before_the_cut_is_so_after_it():
    net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    for name in ("0.weight", "2.bias", "3.weight"):
        net.get_parameter(name).requires_grad_(False)
    with torch.no_grad():
        net[0].weight[:, 1] = net[2].weight[:, 2] = net[4].weight[:, 3] = 0.0
    small = cut(net, torch.randn(2, 6)).network
    net[3].eval()
    new = rebuild(net, json.loads(json.dumps(describe(small))))
    assert [module.training for module in new] == [True, True, True, False, True]
    trained = {name: p.requires_grad for name, p in new.named_parameters()}
    assert trained == {name: p.requires_grad for name, p in small.named_parameters()}
    assert {name for name, trains in trained.items() if not trains} == {"0.1.weight", "2.bias", "3.weight"}


class Written(nn.Module):
    """A network with a size in its code, in one of the ways to write it."""

    def __init__(self, view):
        super().__init__()
        self.view = view
        self.conv, self.out = nn.Conv2d(1, 4, 3), nn.Linear(144, 3)

    def forward(self, x):
        first, second = x.flatten(2).transpose(1, 2)[0, 1], x.size()[-2:]
        return self.out(self.view(self.conv(x).relu())) + first.mean() + second[0]


WRITTEN = {
    "flat": lambda x: x.view(-1, 144),
    "tuple": lambda x: x.view((-1, 144)),
    "beside a computed one": lambda x: x.view(x.size(0), 144),
    "in a tuple with a computed one": lambda x: x.view((x.size(0), 144)),
    "in a list with a computed one": lambda x: x.view([x.shape[0], 144]),
    "function": lambda x: torch.reshape(x, (x.shape[0], 144)),
}


def cut_written(view):
    net, x = Written(view), torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        net.conv.weight[1] = 0.0
    small = cut(net, x).network
    assert small.conv.out_channels == 3
    return small, x


@pytest.mark.parametrize("view", WRITTEN.values(), ids=WRITTEN.keys())
def test_a_size_wherever_it_is_written(view):
    small, x = cut_written(view)
    for net in (Written(view), small):
        new = rebuild(net, json.loads(json.dumps(describe(small))))
        new.load_state_dict(small.state_dict())
        torch.testing.assert_close(new(x[:1]), small(x[:1]), rtol=0, atol=0)


def test_code_that_looks_at_a_layer_which_is_another_one_after_the_cut():
    class Net(Written):
        def __init__(self):
            super().__init__(WRITTEN["flat"])
            self.first = nn.Linear(64, 64)

        def forward(self, x):
            return super().forward(self.first(x.view(-1, self.first.in_features)).view(-1, 1, 8, 8))

    net, x = Net(), torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        net.first.weight[:, 1] = net.conv.weight[1] = 0.0
    small = cut(net, x).network
    assert isinstance(small.first, nn.Sequential)
    new = rebuild(Net(), json.loads(json.dumps(describe(small))))
    new.load_state_dict(small.state_dict())
    torch.testing.assert_close(new(x), small(x), rtol=0, atol=0)


def test_sizes_in_calls_as_they_were_written_before():
    """There the whole of an argument was written, a tuple as a list."""
    small, x = cut_written(WRITTEN["tuple"])
    described = describe(small)
    described["calls"] = {"view": {"1": [-1, 108]}, "transpose": {"1": 1, "2": 2}, "getitem": {"1": [0, 1]}}
    new = rebuild(Written(WRITTEN["tuple"]), described)
    new.load_state_dict(small.state_dict())
    torch.testing.assert_close(new(x), small(x), rtol=0, atol=0)


@pytest.mark.parametrize("calls", [{"view_9": {"1": 3}}, {"view": {"3": 3}}, {"view": {"1": [3, 3]}}, {"view": {"0": 3}}])
def test_a_size_for_which_the_code_has_no_place_is_refused(calls):
    described = {**describe(cut_written(WRITTEN["flat"])[0]), "calls": calls}
    with pytest.raises(ValueError, match=r"Written has no call 'view(_9)?' with a number at '\d(\.0)?': it is of another"):
        rebuild(Written(WRITTEN["flat"]), described)


def test_another_network_is_refused():
    described = describe(nn.ModuleDict({"a": nn.ModuleDict({"b": nn.Linear(2, 2)})}))
    with pytest.raises(ValueError, match=r"has no module 'a\.b'"):
        rebuild(nn.Sequential(nn.Linear(2, 2)), described)
    with pytest.raises(ValueError, match="Sequential is no single Linear"):
        rebuild(nn.Sequential(nn.Linear(2, 2)), describe(nn.Linear(2, 2)))


NORMS = [
    lambda **bias: nn.BatchNorm2d(4, **bias),
    lambda **bias: nn.InstanceNorm2d(4, affine=True, **bias),
    lambda **bias: nn.GroupNorm(2, 4, **bias),
]


@pytest.mark.parametrize("norm", NORMS)
def test_a_norm_without_a_bias(norm):
    if "bias" not in inspect.signature(nn.GroupNorm).parameters:
        pytest.skip("this torch has no norms without a bias")
    net, x = nn.Sequential(nn.Conv2d(2, 4, 3), norm(bias=False), nn.Conv2d(4, 2, 1)).eval(), torch.randn(2, 2, 6, 6)
    with torch.no_grad():
        net[0].weight[:2] = net[0].bias[:2] = net[2].weight[:, :2] = 0.0
    small = cut(net, x).network
    assert small[0].out_channels == 2
    new = rebuild(net, json.loads(json.dumps(describe(small))))
    assert new[1].bias is None
    new.load_state_dict(small.state_dict())
    torch.testing.assert_close(new(x), net(x), rtol=1e-5, atol=1e-5)


def test_a_slice_of_a_module_has_its_dtype_and_its_mode():
    norm = nn.BatchNorm1d(4).double().eval()
    norm.running_mean.copy_(torch.arange(4) / 3)
    new = sliced(norm, torch.tensor([True, False, True, True]), "num_features")
    assert torch.equal(new.running_mean, norm.running_mean[[0, 2, 3]])
    assert new.weight.dtype == torch.float64
    assert not new.training
