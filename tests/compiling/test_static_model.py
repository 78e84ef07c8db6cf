"""Two traces that must agree: which models pass, what is compared, and that all is as it was."""

import copy

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.testing import assert_close

import pyro_vbd as vbd
from pyro_vbd.compiling.static_model import frozen, plain_attributes, static_trace
from pyro_vbd.compiling.tracing import NotStatic


class Acting(nn.Module):
    def __init__(self, act):
        super().__init__()
        self.linear, self.act, self.calls = nn.Linear(5, 3), act, 0
        self.register_buffer("factor", torch.tensor(2.0))
        self.register_buffer("shift", torch.tensor(0.0))

    def forward(self, x):
        return self.act(self, self.linear(x))


def pair(net):
    model = vbd.Classifier(net, vbd.priors.GaussianUniform(), num_data=100)
    return model, vbd.VBDGuide(model)


def checked(act):
    model, guide = pair(Acting(act))
    before = copy.deepcopy((model.state_dict(), guide.state_dict()))
    data = torch.randn(6, 5), torch.arange(6) % 3
    generator = torch.get_rng_state()
    try:
        return static_trace(vbd.VBD_ELBO(), model, guide, data, {})
    finally:
        assert_close((model.state_dict(), guide.state_dict()), before, rtol=0, atol=0)
        assert torch.equal(torch.get_rng_state(), generator)
        assert model.network.net.calls <= 1  # a first run that is no trace counts


CALLS = iter(range(1000))


def counted(module, out):
    module.calls += 1
    return out


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (counted, r"changes its own attributes \['calls'\]"),
        (lambda module, out: out * (next(CALLS) + 1), "other numbers"),
        (lambda module, out: out if next(CALLS) % 2 else out.exp(), "other steps"),
        (lambda module, out: out * float(module.factor), "other numbers"),
        (lambda module, out: out + float(module.shift), "other numbers"),
        (lambda module, out: out * torch.tensor([float(next(CALLS))]), "not those of its graph"),
        (lambda module, out: out * torch.tensor([1 + 1e-6 * next(CALLS)]), "outside of torch"),
        (lambda module, out: out if get_proxy_mode() is None else 2 * out, "not those of its graph"),
        (lambda module, out: out if get_proxy_mode() is None else 2 * out - out.detach(), "not those of its graph"),
    ],
)
def test_what_is_found_out(act, reason):
    with pytest.raises(NotStatic, match=reason):
        checked(act)


@pytest.mark.parametrize(
    "act",
    [
        lambda module, out: out * module.factor,
        lambda module, out: out * torch.tensor(3.0, device=out.device),
        lambda module, out: torch.dropout(out, 0.5, True),
    ],
)
def test_what_passes(act):
    assert checked(act).sites == ("linear.weight",)


def test_a_loss_that_nothing_moves():
    model, guide = pair(nn.Linear(5, 3))
    for part in (model, guide):
        part.requires_grad_(False)
    with pytest.raises(NotStatic, match="depends on no parameter"):
        static_trace(vbd.VBD_ELBO(), model, guide, (torch.randn(6, 5), torch.arange(6) % 3), {})


def test_errors_of_the_model_itself_are_raised():
    model, guide = pair(nn.Linear(5, 3))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        static_trace(vbd.VBD_ELBO(), model, guide, (torch.randn(6, 4), torch.arange(6) % 3), {})


def test_plain_attributes_are_numbers_words_flags_and_what_is_made_of_them():
    module = nn.Sequential(nn.Dropout(0.3))
    module.settings = {"rates": [0.1, (2, "word")], "none": None}
    module.tensors = [torch.zeros(1)]
    names = {name for _, name in plain_attributes((module,))}
    assert names == {"training", "settings", "p", "inplace"}
    elbo = vbd.VBD_ELBO(0.5)
    assert "kl_weight" in {name for _, name in plain_attributes((elbo,))}
    assert plain_attributes((lambda x: x,)) == []


def test_frozen_can_be_looked_up_and_tells_contents_apart():
    value = {"rates": [0.1, (2, "word")]}
    first = frozen(value)
    assert {first: 1}[frozen(copy.deepcopy(value))] == 1
    value["rates"][0] = 0.2
    assert frozen(value) != first
