"""A small real problem for tests: scikit-learn's digits and a network that learns them in seconds."""

import pytest
import torch
from torch import Tensor, nn

import pyro_vbd as vbd


def digits(device: torch.device, train: int = 1200) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    datasets = pytest.importorskip("sklearn.datasets")
    x, y = datasets.load_digits(return_X_y=True)
    x = torch.tensor(x / 16, dtype=torch.get_default_dtype(), device=device)
    y = torch.tensor(y, device=device)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0), device="cpu").to(device)
    x, y = x[order], y[order]
    return x[:train], y[:train], x[train:], y[train:]


def network(hidden: int = 50) -> nn.Sequential:
    return nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))


def classifier(num_data: int, prior: vbd.priors.Prior | None = None, hidden: int = 50) -> vbd.Classifier:
    return vbd.Classifier(network(hidden), prior or vbd.priors.GaussianUniform(), num_data)


def pair(num_data=1200, **kwargs):
    model = classifier(num_data, **kwargs)
    return model, vbd.VBDGuide(model)


def values(model, guide):
    return {**model.state_dict(), **guide.state_dict()}


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name
