import math

import pytest
import torch
from torch import nn

from pyro_vbd.noise import ConcreteDropout

N = 40_000


def ones(layer):
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.bias.zero_()
    return layer


def test_the_mean_input_is_kept_at_a_low_temperature(float64):
    # at temperature 0 the noise is binary dropout: mean 1, variance p / (1 - p)
    net = ConcreteDropout(ones(nn.Linear(1, 1)), init_p=0.3, temperature=1e-3)
    out = net(torch.ones(N, 1)).detach()
    assert abs(float(out.mean()) - 1) < 4 * math.sqrt(0.3 / 0.7 / N) + 1e-3
    assert float(out.var()) == pytest.approx(0.3 / 0.7, abs=0.02)
    assert set(out.mul(0.7).round(decimals=2).unique().tolist()) >= {0.0, 1.0}


def test_the_relaxation_is_the_sigmoid_of_the_sources(float64):
    p, t = 0.3, 0.5
    net = ConcreteDropout(ones(nn.Linear(1, 1)), init_p=p, temperature=t)
    torch.manual_seed(7)
    out = net(torch.full((5, 1), 3.0))
    torch.manual_seed(7)
    u = torch.rand(5, 1)
    z = 1 / (1 + torch.exp(-(math.log(p / (1 - p)) + torch.log(u / (1 - u))) / t))
    torch.testing.assert_close(out, 3.0 * (1 - z) / (1 - p))


def test_the_penalty_by_hand(float64):
    layer = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2.0]]))
    net = ConcreteDropout(layer, init_p=0.2, length_scale=3.0)
    entropy = -0.2 * math.log(0.2) - 0.8 * math.log(0.8)
    assert net.penalty().item() == pytest.approx(0.5 * 9 * 5 / 0.8 - 2 * entropy, rel=1e-12)


def test_the_spatial_form_drops_whole_channels():
    layer = nn.Conv2d(4, 1, 3, bias=False)
    net = ConcreteDropout(layer, init_p=0.5, temperature=1e-4)
    seen = []
    layer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    net(torch.ones(50, 4, 3, 3))
    channels = seen[0].flatten(2)
    assert torch.equal(channels.amin(2), channels.amax(2))
    assert channels.unique().numel() > 1
    entropy = math.log(2)
    squares = layer.weight.square().sum().item()
    assert net.penalty().item() == pytest.approx(0.5e-4 * squares / 0.5 - 4 * entropy, rel=1e-5)


def test_the_channels_of_one_image_are_dropped_whole_too():
    layer, seen = nn.Conv2d(40, 1, 3), []
    layer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    assert ConcreteDropout(layer, init_p=0.5)(torch.ones(40, 5, 6)).shape == (1, 3, 4)
    channels = seen[0].flatten(1)
    assert torch.equal(channels.amin(1), channels.amax(1))
    assert channels[:, 0].unique().numel() == 40


def test_the_rate_is_learned_from_likelihood_and_penalty():
    net = ConcreteDropout(nn.Linear(20, 1))
    (net(torch.randn(30, 20)).square().mean() + net.penalty() / 30).backward()
    assert net.logit.grad.abs() > 0
    net.layer.weight.data.zero_()
    net.logit.grad = None
    net.penalty().backward()
    assert net.logit.grad < 0  # the entropy alone drives p up to 1/2


def test_evaluation_is_the_layer():
    layer = nn.Linear(3, 2)
    x = torch.randn(5, 3)
    assert torch.equal(ConcreteDropout(layer).eval()(x), layer(x))


def test_half_precision_stays_what_it_is():
    net = ConcreteDropout(nn.Linear(3, 2)).to(torch.bfloat16)
    assert net(torch.ones(5, 3, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_temperatures_of_the_released_code():
    assert ConcreteDropout(nn.Linear(1, 1)).temperature == 0.1
    assert ConcreteDropout(nn.Conv1d(1, 1, 1)).temperature == pytest.approx(2 / 3)


def test_wrong_arguments():
    with pytest.raises(TypeError, match="cannot wrap a ReLU"):
        ConcreteDropout(nn.ReLU())
    with pytest.raises(ValueError, match="init_p=1"):
        ConcreteDropout(nn.Linear(1, 1), init_p=1.0)
    with pytest.raises(ValueError, match="temperature=0"):
        ConcreteDropout(nn.Linear(1, 1), temperature=0.0)
