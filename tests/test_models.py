"""The networks of models/: their sizes, and their Pyro models under any prior."""

import pytest
import torch
from torch import nn

import models
import pyro_vbd as vbd

NETWORKS = {
    "mlp": (lambda: models.mlp(784, (100, 100, 100), 10), (1, 28, 28), 784 * 100 + 2 * 100 * 100 + 1000),
    "lenet-300-100": (models.lenet_300_100, (1, 28, 28), 266_200),
    "lenet-500-300": (models.lenet_500_300, (1, 28, 28), 545_000),
    "lenet-5": (models.lenet_5_caffe, (1, 28, 28), 430_500),
    "convnet": (models.convnet, (3, 32, 32), 75 * 32 + 800 * 64 + 4096 * 128 + 128 * 128 + 1280),
    "convnet 1.5": (lambda: models.convnet(1.5), (3, 32, 32), 75 * 48 + 1200 * 96 + 6144 * 192 + 192 * 192 + 1920),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_without_biases(name):
    make, _, weights = NETWORKS[name]
    assert sum(p.numel() for p in make().parameters() if p.dim() > 1) == weights


@pytest.mark.parametrize("prior", [vbd.priors.GaussianUniform(), vbd.priors.LogUniform(), vbd.priors.Gaussian()], ids=repr)
@pytest.mark.parametrize("name", NETWORKS)
def test_as_a_pyro_model(name, prior):
    make, shape, weights = NETWORKS[name]
    model = vbd.Classifier(make(), prior, num_data=100)
    guide = vbd.VBDGuide(model)
    assert sum(value.numel() for value in guide.log_alpha().values()) == weights
    loss = vbd.VBD_ELBO()(model, guide)(torch.randn(4, *shape), torch.tensor([0, 3, 9, 1]))
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None for p in guide.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_classes_and_biases(name):
    make, shape, _ = NETWORKS[name]
    net = make()
    assert net(torch.zeros(2, *shape)).shape == (2, 10)
    assert all(layer.bias is not None for layer in net if isinstance(layer, nn.Linear | nn.Conv2d))
