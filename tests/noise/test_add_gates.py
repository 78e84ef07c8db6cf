"""Where gates are put, how wide they are, and what is refused."""

import pytest
import torch
from torch import nn

import pyro_vbd as vbd


def lenet():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(36, 6), nn.Dropout(), nn.Tanh(), nn.Linear(6, 3),
    )  # fmt: skip


def gates(net):
    return {name: module.size for name, module in net.named_modules() if isinstance(module, vbd.Gate)}


@pytest.mark.parametrize("inputs", [None, torch.randn(2, 1, 8, 8, device="cpu")])
def test_behind_the_nonlinearities_by_default(inputs, device):
    net = lenet()
    inputs = None if inputs is None else inputs.to(device)
    gated = vbd.add_gates(net, inputs=inputs)
    assert gates(gated) == {"1.1": 4, "6.1": 6}
    assert not gates(net)
    for module in gated.modules():
        if isinstance(module, vbd.Gate):
            nn.init.ones_(module.weight)
    x = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(gated.eval()(x), net.eval()(x))


def test_a_packed_sequence_is_one_input():
    class OfPacked(nn.Module):
        def __init__(self):
            super().__init__()
            self.activation, self.out = nn.Tanh(), nn.Linear(3, 2)

        def forward(self, x):
            return self.out(self.activation(x.data))

    gated = vbd.add_gates(OfPacked(), inputs=nn.utils.rnn.pack_sequence([torch.randn(4, 3), torch.randn(2, 3)]))
    assert gates(gated) == {"activation.1": 3}


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (nn.Flatten, {"3.1": 36}),
        ((nn.Flatten, nn.Tanh), {"3.1": 36, "6.1": 6}),
        ("6", {"6.1": 6}),
        (["1", "6"], {"1.1": 4, "6.1": 6}),
        (lambda name, module: isinstance(module, nn.MaxPool2d), {"2.1": 4}),
        (nn.Linear, {"4.1": 6, "7.1": 3}),
    ],
)
def test_where_one_says(after, expected):
    assert gates(vbd.add_gates(lenet(), after)) == expected
    assert gates(vbd.add_gates(lenet(), after, inputs=torch.randn(2, 1, 8, 8))) == expected


def test_tokens_and_heads():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.mlp = nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8))

        def forward(self, x):
            return self.mlp(self.attention(x, x, x, need_weights=False)[0])

    gated = vbd.add_gates(Net(), (nn.GELU, nn.MultiheadAttention), inputs=torch.randn(2, 5, 8), dim=-1)
    assert gates(gated) == {"attention.gate": 2, "mlp.1.1": 12}
    assert gated.mlp[1][1].dim == -1
    assert isinstance(vbd.add_gates(Net(), nn.MultiheadAttention).attention, vbd.HeadwiseAttention)


def test_it_needs_no_line_more():
    model = vbd.Classifier(vbd.add_gates(lenet()), vbd.priors.GaussianUniform(), 8)
    guide = vbd.VBDGuide(model)
    assert {"1.1.weight", "6.1.weight"} < set(guide.log_alpha())
    assert vbd.VBD_ELBO().loss(model, guide, torch.randn(8, 1, 8, 8), torch.randint(3, (8,))) > 0


def test_of_modules_inside_each_other_the_outer_one():
    net = nn.Sequential(nn.Linear(4, 5), nn.Sequential(nn.Linear(5, 6), nn.ReLU()), nn.Linear(6, 2))
    assert gates(vbd.add_gates(net, ["1", "1.1"], inputs=torch.randn(3, 4))) == {"1.1": 6}


@pytest.mark.parametrize("training", [True, False])
def test_the_gated_network_is_of_the_kind_of_the_one_before(training, float64):
    """Its mode, its type of numbers and its statistics, and nothing is left of the run that looked at the sizes."""
    net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2)).train(training)
    torch.set_default_dtype(torch.float32)
    gated = vbd.add_gates(net, inputs={"input": torch.randn(3, 4, dtype=torch.float64)})
    assert gates(gated) == {"2.1": 5}
    assert {module.training for module in gated.modules()} == {training}
    assert {parameter.dtype for parameter in gated.parameters()} == {torch.float64}
    assert int(gated[1].num_batches_tracked) == 0
    assert not any(module._forward_hooks for module in gated.modules())


def test_what_cannot_be_told_is_refused():
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.act = nn.Linear(4, 5), nn.ReLU()

        def forward(self, x):
            return self.act(self.layer(self.act(x)))

    with pytest.raises(ValueError, match=r"after=Sigmoid names no module of Sequential"):
        vbd.add_gates(lenet(), nn.Sigmoid)
    with pytest.raises(ValueError, match="how wide the output of 'act' is: pass inputs="):
        vbd.add_gates(Hidden())
    with pytest.raises(ValueError, match="'act' ran 2 times"):
        vbd.add_gates(Hidden(), inputs=torch.randn(2, 4))
    relu = nn.ReLU()
    with pytest.raises(ValueError, match=r"\['3'\] are the same modules as others"):
        vbd.add_gates(nn.Sequential(nn.Linear(4, 4), relu, nn.Linear(4, 4), relu))
    with pytest.raises(TypeError, match="batch_first"):
        vbd.add_gates(nn.Sequential(nn.MultiheadAttention(8, 2)), nn.MultiheadAttention)


@pytest.mark.parametrize(
    ("layers", "size"),
    [
        ((nn.Linear(4, 6), nn.LayerNorm(6), nn.Dropout(), nn.Identity(), nn.ReLU()), 6),
        ((nn.Conv2d(3, 6, 1), nn.GroupNorm(2, 6), nn.AvgPool2d(2), nn.LocalResponseNorm(2), nn.ReLU()), 6),
        ((nn.Unflatten(1, (3, 4, 4)), nn.ReLU(), nn.Dropout2d(), nn.Upsample(scale_factor=2), nn.Conv2d(3, 2, 1)), 3),
    ],
)
def test_how_wide_it_is_is_told_through_what_keeps_the_width(layers, size):
    assert list(gates(vbd.add_gates(nn.Sequential(*layers))).values()) == [size]


@pytest.mark.parametrize(
    ("layers", "shape", "size"),
    [
        ((nn.Conv2d(3, 32, 1), nn.PixelShuffle(2), nn.ReLU()), (2, 3, 4, 4), 8),
        ((nn.Linear(3, 32), nn.GLU(), nn.ReLU()), (2, 3), 16),
        ((nn.Unflatten(1, (4, 4, 4)), nn.ReLU(), nn.PixelShuffle(2), nn.Conv2d(1, 2, 1)), (2, 64), 4),
    ],
)
def test_how_wide_it_is_is_not_told_through_what_may_change_the_width(layers, shape, size):
    net = nn.Sequential(*layers)
    with pytest.raises(ValueError, match=r"how wide the output of '\d' is: pass inputs="):
        vbd.add_gates(net)
    assert list(gates(vbd.add_gates(net, inputs=torch.randn(shape))).values()) == [size]
