import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pyro_vbd as vbd
from pyro_vbd.compression import Select, cut
from pyro_vbd.compression.skeleton import build, describe, rebuild, sizes, sliced
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
    new = build(described)
    assert repr(new) == repr(module)
    assert {n: v.shape for n, v in new.state_dict().items()} == {n: v.shape for n, v in module.state_dict().items()}
    assert sizes(new) == sizes(module)


def test_building_leaves_the_random_state():
    described = sizes(nn.Linear(3, 4))
    before = torch.get_rng_state()
    build(described)
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


def test_what_was_kept_is_not_looked_into_again():
    class Branching(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.branching, self.out = nn.Conv2d(1, 4, 3), Branching(), nn.Linear(144, 3)

        def forward(self, x):
            return self.out(self.conv(x).relu().view(-1, 144)) + self.branching(x).mean()

    net, x = Net(), torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        net.conv.weight[1] = 0.0
    small = cut(net, x, keep=["branching"]).network
    assert small.conv.out_channels == 3
    new = rebuild(Net(), json.loads(json.dumps(describe(small))))
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


def test_another_network_is_refused():
    described = describe(nn.ModuleDict({"a": nn.ModuleDict({"b": nn.Linear(2, 2)})}))
    with pytest.raises(ValueError, match="has no module 'a'"):
        rebuild(nn.Sequential(nn.Linear(2, 2)), described)


def test_a_slice_of_a_module_has_its_dtype_and_its_mode():
    norm = nn.BatchNorm1d(4).double().eval()
    norm.running_mean.copy_(torch.arange(4) / 3)
    new = sliced(norm, torch.tensor([True, False, True, True]), "num_features")
    assert torch.equal(new.running_mean, norm.running_mean[[0, 2, 3]])
    assert new.weight.dtype == torch.float64
    assert not new.training
