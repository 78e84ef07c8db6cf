import math

import pyro
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from pyro_vbd.noise import GaussianDropout

N = 40_000


def test_outputs_have_the_moments_of_noisy_weights(float64):
    layer = nn.Linear(3, 2)
    x = torch.tensor([[0.5, -1.0, 2.0]])
    out = GaussianDropout(layer, 0.2)(x.expand(N, 3)).detach()
    mean = layer(x)[0].detach()
    variance = F.linear(x.square(), 0.25 * layer.weight.square())[0].detach()  # alpha = .2 / .8
    assert ((out.mean(0) - mean).abs() < 4 * (variance / N).sqrt()).all()
    assert ((out.var(0) - variance).abs() < 4 * variance * math.sqrt(2 / N)).all()


def test_each_output_has_noise_of_its_own(float64):
    layer = nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight[1] = layer.weight[0]
    out = GaussianDropout(layer, 0.5)(torch.randn(1, 3).expand(N, 3)).detach()
    z = torch.corrcoef(out.T)[0, 1] * math.sqrt(N)
    assert abs(float(z)) < 4


def test_a_convolution_and_its_gradients():
    layer = nn.Conv2d(2, 3, 3)
    noisy = GaussianDropout(layer, 0.5)
    noisy(torch.randn(4, 2, 5, 5)).square().sum().backward()
    assert layer.weight.grad.abs().min() > 0
    assert layer.bias.grad is not None
    assert list(dict(noisy.named_parameters())) == ["layer.weight", "layer.bias"]


def test_evaluation_is_the_layer():
    layer = nn.Linear(3, 2)
    x = torch.randn(5, 3)
    assert torch.equal(GaussianDropout(layer).eval()(x), layer(x))
    assert torch.equal(GaussianDropout(layer, 0.0)(x), layer(x))


def test_a_layer_without_weights():
    with pytest.raises(ValueError, match="no parameter 'weight'"):
        GaussianDropout(nn.ReLU())


@pytest.mark.parametrize(("layer", "shape"), [(nn.Linear(6, 3), (8, 6)), (nn.Conv2d(6, 3, 3), (8, 6, 5, 5))])
def test_gradients_by_transforms_are_those_of_autograd(layer, shape):
    """torch.func puts tensors in the places of parameters."""
    device = torch.get_default_device()
    module, x = GaussianDropout(layer.to(device), 0.3), torch.randn(shape)
    names, parameters = zip(*module.named_parameters(), strict=True)

    def loss(values):
        pyro.set_rng_seed(0)
        return functional_call(module, dict(zip(names, values, strict=True)), (x,)).square().sum()

    by_transform = torch.func.grad(loss)(tuple(parameter.detach() for parameter in parameters))
    for found, expected in zip(by_transform, torch.autograd.grad(loss(parameters), parameters), strict=True):
        torch.testing.assert_close(found, expected)
