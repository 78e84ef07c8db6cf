"""Members for tests, and the runs that each would have by itself."""

import copy

import pytest
import torch
from torch import nn

import pyro_vbd as vbd
from tests.digits import values

X, CLASSES = 8, 3


def data(size=45):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(size, X, generator=generator, dtype=torch.float64).to(torch.get_default_dtype())
    y = torch.randint(CLASSES, (size,), generator=generator)
    device = torch.get_default_device()
    return x.to(device), y.to(device)


def net():
    return nn.Sequential(nn.Linear(X, 5, bias=False), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, CLASSES))


def members(count, make=net, prior=lambda k: vbd.priors.GaussianUniform()):
    """Models of different initial weights, and their guides."""
    models = []
    for k in range(count):
        torch.manual_seed(k)
        models.append(vbd.Classifier(make(), prior(k), 45))
    return models, [vbd.VBDGuide(model) for model in models]


def copies(models, guides):
    """Members of their own that start as these do."""
    models, guides = copy.deepcopy((models, guides))
    for model, guide in zip(models, guides, strict=True):
        guide._model.model = model
    return models, guides


def state(run):
    return values(run.model, run.guide), run.optimizer.state_dict()["state"]


@pytest.fixture
def same_noise(monkeypatch):
    """Outputs at 0.7 standard deviations above their mean: the noise is the same in all runs."""
    for module in ("gaussian_tensor", "rules"):
        monkeypatch.setattr(
            f"pyro_vbd.estimators.{module}.sample_output",
            lambda mean, variance: mean + 0.7 * variance.clamp_min(1e-30).sqrt(),
        )
