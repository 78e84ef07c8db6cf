"""What is cut has no effect: over random networks, and over the cases that the theory tells apart."""

import dataclasses
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import fx, nn

from pyro_vbd.compression import cut
from pyro_vbd.noise import Gate
from tests.compression.networks import Residual, assert_same_function, convolutional, dense, remove_at_random, tokens

EXAMPLES = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


def size(net):
    return sum(p.numel() for p in net.parameters())


def check(net, x, share, units, seed):
    remove_at_random(net, share, units, torch.Generator("cpu").manual_seed(seed))
    found = cut(net, x, allow_dead=True)
    more = torch.randint(11, x.shape) if not x.is_floating_point() else torch.randn_like(x)
    for inputs in (x, more, more[:1]):
        assert_same_function(net, found.network, inputs)
    assert all(after <= before for before, after in found.units.values())
    assert not [m for m in found.network.modules() if isinstance(m, nn.Module) and m.training]


shares = st.sampled_from([0.0, 0.3, 0.7, 0.95])
seeds = st.integers(0, 1000)


@pytest.fixture(autouse=True)
def _on_cpu():
    with torch.device("cpu"):
        yield


@EXAMPLES
@given(st.data(), shares, shares, seeds)
def test_fully_connected(data, share, units, seed):
    torch.manual_seed(seed)
    check(data.draw(dense(7)), torch.randn(3, 7), share, units, seed)


@EXAMPLES
@given(st.data(), st.sampled_from([1, 2]), shares, shares, seeds)
def test_convolutional(data, dims, share, units, seed):
    torch.manual_seed(seed)
    net, x = data.draw(convolutional(dims))
    check(net, x, share, units, seed)


@settings(EXAMPLES, max_examples=10)
@given(st.data(), shares, shares, seeds)
def test_tokens(data, share, units, seed):
    torch.manual_seed(seed)
    net, x = data.draw(tokens())
    check(net, x, share, units, seed)


@pytest.mark.slow
@settings(EXAMPLES, max_examples=500)
@given(st.data(), shares, shares, seeds)
def test_many(data, share, units, seed):
    torch.manual_seed(seed)
    net, x = data.draw(
        st.one_of(dense(7).map(lambda net: (net, torch.randn(3, 7))), convolutional(1), convolutional(2), tokens())
    )
    check(net, x, share, units, seed)


# --- what goes and what stays ------------------------------------------------------------------------------------------


def mlp(*widths, **kwargs):
    layers = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b, **kwargs), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


@torch.no_grad()
def test_a_unit_without_weights_is_folded_into_the_next_bias():
    net, x = mlp(5, 6, 3), torch.randn(4, 5)
    net[0].weight[[1, 4]] = 0.0
    net[0].bias[1] = 2.0
    found = cut(net, x)
    small = found.network
    assert (small[0].weight.shape, small[2].weight.shape, found.units["0"]) == ((4, 5), (3, 4), (6, 4))
    expected = net[2].bias + net[2].weight[:, 1] * 2.0 + net[2].weight[:, 4] * net[0].bias[4].relu()
    torch.testing.assert_close(small[2].bias, expected)
    assert_same_function(net, small, x)
    assert not found.stayed


@torch.no_grad()
def test_a_layer_without_bias_gets_one_where_a_constant_is_folded():
    net, x = nn.Sequential(nn.Linear(5, 6), nn.Sigmoid(), nn.Linear(6, 3, bias=False)), torch.randn(4, 5)
    net[0].weight[1] = 0.0
    small = cut(net, x).network
    assert small[2].bias is not None
    assert_same_function(net, small, x)


@torch.no_grad()
def test_a_unit_that_nobody_reads_goes_with_its_own_inputs():
    net, x = mlp(5, 6, 7, 3), torch.randn(4, 5)
    net[4].weight[:, 2] = 0.0
    net[2].weight[:, 3] = 0.0
    net[2].weight[2, :] = 9.0  # however large
    net[2].weight[[0, 1, 3, 4, 5, 6], 4] = 0.0  # read by the unit that goes alone
    assert [tuple(m.weight.shape) for m in cut(net, x).network[::2]] == [(4, 5), (6, 4), (3, 6)]


@torch.no_grad()
def test_inputs_that_are_not_read_are_left_out():
    net, x = mlp(5, 6, 3), torch.randn(4, 5)
    net[0].weight[:, [0, 3]] = 0.0
    small = cut(net, x).network
    assert small[0][0].index.tolist() == [1, 2, 4]
    assert small[0][1].weight.shape == (6, 3)
    assert_same_function(net, small, x)


def conv_pair(padding):
    return nn.Sequential(nn.Conv2d(2, 5, 3), nn.ReLU(), nn.Conv2d(5, 3, 3, padding=padding))


@torch.no_grad()
def test_a_constant_channel_stays_in_front_of_padding_and_is_reported():
    x = torch.randn(2, 2, 8, 8)
    for padding, left in ((0, 4), (1, 5)):
        net = conv_pair(padding)
        net[0].weight[2] = 0.0
        net[0].bias[2] = 1.0
        found = cut(net, x)
        assert found.units["0"] == (5, left)
        assert_same_function(net, found.network, x)
    assert found.stayed == {"0": "1 of 5 units are constant and stay, for they are read by 2"}


@torch.no_grad()
def test_a_channel_of_zeros_goes_in_front_of_padding():
    net, x = conv_pair(1), torch.randn(2, 2, 8, 8)
    net[0].weight[2] = 0.0
    net[0].bias[2] = -1.0  # and the ReLU makes 0 of it
    assert cut(net, x).units["0"] == (5, 4)


@torch.no_grad()
def test_a_channel_of_a_residual_sum_goes_only_when_dead_on_every_branch():
    body, shortcut = nn.Conv2d(2, 5, 3, padding=1), nn.Conv2d(2, 5, 1)
    net = nn.Sequential(Residual(body, shortcut), nn.ReLU(), nn.Conv2d(5, 3, 3))
    body.weight[[1, 2]] = 0.0
    shortcut.weight[[2, 3]] = 0.0
    x = torch.randn(2, 2, 8, 8)
    found = cut(net, x)
    assert found.units["0.body"] == found.units["0.shortcut"] == (5, 4)
    assert "0.body" in found.stayed
    assert "add" in found.stayed["0.body"]
    assert_same_function(net, found.network, x)


@torch.no_grad()
def test_a_channel_that_one_branch_needs_for_others_stays_on_both():
    """The body reads all that the shortcut passes on, so that nothing of the sum can go though parts are not read."""
    body = nn.Linear(6, 6)
    net = nn.Sequential(nn.Linear(5, 6), Residual(body, nn.Identity()), nn.Linear(6, 3))
    net[2].weight[:, [1, 4]] = 0.0
    x = torch.randn(4, 5)
    found = cut(net, x)
    assert (found.units["0"], found.units["1.body"]) == ((6, 6), (6, 6))
    assert_same_function(net, found.network, x)
    body.weight[:, [1, 4]] = 0.0  # and now they can
    assert cut(net, x).units["1.body"] == (6, 4)


@torch.no_grad()
@pytest.mark.parametrize("negative", [False, True])
def test_a_closed_gate_takes_its_channel_and_a_negative_one_does_not_pass_a_maximum(negative):
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), Gate(4), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3))
    net[2].weight.copy_(torch.tensor([0.5, 0.0, -2.0 if negative else 2.0, 0.0]))
    x = torch.randn(2, 1, 8, 8)
    found = cut(net, x)
    assert found.units["0"] == (4, 2)
    assert isinstance(found.network[2], Gate if negative else nn.Identity)
    assert_same_function(net, found.network, x)


@torch.no_grad()
def test_gated_inputs():
    net = nn.Sequential(nn.Flatten(), Gate(12), nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 3))
    net[1].weight[::2] = 0.0
    x = torch.randn(4, 3, 4)
    small = cut(net, x).network
    assert isinstance(small[1], nn.Identity)
    assert small[2][0].index.tolist() == list(range(1, 12, 2))
    assert_same_function(net, small, x)


@torch.no_grad()
def test_groups_of_a_convolution_go_whole():
    net = nn.Sequential(nn.Conv2d(2, 6, 1), nn.ReLU(), nn.Conv2d(6, 4, 3, groups=2), nn.ReLU(), nn.Conv2d(4, 3, 1))
    net[4].weight[:, :2] = 0.0
    x = torch.randn(2, 2, 8, 8)
    small = cut(net, x).network
    assert (small[0].out_channels, small[2].groups, small[2].weight.shape) == (3, 1, (2, 3, 3, 3))
    assert_same_function(net, small, x)


class ByHand(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc, self.out = nn.Conv2d(1, 4, 3), nn.Linear(4 * 9, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.out(F.relu(self.fc(F.max_pool2d(F.relu(self.conv(x)), 2).view(-1, 4 * 9))))


@torch.no_grad()
def test_a_size_written_into_the_code_changes_with_it():
    net, x = ByHand(), torch.randn(2, 1, 8, 8)
    net.conv.weight[1] = 0.0
    small = cut(net, x).network
    assert isinstance(small, fx.GraphModule)
    assert small.fc.in_features == 27
    for inputs in (x, x[:1], torch.randn(5, 1, 8, 8)):
        assert_same_function(net, small, inputs)


@torch.no_grad()
def test_the_class_stays_where_no_code_changes():
    net, x = ByHand(), torch.randn(2, 1, 8, 8)
    net.fc.weight[1] = 0.0
    found = cut(net, x)
    assert type(found.network) is ByHand
    assert found.network.fc.out_features == 5
    assert net.fc.out_features == 6


def test_heads_with_constant_values_go(device):
    net = nn.Sequential(Attending(8, 4), nn.Flatten(), nn.Linear(40, 3))
    attention = net[0].attention
    with torch.no_grad():
        attention.in_proj_bias.normal_()
        attention.in_proj_weight.view(3, 4, 2, 8)[2, 1] = 0.0
        attention.out_proj.weight.view(8, 4, 2)[:, 3] = 0.0
    x = torch.randn(2, 5, 8)
    before = torch.get_rng_state()
    small = cut(net.eval(), x).network
    assert torch.equal(before, torch.get_rng_state())
    assert small[0].attention.num_heads == 2
    assert_same_function(net, small, x)


class Attending(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


def test_where_new_tensors_go_by_default_does_not_matter():
    """On a GPU masks and constants would be made there and here."""
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)).eval()
    with torch.no_grad():
        net[0].weight[1] = 0.0
    x = torch.randn(2, 1, 8, 8)
    expected = cut(net, x).network
    with torch.device("meta"):
        found = cut(net, x).network
    assert next(found.parameters()).device.type == "cpu"
    assert torch.equal(found(x), expected(x))
    assert found[0].out_channels == 3


def test_a_single_layer():
    net, x = nn.Linear(5, 3), torch.randn(2, 5)
    with torch.no_grad():
        net.weight[:, 1:3] = 0.0
    found = cut(net, x)
    assert_same_function(net, found.network, x)
    assert found.units == {"": (3, 3)}
    assert isinstance(cut(nn.Linear(5, 3), x).network, nn.Linear)


def test_training_mode_and_trainability_are_those_of_the_network():
    net = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Dropout(), nn.Linear(6, 3))
    with torch.no_grad():
        net[0].weight[1] = 0.0
    assert cut(net, torch.randn(2, 5)).network[0].training
    assert not cut(net.eval(), torch.randn(2, 5)).network[0].training
    assert all(p.requires_grad for p in cut(net, torch.randn(2, 5)).network.parameters())


# --- bad input -----------------------------------------------------------------------------------------------------------


def test_a_layer_that_would_die_is_named():
    net, x = mlp(5, 6, 7, 3), torch.randn(4, 5)
    with torch.no_grad():
        net[2].weight.zero_()
    with pytest.raises(ValueError, match=r"layer '2' would die whole: none of its 7 units.*allow_dead=True"):
        cut(net, x)
    found = cut(net, x, allow_dead=True)
    assert_same_function(net, found.network, x)
    assert size(found.network) < 15
    assert "1 of 7 units are constant and stay, since a layer has at least one" in found.stayed["2"]


def test_a_constant_network():
    net, x = mlp(5, 6, 3), torch.randn(4, 5)
    with torch.no_grad():
        net[2].weight.zero_()
    with pytest.raises(ValueError, match=r"layer '2' would die whole: none of its 3 units"):
        cut(net, x)
    small = cut(net, x, allow_dead=True).network
    assert torch.equal(small(x), net[2].bias.expand(4, 3))


def test_a_module_that_cannot_be_cut_is_named():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.out = nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 3)

        def forward(self, x):
            return self.out(self.rnn(x)[0][:, -1])

    net, x = Recurrent(), torch.randn(2, 5, 4)
    with pytest.raises(TypeError, match=r"'rnn' is of type LSTM, which cannot be cut: name it in keep="):
        cut(net, x)
    assert_same_function(net, cut(net, x, keep=["rnn"]).network, x)
    with pytest.raises(ValueError, match=r"keep='lstm' names no module"):
        cut(net, x, keep=["lstm"])


def test_inputs_that_do_not_fit_are_said_to():
    with pytest.raises(
        ValueError, match=r"Sequential does not run on example inputs of shapes \[\(2, 5\)\]: at '0', .*inputs="
    ):
        cut(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), torch.randn(2, 5))


def test_code_that_cannot_be_traced_is_named():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return self.layer(x) if x.sum() > 0 else x

    net = nn.Sequential(nn.Linear(4, 4), Branching())
    with pytest.raises(TypeError, match=r"module '1' cannot be cut, since its code cannot be traced"):
        cut(net, torch.randn(2, 4))
    cut(net, torch.randn(2, 4), keep=["1"])


@pytest.mark.parametrize(("batch", "changed"), [(2, 2), (20_000, 1)], ids=["all outputs", "one of many"])
def test_a_change_in_place_that_the_graph_does_not_show_is_found_out(batch, changed):
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x):
            y = self.first(x)
            y[:changed].add_(1.0)
            return self.second(y)

    net = InPlace()
    with torch.no_grad():
        net.first.weight[0] = 0.0
    with pytest.raises(RuntimeError, match="outputs differ"):
        cut(net, torch.randn(batch, 4))


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.out = nn.Linear(4, 3), nn.Linear(4, 3), nn.Linear(3, 3)

    def forward(self, x):
        return self.first(x), self.out(self.second(x))


@torch.no_grad()
def test_an_output_that_is_no_number_in_one_of_them_is_found_out_behind_one_that_is():
    net = Two()
    net.second.bias[0] = torch.inf
    net.out.weight[:, 0] = 0.0  # and 0 times infinity is no number
    with pytest.raises(RuntimeError, match="outputs differ by inf"):
        cut(net, torch.randn(2, 4))


@torch.no_grad()
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_no_finite_number_in_both_is_no_difference(value):
    net, x = Two(), torch.randn(2, 4)
    net.second.weight[1] = 0.0
    net.out.bias[0] = value
    found = cut(net, x)
    assert found.units["second"] == (3, 2)
    assert found.difference < 1e-6
    torch.testing.assert_close(found.network(x), net(x), equal_nan=True)


@torch.no_grad()
def test_logits_masked_by_minus_infinity():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = mlp(4, 6, 3)

        def forward(self, x):
            return self.body(x).masked_fill(torch.tensor([False, True, False]), -torch.inf)

    net, x = Masked(), torch.randn(2, 4)
    net.body[0].weight[1] = 0.0
    small = cut(net, x).network
    assert small.body[0].out_features == 5
    assert_same_function(net, small, x)


@dataclasses.dataclass
class Logits:
    logits: torch.Tensor
    note: str = ""


class Labelled(nn.Module):
    """Its outputs are a dataclass, and a size is written into it."""

    def __init__(self):
        super().__init__()
        self.body = mlp(4, 6, 3)

    def forward(self, x):
        return Logits(self.body(x.view(-1, 4)), "logits")


@torch.no_grad()
def test_outputs_in_a_dataclass_are_read_and_compared():
    torch.manual_seed(0)
    net, x = Labelled(), torch.randn(20, 4)
    net.body[0].weight[1] = 0.0
    found = cut(net, x)
    assert found.units == {"body.0": (6, 5), "body.2": (3, 3)}
    assert 0.0 < found.difference < 1e-6
    torch.testing.assert_close(found.network(x).logits, net(x).logits)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    torch.manual_seed(0)
    net, x = mlp(64, 50, 50, 3).to(dtype), torch.randn(20, 64, dtype=dtype)
    for layer in net[::2]:
        layer.weight.mul_(torch.rand(layer.weight.shape) > 0.5)
    net[0].weight[:20] = 0.0
    found = cut(net, x)
    assert found.units["0"] == (50, 30)
    assert 1e-4 < found.difference < 8 * torch.finfo(dtype).eps
    assert {p.dtype for p in found.network.parameters()} == {dtype}


def test_inputs_on_which_nothing_can_be_compared_are_said_to():
    x = torch.full((2, 5), torch.nan)
    with pytest.raises(ValueError, match=r"Sequential gives nothing but NaN on the example inputs.*pass others by inputs="):
        cut(mlp(5, 6, 3), x)


class Reads(nn.Module):
    """Two layers, of the first of which the code wants something that is no longer there when it selects its inputs."""

    def __init__(self, wanted):
        super().__init__()
        self.first, self.second, self.wanted = nn.Linear(4, 6), nn.Linear(6, 3), wanted
        with torch.no_grad():
            self.first.weight[:, 1] = 0.0

    def forward(self, x):
        return self.second(self.first(x.reshape(-1, self.wanted(self.first))).relu())


def the_size_of_a_linear_layer(layer):
    if not isinstance(layer, nn.Linear):
        raise TypeError("it is no linear layer")
    return layer.in_features


@pytest.mark.parametrize(
    ("wanted", "outer", "inner"),
    [
        (lambda layer: layer.in_features, "module 'first' (.*'in_features')", "module '0.first'"),
        (the_size_of_a_linear_layer, "the code of Reads (it is no linear layer)", "module '0'"),
    ],
)
def test_a_cut_network_that_does_not_run_is_said_to_and_where(wanted, outer, inner):
    net, x = Reads(wanted), torch.randn(2, 4)
    outer = outer.replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(RuntimeError, match=f"the cut network does not run, at {outer}: name that module in keep="):
        cut(net, x)
    with pytest.raises(RuntimeError, match=f"the cut network does not run, at {inner} "):
        cut(nn.Sequential(net, nn.Linear(3, 2)), x)
    assert cut(net, x, keep=["first"]).difference == 0.0


def test_a_transformer_layer_that_is_kept_stays_one_of_torchs():
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
    net, x = nn.Sequential(layer, nn.Flatten(), nn.Linear(40, 3)).eval(), torch.randn(2, 5, 8)
    assert type(cut(net, x, keep=["0"]).network[0]) is nn.TransformerEncoderLayer


# --- networks that people use --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("name", "side"), [("resnet18", 64), ("vgg11_bn", 64), ("vit_b_16", 224), ("densenet121", 64),
                                            ("mobilenet_v3_small", 64), ("convnext_tiny", 64)])  # fmt: skip
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_torchvision(name, side, share):
    models = pytest.importorskip("torchvision.models")
    net = remove_at_random(getattr(models, name)(weights=None), share, 0.3, torch.Generator("cpu").manual_seed(0))
    for module in net.modules():  # keep the signal's size
        if isinstance(module, nn.Linear | nn.Conv2d | nn.MultiheadAttention):
            for parameter in module.parameters(recurse=False):
                parameter.data /= max(1.0, float(parameter.data[0].norm()) if parameter.dim() > 1 else 1.0)
    x = torch.randn(1, 3, side, side)
    found = cut(net, x, allow_dead=True)
    assert found.difference < 1e-5
    assert size(found.network) < size(net)
