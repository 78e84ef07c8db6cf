"""A trained posterior of digits to compress, and its parts."""

from functools import cache

import pyro
import torch
from torch import nn

import pyro_vbd as vbd
from tests.digits import digits


def convnet():
    return vbd.add_gates(
        nn.Sequential(
            nn.Unflatten(1, (1, 8)), nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(72, 30), nn.ReLU(), nn.Linear(30, 10),
        )
    )  # fmt: skip


@cache
def trained(device):
    """Model, guide, training and validation batches; the digits as rows of pixels."""
    pyro.set_rng_seed(0)
    x, y, x_val, y_val = digits(device)
    x, x_val = x.reshape(-1, 8, 8), x_val.reshape(-1, 8, 8)
    model = vbd.Classifier(convnet().to(device), vbd.priors.GaussianUniform(), len(x))
    guide = vbd.VBDGuide(model, init_log_var=-9.0)
    batches = vbd.Batches(x, y, batch_size=100)
    ramp = vbd.schedules.kl_ramp(3, 10)
    vbd.fit(model, guide, batches, epochs=30, lr=5e-3, kl_schedule=ramp, progress=False)
    return model, guide, batches, vbd.Batches(x_val, y_val, batch_size=200, shuffle=False)


@torch.no_grad()
def error(net, batches):
    net.eval()
    wrong = [(net(x).argmax(-1) != y).float() for x, y in batches]
    return float(torch.cat(wrong).mean())
